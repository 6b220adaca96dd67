# Targets for people: run, build, test, test-full, check, bench, fuzz, soak, clean.
# A Python >= 3.12 is searched for (each candidate is run, since a shim may exist and fail) and gets its own .venv.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin

run: build
	@$(BIN)/smtpd serve

build: $(VENV)/.built

$(VENV)/.python:
	@.ci/find-python $(VENV)
	@touch $@

$(VENV)/.deps: $(VENV)/.python pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24" "setuptools>=77" "cython>=3.1"
	@touch $@

$(VENV)/.built: $(VENV)/.deps setup.py $(shell find smtpd -name '*.pyx' -o -name '*.pxd')
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.built
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[dev]'
	@touch $@

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -m "not full"

test-full: $(VENV)/.dev
	@$(BIN)/python -m pytest

check: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean:
	rm -rf build dist $(VENV) *.egg-info
	find smtpd -name '*.so' -delete

.PHONY: run build test test-full check clean
