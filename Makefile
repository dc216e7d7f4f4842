# Two commands: `make quickstart` runs a search, `make test` runs the whole test suite.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: quickstart test lint docs bench clean

quickstart: $(VENV)/.starter
	$(BIN)/nas-meta search configs/quickstart.yaml
	@echo "  (first: . $(BIN)/activate)"

test: $(VENV)/.test
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(VENV)/.docs  # into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.bench
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.run

# torch first and alone: anything else that asks for it would fetch the build with CUDA
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	@touch $@

$(VENV)/.starter: $(VENV)/.torch pyproject.toml
	$(PIP) --editable ".[starter]"
	@touch $@

$(VENV)/.test: $(VENV)/.starter
	$(PIP) --editable ".[starter,rl,prometheus,wandb,datasets,test]"
	@touch $@

$(VENV)/.docs: $(VENV)/.test
	$(PIP) --editable ".[starter,rl,prometheus,wandb,test,docs]"
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(PIP) --editable ".[starter,rl,prometheus,wandb,datasets,test,bench]"
	@touch $@

clean:  # leaves runs alone
	rm -rf $(VENV) build site *.egg-info
