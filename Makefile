# make tables           set up, then rebuild every table of the active profile (demo at first)
# make tables PROFILE=small   the same after switching the profile
# make sweep            the same as make tables, several cells at once (PROFILE= too)
# make test             set up, then run the tests
# make lint             set up, then check format, style, types and the order of imports
# make gpu              set up, then run the tests and benchmarks that need a CUDA device
# make ui               start the pages of MLflow and Prefect
# make setup            only set up: install the pipeline's packages into .venv
# make clean            remove the caches of Python, of the tests and of the linters,
#                       and the resume points of killed trainings (.resume/);
#                       data/, runs/, .venv and DVC's cache remain

PYTHON ?= python3
BIN := .venv/bin
PROFILE ?=

export PATH := $(CURDIR)/$(BIN):$(PATH)
export NO_ALBUMENTATIONS_UPDATE := 1
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-test ready tables sweep test gpu lint ui clean

help:
	@sed -n '/^#/!q; s/^# //p' Makefile

setup: .venv/.installed
setup-test: .venv/.installed-test

# $(call install,EXTRAS): install the extras into .venv, which is made if it does not exist
define install
	@echo "Installing into .venv (some minutes the first time) ..." >&2
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or later is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(1)]'
endef

.venv/.installed: pyproject.toml constraints.txt
	$(call install,pipeline)
	@touch $@

# The tests' packages are separate: without a GPU, Triton's 691 MB would be useless.
.venv/.installed-test: pyproject.toml constraints.txt
	$(call install,pipeline$(COMMA)test)
	@touch .venv/.installed $@
COMMA := ,

# Compile the kernels for the CPU once; otherwise each of several parallel stages would do it.
ready: setup
	$(if $(PROFILE),$(BIN)/vmunet profile $(PROFILE))
	@$(BIN)/python -c 'import torch; from vmunet.scan import cpu; \
		torch.cuda.is_available() or cpu.warm_up()'

tables: ready
	$(BIN)/dvc repro
	@echo "Tables: reports/out/tables/index.md and reports/out/tables/*.tex"

sweep: ready
	$(BIN)/vmunet sweep
	@echo "Tables: reports/out/tables/index.md and reports/out/tables/*.tex"

# There is a process for each core, so each test uses one thread.
test: setup-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder --durations 20

gpu: setup-test
	-$(BIN)/python -m pytest -m gpu
	$(BIN)/python -m benchmarks.scan_gpu
	$(BIN)/python -m benchmarks.step_gpu
	$(BIN)/python -m benchmarks.plot

lint: setup-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: setup
	$(BIN)/vmunet ui

clean:
	rm -rf .resume .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache build
	find vmunet pipeline stages reports tests benchmarks examples \
		-name __pycache__ -prune -exec rm -rf {} +
