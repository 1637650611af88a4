# Everything works from a fresh clone: each target installs what it needs first.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet
OURS := --no-deps --no-build-isolation --editable client --editable .
COMPILE := $(BIN)/uv --quiet pip compile --universal --generate-hashes --no-annotate --custom-compile-command "make lock"
LOCK := $(COMPILE) pyproject.toml locks/build.in --constraints locks/pins.in --no-emit-package vitpress
MUTMUT := PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH="$(CURDIR)/build/mutants/client:$(CURDIR)/build/mutmut" OMP_NUM_THREADS=1 python -m mutmut
DISTRIBUTIONS := pyproject.toml client/pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help demo up test unit lint types format bench faults load coverage mutants docs openapi catalog lock audit clean

help:  ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

demo: $(VENV)/embedded  ## Compress the sample model through the whole service, and show the result
	$(BIN)/python -m samples.demo

up: $(VENV)/embedded  ## Run the whole service on this machine until Ctrl-C
	$(BIN)/vitpress up

test: $(VENV)/dev  ## Run all tests, against real PostgreSQL, Redis, RabbitMQ and S3 servers, in a real browser
	@tests/need.sh
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

unit: $(VENV)/dev  ## Run the tests of core that need no server and do not take long: a minute
	$(BIN)/python -m pytest --quiet --numprocesses=auto --dist=loadfile tests/core -m "not long"

lint: $(VENV)/dev  ## Check style, formatting and the layers' imports
	$(BIN)/ruff check --no-cache .  # the cache does not notice that a module has moved
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/dev  ## Check types
	$(BIN)/mypy api benchmarks client core migrations samples store worker tests/*.py
	@for suite in tests/*/; do $(BIN)/mypy "$$suite" || exit 1; done  # each has a conftest.py

format: $(VENV)/dev  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev  ## Measure every method and its rivals on three models; a run that was cut short goes on
	$(BIN)/python -m benchmarks.methods

faults: $(VENV)/dev  ## Break the service in every way for an hour, and write down what that cost
	@tests/need.sh
	$(BIN)/python -m pytest tests/faults --full

load: $(VENV)/dev  ## Measure what load the service bears, beside a bare handler and nginx; the machine should be idle
	@tests/need.sh
	$(BIN)/python -m benchmarks.load

coverage: $(VENV)/dev  ## Which lines of core and store their own tests reach, in one process
	$(BIN)/coverage run -m pytest --quiet tests/core tests/store tests/hostile tests/test_logs.py tests/test_traces.py
	$(BIN)/coverage report

mutants: $(VENV)/dev  ## Mutate core's numerics and list what no test noticed; ONLY='core.lowrank*' takes a part
	@mkdir -p build/mutants && cp -ru --preserve=timestamps benchmarks core client tests pyproject.toml build/mutants
	$(PIP) --upgrade --target build/mutmut --require-hashes --requirement locks/mutmut.txt
	cd build/mutants && $(MUTMUT) run --max-children 1 $(if $(ONLY),'$(ONLY)')
	cd build/mutants && $(MUTMUT) results

docs: $(VENV)/dev  ## Build the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml

openapi: $(VENV)/dev  ## Rewrite openapi.json from the code
	$(BIN)/python -m api.openapi

catalog: $(VENV)/dev  ## Rewrite core/catalog.json from timm's registry and the samples
	$(BIN)/python -m core.catalog_build

lock: $(VENV)/dev  ## Write locks/ anew from pyproject.toml; UPGRADE=--upgrade takes the newest releases
	$(LOCK) $(UPGRADE) --all-extras --output-file locks/dev.txt
	$(LOCK) --constraints locks/dev.txt --extra embedded --output-file locks/embedded.txt
	$(LOCK) --constraints locks/dev.txt --extra api --extra otel --output-file locks/api.txt
	$(LOCK) --constraints locks/dev.txt --extra worker --extra otel --output-file locks/worker.txt
	$(COMPILE) locks/mutmut.in --constraints locks/dev.txt --output-file locks/mutmut.txt

audit: $(VENV)/dev  ## Ask PyPI's advisories about every locked release
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement locks/dev.txt

screenshots: $(VENV)/dev  ## Photograph every page of the dashboard into docs/images
	@tests/need.sh
	$(BIN)/python -m samples.screenshots

clean:  ## Remove the virtual environment and what the service stored
	rm -rf $(VENV) .vitpress

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/embedded: $(DISTRIBUTIONS) locks/embedded.txt | $(VENV)/bin/python
	$(PIP) --require-hashes --requirement locks/embedded.txt
	$(PIP) $(OURS)
	@touch $@

$(VENV)/dev: $(DISTRIBUTIONS) locks/dev.txt | $(VENV)/bin/python
	$(PIP) --require-hashes --requirement locks/dev.txt
	$(PIP) $(OURS)
	@touch $@ $(VENV)/embedded
