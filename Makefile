# `make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu` installs the CPU-only build of torch
# (the default Linux wheel is a CUDA build of several GB).
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000
BUNDLE ?= models/demo

.PHONY: setup demo test lint serve bench fuzz soak lock audit clean
setup: $(VENV)/.installed

# An old pip tries versions of boto3 and aiobotocore against each other for minutes.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet --index-url $(TORCH_INDEX) 'torch>=2.9' 'torchvision>=0.24')
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/triggerwall demo

test: setup
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: setup
	$(BIN)/triggerwall serve --bundle $(BUNDLE) --host $(HOST) --port $(PORT)

bench: setup
	$(BIN)/triggerwall bench

# Mutated images through a real gateway, then made-up requests to every path (docs/reliability.md).
FUZZ_IMAGES ?= 10000
SOAK_SECONDS ?= 600
KILLS ?= 100
FUZZ_EXAMPLES ?= 300
# Ten minutes at 120 % of its capacity, then 100 kills: half an hour in all.
soak: setup
	$(BIN)/python -m tests.proof.soak --seconds $(SOAK_SECONDS)
	$(BIN)/python -m tests.proof.crash --kills $(KILLS)

fuzz: setup
	$(BIN)/python -m tests.proof.fuzz --images $(FUZZ_IMAGES)
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/pytest --numprocesses=0 --timeout=3600 tests/proof/test_document.py

TOOLS := .venv-tools

$(TOOLS)/.installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet uv pip-audit
	touch $@

lock: setup $(TOOLS)/.installed
	deploy/lock.sh $(BIN) $(TOOLS)/bin/uv

# Asks the Python Packaging Advisory Database on the network, and fails where it knows a vulnerability of what is pinned.
audit: $(TOOLS)/.installed
	$(TOOLS)/bin/pip-audit --strict --disable-pip --no-deps --requirement requirements.lock --requirement requirements-torch.lock

clean:
	rm -rf $(VENV) $(TOOLS) .mypy_cache .ruff_cache .pytest_cache
