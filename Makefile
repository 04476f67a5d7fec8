# make demo: the main job from nothing, on generated phantoms.  make test: everything that CI checks.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test test-fast lint format clean
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
		--constraint constraints.txt --editable '.[cpu,service,clip,encoders,dicom,dev]'
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

lint: $(VENV)/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## let ruff put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what the other targets made
	rm -rf $(VENV) $(DEMO) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
