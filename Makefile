# Every target sets itself up; `make` alone prints this list. PYTHON=... chooses the interpreter.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell tools/find-python)
VENV := .venv
RUN := $(VENV)/bin/python
# Stamps name the checkout's place: a copied or moved .venv would still import the old one.
PLACE := $(firstword $(shell pwd -P | cksum))
RUNTIME := $(VENV)/.ready-$(PLACE)-runtime
DEV := $(VENV)/.ready-$(PLACE)-dev
DOCS := $(VENV)/.ready-$(PLACE)-docs
PYTEST_OPTIONS ?=
CODE := src tests bench tools

.PHONY: help setup demo test unit check fix bench coverage promises chaos docs size clean machine-demo machine-test

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEV) machine-test ## .venv and what the tests need of the machine
	@echo "ready: $(VENV)/bin/fentry, make test, make check"

demo: $(RUNTIME) machine-demo ## trace a live, unmodified program, and leave no trace
	@$(RUN) tools/demo.py

test: $(DEV) machine-test ## all tests, as root (if root) and as an unprivileged user
	@tools/run-tests $(RUN) $(PYTEST_OPTIONS)

unit: $(DEV) ## the tests that touch no other process
	@$(RUN) -m pytest -n auto tests/unit tests/test_architecture.py $(PYTEST_OPTIONS)

check: $(DEV) ## format, lint, types, unit tests; no privilege, under a minute
	@$(RUN) -m ruff format --check $(wildcard $(CODE))
	@$(RUN) -m ruff check $(wildcard $(CODE))
	@$(RUN) -m mypy
	@$(RUN) -m pytest -n auto -m 'not exhaustive' tests/unit tests/test_architecture.py $(PYTEST_OPTIONS)

fix: $(DEV) ## format, and repair what the linter can
	@$(RUN) -m ruff format $(wildcard $(CODE)); $(RUN) -m ruff check --fix $(wildcard $(CODE))

bench: $(DEV) machine-test ## measure what the README claims, each beside its floor
	@$(RUN) -m pip install -q -r requirements/bench.txt || echo "no Frida: its rows will say so"
	@for file in bench/bench_*.py; do $(RUN) $$file || exit 1; done

coverage: $(DEV) ## how many functions of Debian's files can be traced; writes docs/coverage.md
	@$(RUN) bench/coverage.py

promises: $(DEV) machine-test ## every promise at full count, two at a time; writes docs/promises.log
	@$(RUN) -m tests.promises --full --jobs 2

chaos: $(DEV) machine-test ## anything together, all accounted: SEED=7 SECONDS=600 TOGETHER=1 (several controllers)
	@$(RUN) -m tests.chaos$(if $(TOGETHER),_together) $(if $(SEED),--seed $(SEED)) --seconds $(or $(SECONDS),300)

docs: $(DOCS) ## the manual pages anew, and the site in build/docs
	@$(RUN) tools/make_man.py
	@$(RUN) -m sphinx -q -W --keep-going -c tools/site -d build/doctrees docs build/docs
	@echo "build/docs/contents.html"

size: ## lines by layer and file
	@$(PYTHON) tools/size.py

clean: ## remove .venv, build and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# A static pattern: make looks for no implicit rule for a phony target.
machine-demo machine-test: machine-%:
	@tools/apt-need $*

$(VENV)/.ready-$(PLACE)-%: requirements/%.txt requirements/runtime.txt requirements/build.txt pyproject.toml tools/make-venv
	@tools/make-venv $(PYTHON) $(VENV) $* && touch $@
