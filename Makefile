# make tables           set up, then rebuild every table of the active profile (demo at first)
# make tables PROFILE=small   the same after switching the profile
# make test             set up, then run the tests
# make gpu              set up, then the tests and benchmarks that need a CUDA device
# make sweep            the same as make tables, several cells at once (PROFILE= too)
# make ui               the pages of MLflow and Prefect
# make clean            remove resume points of killed runs (kept apart from DVC's cache)

PYTHON ?= python3
BIN := .venv/bin
PROFILE ?=

export PATH := $(CURDIR)/$(BIN):$(PATH)
export NO_ALBUMENTATIONS_UPDATE := 1
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help setup tables sweep test gpu lint ui clean

help:
	@sed -n 's/^# make/make/p' Makefile

setup: $(BIN)/.installed

$(BIN)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or later is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Installing into .venv (some minutes the first time) ..." >&2
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

tables: setup
	$(if $(PROFILE),$(BIN)/vmunet profile $(PROFILE))
	$(BIN)/python -c 'from vmunet.scan import cpu; cpu.warm_up()'
	$(BIN)/dvc repro
	@echo "Tables: reports/out/tables/index.md and reports/out/tables/*.tex"

sweep: setup
	$(if $(PROFILE),$(BIN)/vmunet profile $(PROFILE))
	$(BIN)/python -c 'from vmunet.scan import cpu; cpu.warm_up()'
	$(BIN)/vmunet sweep
	@echo "Tables: reports/out/tables/index.md and reports/out/tables/*.tex"

test: setup
	$(BIN)/python -m pytest

gpu: setup
	-$(BIN)/python -m pytest -m gpu
	$(BIN)/python -m benchmarks.scan_gpu
	$(BIN)/python -m benchmarks.step_gpu
	$(BIN)/python -m benchmarks.plot

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .resume

ui: setup
	$(BIN)/vmunet ui
