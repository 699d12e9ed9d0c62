# Two commands on a fresh machine: `make demo` (set-up, then the main job) and `make test` (set-up, then the tests).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs clean

demo: $(VENV)/.demo
	$(BIN)/python benchmarks/demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.dev .dev/vsearch
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.dev $(BIN)/mypy -p vsearch

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[demo]"
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[dev,demo]"
	touch $@

# Type checkers do not follow the package-dir mapping of pyproject.toml; a folder of links shows them the package.
.dev/vsearch: vsearch
	mkdir -p $@
	for f in vsearch/*.py vsearch/py.typed; do ln -sfn ../../$$f $@/; done
	for d in cli indexer library models retriever webui; do ln -sfn ../../$$d $@/$$d; done

clean:
	rm -rf $(VENV) .dev .demo build *.egg-info

# What docs/ says of the code itself.
docs: $(VENV)/.dev
	$(BIN)/python docs/build.py
