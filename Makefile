# make tables           set up, then rebuild every table of the active profile (demo at first)
# make tables PROFILE=small   the same after switching the profile
# make sweep            the same as make tables, several cells at once (PROFILE= too)
# make test             set up, then run the tests
# make lint             set up, then check format, style, types and the order of imports
# make gpu              set up, then the tests and benchmarks that need a CUDA device
# make ui               the pages of MLflow and Prefect
# make setup            set up alone: what the pipeline needs, into .venv
# make clean            remove the caches of Python, of the tests and of the linters,
#                       and the resume points of killed trainings (.resume/):
#                       data/, runs/, .venv and DVC's cache stay

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

# $(call install,EXTRAS): into .venv, which is made if it is not there
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

# The tests' packages are apart: without a GPU, Triton would take 691 MB for nothing.
.venv/.installed-test: pyproject.toml constraints.txt
	$(call install,pipeline$(COMMA)test)
	@touch .venv/.installed $@
COMMA := ,

# Kernels for the CPU are compiled once, before stages that run side by side would all do it.
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

# A process for each core; each test's own threads would be too many.
test: setup-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --durations 20

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
