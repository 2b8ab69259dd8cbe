# `make serve` and `make test` do all the set-up that they need, in .venv, and are fast the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Of the tests: more than cores, since a test that waits for its server computes nothing.
WORKERS := $(shell $(PYTHON) -c "import os; print(min(4, 2 * (os.cpu_count() or 1)))")

.PHONY: serve test lint types imports pytest test-slow chaos repeat bench dashboard documents locks painting \
	screenshots versions format clean

serve: $(VENV)/.serve
	@exec $(BIN)/oar serve

test: lint types imports pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/basedpyright

imports: $(VENV)/.test
	$(BIN)/lint-imports

pytest: $(VENV)/.test
	PYTHONUTF8=1 $(BIN)/python -m pytest -m "not slow and not chaos" --numprocesses $(WORKERS) --dist loadfile

test-slow: $(VENV)/.test
	PYTHONUTF8=1 $(BIN)/python -m pytest -m "slow or data"

# Ends in one JSON line with the figures. OAR_CHAOS_SCALE=1 is the full run; the default, 0.1, takes some minutes.
chaos: $(VENV)/.test
	@PYTHONUTF8=1 $(BIN)/python -m pytest -m chaos tests/chaos tests/client

# The property tests with 20 other seeds, and each test that touches a running job 100 times; hours on a small machine.
repeat: $(VENV)/.test
	PYTHONUTF8=1 $(BIN)/python -m ops.repeat seeds
	PYTHONUTF8=1 $(BIN)/python -m ops.repeat running

bench: $(VENV)/.serve
	$(BIN)/oar bench batching

dashboard: $(VENV)/.test
	$(BIN)/python -m ops.dashboard

# docs/openapi.json, docs/asyncapi.json and the generated tables of docs/*.md.
documents: $(VENV)/.serve
	$(BIN)/python -m ops.documents

# docker/locks/*.txt: versions of constraints.txt with hashes from the package index, for the images.
locks: $(VENV)/.serve
	$(INSTALL) uv==0.13.9
	$(BIN)/python -m ops.locks

# The picture at the top of README.md; about a minute.
painting: $(VENV)/.serve
	$(BIN)/oar eval animation --order raster --order random --order halton --order distilled --out docs/painting.webp \
		--prompt "a person with short red hair, brown shirt and blue trousers, walking, seen from the front"
	$(BIN)/oar eval animation --model fashion --seed 9 --out docs/fashion.webp --prompt "women's red tshirts" \
		--prompt "men's black casual shoes" --prompt "women's blue handbags" --prompt "men's white shirts" --prompt "men's blue jeans"

# The studio's pictures in docs/; needs Chromium.
screenshots: $(VENV)/.test
	$(BIN)/python -m ops.screenshots

# This version against an earlier one: make versions OLD=COMMIT. Half an hour; `python -m ops.versions --help` has its parts.
versions: $(VENV)/.serve
	$(BIN)/python -m ops.versions $(OLD)

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .oar

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[worker]'
	@touch $@

$(VENV)/.test: $(VENV)/.serve
	$(INSTALL) --editable '.[worker,test,plot,ops,otel]'
	@touch $@
