# Everything installs into .venv; a target that finds it installed installs nothing.
#   make quickstart   the whole pipeline on a small real model, on this machine
#   make test         the tests
#   make faults       real faults against real processes; ARGS reduces it (docs/reliability.md)
#   make lint types   ruff and ty
# JOBS=N runs the tests in N processes (2, which 24 GiB of memory are enough for).
# TORCH_INDEX=URL takes torch from that package index (PyTorch's CPU index, on a machine without a GPU).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARGS ?=
JOBS ?= 2

.PHONY: quickstart test unit faults lint types install clean
.DEFAULT_GOAL := quickstart

quickstart: $(INSTALLED)
	$(BIN)/curiosft quickstart $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

unit: $(INSTALLED)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile tests/unit $(ARGS)

faults: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m faults $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/ty check

install: $(INSTALLED)

$(INSTALLED): pyproject.toml requirements/cpu.txt requirements/cpu-vllm.txt requirements/install.sh
	PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" bash requirements/install.sh "$(VENV)"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
