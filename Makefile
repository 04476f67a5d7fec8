# make demo: the main job from nothing, on generated phantoms.  make test: everything that CI checks.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
MILVUS := .venv-milvus

.PHONY: demo test test-fast test-scale scale lint format clean
.DEFAULT_GOAL := help

help: ## what the targets do
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[cpu,service]'
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[cpu,service,clip,encoders,dicom,milvus,dev]'
	touch $@

$(VENV)/.scale: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[ray]'
	touch $@

# The server wants versions of its own, so it gets an environment of its own.
$(MILVUS)/.ready:
	$(PYTHON) -m venv $(MILVUS)
	$(MILVUS)/bin/python -m pip install --quiet --disable-pip-version-check \
		milvus==2.3.5 pymilvus==2.6.17 setuptools
	touch $@

demo: $(VENV)/.base ## install, build an index from phantoms, annotate, score
	$(BIN)/annotator sample $(DEMO)/sample
	$(BIN)/annotator build-index $(DEMO)/sample/images $(DEMO)/sample/concepts.csv \
		--split $(DEMO)/sample/split.csv --only train --groups $(DEMO)/sample/patients.csv \
		--names $(DEMO)/sample/concept_names.csv --captions $(DEMO)/sample/captions.csv \
		--index $(DEMO)/index
	$(BIN)/annotator annotate $(DEMO)/sample/images \
		--split $(DEMO)/sample/split.csv --only test --index $(DEMO)/index > $(DEMO)/run.csv
	$(BIN)/annotator evaluate $(DEMO)/run.csv $(DEMO)/sample/concepts.csv \
		--split $(DEMO)/sample/split.csv --only test --names $(DEMO)/sample/concept_names.csv
	@echo "The run lies in $(DEMO)/run.csv, the images in $(DEMO)/sample/images."
	@echo "To try it in a browser: $(BIN)/annotator serve --index $(DEMO)/index"

test: lint ## lint, type-check, all tests
	$(BIN)/python -m pytest

test-fast: $(VENV)/.dev ## the tests that take seconds
	$(BIN)/python -m pytest -m 'not slow'

scale: $(VENV)/.scale $(MILVUS)/.ready ## install Ray and a Milvus server, for their tests

test-scale: scale ## the tests with a real Milvus server and with Ray
	ANNOTATOR_REQUIRE_MILVUS=1 ANNOTATOR_REQUIRE_RAY=1 $(BIN)/python -m pytest \
		tests/index/milvus tests/encoders/test_ray_runner.py tests/encoders/test_runners.py tests/cli/test_ray.py

lint: $(VENV)/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## let ruff put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what the other targets made
	rm -rf $(VENV) $(MILVUS) $(DEMO) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
