# Every target sets itself up: a fresh clone needs no step before `make demo` or `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# PyTorch's own index has the build without CUDA (200 MB instead of several GB). Where it
# cannot be reached, or for a GPU build (make install TORCH_INDEX=), pip's usual index serves.
TORCH := torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# pytest's own workers; a test that trains takes one core.
JOBS ?= auto

.PHONY: install demo test integration check format bench soak clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints/cpu.txt
	@echo "Installing koser into $(VENV): a few minutes the first time."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "koser needs Python 3.11 or newer; use: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import torch' 2>/dev/null \
	  || { test -n "$(TORCH_INDEX)" && $(BIN)/pip install -q --no-deps --retries 0 --timeout 15 --index-url $(TORCH_INDEX) $(TORCH) 2>/dev/null; } \
	  || $(BIN)/pip install -q --no-deps $(TORCH)
	@$(BIN)/pip install -q -c constraints/cpu.txt -e '.[all,dev]'
	@touch $@

demo: install
	@$(BIN)/koser demo

# Tests start hundreds of commands: without bytecode each of them would compile koser anew.
test integration: export PYTHONDONTWRITEBYTECODE :=

test: install
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

# Real corpora, in ../shared/corpora, real models, in $KOSER_TEST_MODELS (.ci/run builds them),
# and Chromium at /usr/bin/chromium; a missing one is a failure.
integration: install
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m 'integration or browser'

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: SHELL := /bin/bash -o pipefail
bench: install
	@for script in $(filter-out benchmarks/54_%,$(sort $(wildcard benchmarks/[0-9]*.py))); do echo "== $$script"; \
	  $(BIN)/python $$script | tee benchmarks/output/$$(basename $$script .py).txt || exit 1; echo; done

# The whole fault harness, a quarter of an hour (`make integration` has it in reduced form), and
# the tests on a Ray cluster of several processes.
soak: SHELL := /bin/bash -o pipefail
soak: install
	$(BIN)/python benchmarks/54_faults.py | tee benchmarks/output/54_faults.txt
	$(BIN)/python -m pytest -v --no-header -p no:cacheprovider -m integration tests/test_real_cluster.py \
	  | tee benchmarks/output/54_cluster.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
