# make demo: all the set-up, then training, evaluation, export and classification of real digits.
# make test: all the set-up, then the tests.

PYTHON ?= python3
VENV ?= .venv
DEMO_DIR ?= runs/demo
BIN := $(VENV)/bin
READY := $(VENV)/.ready
VULNERABILITIES := $(VENV)-audit/vulnerabilities
ONDEVICE := export/ondevice/python

.PHONY: help demo test test-gpu test-browser lint docs docs-serve lock audit clean

help:
	@echo "make demo   train, evaluate, export and classify real digits ($(DEMO_DIR))"
	@echo "make test   run the tests"
	@echo "make test-gpu   run the numeric tests on a GPU; needs tensorflow[and-cuda] in $(VENV)"
	@echo "make test-browser   run the demo page's tests; needs chromium and npm"
	@echo "make lint   check style, and that the documentation builds"
	@echo "make docs   build the documentation into site/ and check its links"
	@echo "make docs-serve   show it at http://localhost:8000, and build it again after each change"
	@echo "make lock   choose the versions in constraints.txt again"
	@echo "make audit  look for known vulnerabilities in the pinned versions (needs a network)"
	@echo "make clean  remove $(VENV) and caches"

$(READY): setup.cfg $(ONDEVICE)/setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "t2aux needs Python 3.10 to 3.13; name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt \
		-e ./$(ONDEVICE) -e '.[beam,dev,docs,quantization,serving]'
	@touch $@

demo: $(READY)
	$(BIN)/t2aux demo --output_dir=$(DEMO_DIR)

# Three processes for two cores, since they wait a tenth of the time; with one thread each, so that they
# don't fight for every core.
test: export TF_NUM_INTRAOP_THREADS = 1
test: export TF_NUM_INTEROP_THREADS = 1
test: $(READY)
	$(BIN)/python -m pytest -n 3

# Their tolerances are float32's. Four processes share the GPU's memory.
test-gpu: export NVIDIA_TF32_OVERRIDE = 0
test-gpu: export TF_FORCE_GPU_ALLOW_GROWTH = true
test-gpu: $(READY)
	$(BIN)/python -c 'import sys, tensorflow as tf; sys.exit(not tf.config.list_physical_devices("GPU"))' \
		|| { echo "TensorFlow sees no GPU: see https://www.tensorflow.org/install/pip." >&2; exit 1; }
	$(BIN)/python -m pytest -p tests.gpu -n 4 tests/model tests/losses tests/training/test_trainer.py \
		tests/training/test_gpu_paths.py tests/training/test_rows.py tests/training/test_model.py \
		tests/export/test_export_stateless.py tests/export/test_export_saved_model.py \
		tests/export/test_export_tflite.py tests/export/test_export_cores.py tests/test_load.py

test-browser: $(READY)
	$(BIN)/python -m pytest -m browser

lint: docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Links to pages, files and headings that do not exist are errors; with --quiet they would not be.
docs docs-serve: export NO_MKDOCS_2_WARNING = 1
docs: $(READY)
	$(BIN)/mkdocs build --strict

docs-serve: $(READY)
	$(BIN)/mkdocs serve

# ai-edge-litert asks for backports.strenum on every Python, its 1.3 refuses 3.11 and later, and uv,
# unlike pip, does not look at such upper bounds. t2aux-ondevice is on no index.
lock: $(READY)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	printf '%s\n' "backports.strenum<1.3; python_version >= '3.11'" \
		"t2aux-ondevice @ ./$(ONDEVICE)" | $(BIN)/uv pip compile -q setup.cfg - \
		--extra beam --extra dev --extra docs --extra quantization --extra serving \
		--universal --python-version 3.10 \
		--no-emit-package t2aux-ondevice --no-header --no-annotate \
		--output-file constraints.txt --upgrade

# pip-audit asks a service on the network. With --strict, what it can't look up is an error. It ends
# with status 1 for that as for a vulnerability, but writes its file for vulnerabilities only. It is
# not installed in $(VENV), so that its dependencies are not audited.
audit:
	@rm -f $(VULNERABILITIES)
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install -q --disable-pip-version-check pip-audit || \
		{ echo "pip-audit can't be installed: nothing was checked." >&2; exit 1; }
	$(VENV)-audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt \
		--progress-spinner=off --output=$(VULNERABILITIES) || \
		{ if [ -s $(VULNERABILITIES) ]; then cat $(VULNERABILITIES); echo "There are known vulnerabilities (above)."; \
		else echo "pip-audit's service can't be reached (above): not everything was checked."; fi >&2; \
		exit 1; }

clean:
	rm -rf $(VENV) $(VENV)-audit site build dist *.egg-info .pytest_cache .ruff_cache .hypothesis \
		$(ONDEVICE)/build $(ONDEVICE)/*.egg-info
