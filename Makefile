# Targets for people: run, build, test, test-full, check, bench, bench-quick, fuzz, soak, clean.
# A Python >= 3.12 is searched for (each candidate is run, since a shim may exist and fail) and gets its own .venv.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# Errors are shown, remarks about indexes and about editable installs are not.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input
SOURCES := $(shell find smtpd -name '*.pyx' -o -name '*.pxd')
# Python modules with a .pxd beside them are compiled too.
SOURCES += $(wildcard $(patsubst %.pxd,%.py,$(filter %.pxd,$(SOURCES))))

run: build
	@$(BIN)/smtpd serve

build: $(VENV)/.built
	@:

$(VENV)/.python:
	@.ci/find-python $(VENV)
	@touch $@

$(VENV)/.tools: $(VENV)/.python
	@$(PIP) --upgrade "pip>=24" "setuptools>=77" "cython>=3.1"
	@touch $@

# The dependencies and the command, and the extensions for this Python; again when either changed.
$(VENV)/.built: $(VENV)/.tools pyproject.toml setup.py smtpd/compiled.py $(SOURCES)
	@$(PIP) --no-build-isolation -e '.[dns]'
	@touch $@

$(VENV)/.dev: $(VENV)/.built
	@$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -m "not full"

test-full: $(VENV)/.dev
	@$(BIN)/python -m pytest

# Exactly what CI runs before the tests.
check: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.dev
	@$(BIN)/python -m bench

bench-quick: $(VENV)/.dev
	@$(BIN)/python -m bench --quick

fuzz: $(VENV)/.dev
	@$(BIN)/python -m pytest tests/fuzz --hypothesis-profile=long

# 200 rounds of kill -9 under load, into a Maildir and to a next hop; 250 reloads, upgrades and ends of workers under load.
soak: $(VENV)/.dev
	@SMTPD_CHANGE_ROUNDS=5 $(BIN)/python -m pytest -s tests/process/test_changes_in_flight.py -k many
	@SMTPD_KILL_ROUNDS=200 $(BIN)/python -m pytest -s tests/process/test_kill_rounds.py tests/process/test_relay_kill_rounds.py

clean:
	rm -rf build dist $(VENV) *.egg-info
	find smtpd -name '*.so' -delete

.PHONY: run build test test-full check bench bench-quick fuzz soak clean
