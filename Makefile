# make tables           set up, then rebuild every table of the active profile (demo at first),
#                       several stages at once
# make tables PROFILE=small   the same after switching the profile
# make sweep            the same as make tables
# make test             set up, then run the tests
# make lint             set up, then check format, style, types and the order of imports
# make gpu              set up, then run the tests and benchmarks that need a CUDA device
# make gpu-paper SECONDS=600   train VM-UNet from scratch on ISIC 2017 by the paper's settings; it
#                       ends after so many seconds, and goes on when the command is given again
# make kill N=100       set up, then kill `dvc repro` and `vmunet sweep` at N random moments of a tiny
#                       grid, start them again, and compare with a run that was not killed
# make ui               start the pages of MLflow and Prefect
# make setup            only set up: install the pipeline's packages into .venv
# make doctor           say what is there, what is missing and how to get it; needs no set-up
# make licences         list the packages and their licences, and check them
# make lock             renew constraints.txt: the newest versions that pyproject.toml allows
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
.PHONY: help setup setup-test tables sweep test kill gpu gpu-paper lint ui doctor licences lock clean

help:
	@sed -n '/^#/!q; s/^# //p' Makefile

setup: .venv/.installed
setup-test: .venv/.installed-test

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) pipeline/install.py pipeline
	@touch $@

# The tests' packages are separate: without a GPU, Triton's 691 MB would be useless.
.venv/.installed-test: pyproject.toml constraints.txt
	@$(PYTHON) pipeline/install.py pipeline,test
	@touch .venv/.installed $@

tables sweep: setup
	$(if $(PROFILE),$(BIN)/vmunet profile $(PROFILE))
	$(BIN)/vmunet sweep

doctor:
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m pipeline.commands.doctor; \
		else $(PYTHON) -m pipeline.commands.doctor; fi

# There is a process for each core, so each test uses one thread.
test: setup-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder --durations 20

kill: setup-test
	$(BIN)/python -m tests.helpers.kills --lock --kills $(or $(N),100) --seed $(or $(SEED),1)

gpu: setup-test
	-$(BIN)/python -m pytest -m gpu -n 8
	$(BIN)/python -m benchmarks.scan_gpu --candidates
	$(BIN)/python -m benchmarks.scan_gpu
	$(BIN)/python -m benchmarks.step_gpu
	$(BIN)/python -m benchmarks.epoch_gpu
	$(BIN)/python -m benchmarks.plot
	$(BIN)/python -m benchmarks.summary

# A training that is killed, or whose SECONDS are over, goes on when the command is given again.
gpu-paper: setup
	$(BIN)/vmunet profile paper
	$(BIN)/dvc repro preprocess@isic17-256
	$(BIN)/python -m stages.train isic17-256 scratch paper 42 $(if $(SECONDS),--seconds $(SECONDS))
	$(BIN)/vmunet sweep --cells isic17-256-scratch-paper-42

lint: setup-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: setup
	$(BIN)/vmunet ui

licences: setup-test
	$(BIN)/python -m pip check
	$(BIN)/python -m pipeline.licences

lock: setup-test
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-emit-index-url --custom-compile-command "make lock" \
		--extra test --extra setup -o constraints.txt pyproject.toml

clean:
	rm -rf .resume .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache build
	find vmunet pipeline stages reports tests benchmarks examples \
		-name __pycache__ -prune -exec rm -rf {} +
