# make demo: all the set-up, then the whole way on real digits.
# make test: all the set-up, then the tests.

PYTHON ?= python3
VENV ?= .venv
DEMO_DIR ?= runs/demo
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint clean

help:
	@echo "make demo   train, evaluate, export and classify real digits ($(DEMO_DIR))"
	@echo "make test   run the tests"
	@echo "make lint   check style"
	@echo "make clean  remove $(VENV) and caches"

$(READY): setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "t2aux needs Python 3.10 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/t2aux demo --output_dir=$(DEMO_DIR)

test: $(READY)
	$(BIN)/python -m pytest -q -n 2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
