# `make quickstart` runs a search of three to four minutes, `make test` runs the fast tests. Both create .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt

.PHONY: quickstart test lint docs gallery bench clean

quickstart: $(VENV)/.starter
	$(BIN)/nas-meta search configs/quickstart.yaml
	@echo "  (first: . $(BIN)/activate)"

test: $(VENV)/.test
	PYTHONDONTWRITEBYTECODE= HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(VENV)/.test  # builds the site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

gallery: $(VENV)/.test  # redraws the pictures of the documentation from a new quickstart
	$(BIN)/nas-meta search configs/quickstart.yaml --run-dir runs/gallery
	$(BIN)/python docs/tooling/gallery.py runs/gallery

bench: $(VENV)/.bench
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.run

# torch is installed first, on its own: as a dependency of another package, pip would fetch the CUDA build.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	@touch $@

$(VENV)/.starter: $(VENV)/.torch pyproject.toml
	$(PIP) --editable ".[starter]"
	@touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	$(PIP) --editable ".[starter,rl,prometheus,wandb,mlflow,datasets,excel,parquet,onnx,test,docs]"
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(PIP) --editable ".[starter,rl,prometheus,wandb,mlflow,datasets,excel,parquet,onnx,test,docs,bench]"
	@touch $@

clean:  # keeps runs/
	rm -rf $(VENV) build site *.egg-info
