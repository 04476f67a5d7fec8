# make demo: the main job from nothing, on generated phantoms.  make test: everything that CI checks.
PYTHON ?= python3
VENV ?= .venv
BIN ?= $(VENV)/bin
DEMO ?= demo
JOBS ?= auto
MILVUS := .venv-milvus
LABEL_STUDIO := .venv-label-studio
FIFTYONE := .venv-fiftyone
ORTHANC := /usr/share/orthanc/plugins/libOrthancDicomWeb.so
AS_ROOT := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo)
PIP_INSTALL := install --quiet --disable-pip-version-check --constraint $(CURDIR)/constraints.txt

.PHONY: demo demo-steps test test-fast scale test-scale integrations test-integrations lint format docs dist check-dist image check-image clean
.DEFAULT_GOAL := help

help: ## what the targets do
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip $(PIP_INSTALL) --editable '.[cpu,service]'
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip $(PIP_INSTALL) --editable '.[cpu,service,oidc,otel,clip,encoders,dicom,dicomweb,nifti,excel,umls,transformers,onnx,xrv,sklearn,milvus,captions,ranking,docs,dev]'
	touch $@

$(VENV)/.scale: $(VENV)/.dev
	$(BIN)/python -m pip $(PIP_INSTALL) --editable '.[ray]'
	touch $@

# The server wants versions of its own, so it gets an environment of its own.
$(MILVUS)/.ready:
	$(PYTHON) -m venv $(MILVUS)
	$(MILVUS)/bin/python -m pip install --quiet --disable-pip-version-check \
		milvus==2.3.5 pymilvus==2.6.17 setuptools
	touch $@

demo: $(VENV)/.base ## install, build an index from phantoms, annotate, score
	@$(MAKE) --no-print-directory demo-steps
	@echo "The run lies in $(DEMO)/run.csv, the images in $(DEMO)/sample/images."
	@echo "To see it in a browser: $(BIN)/annotator demo $(DEMO)"

demo-steps:
	$(BIN)/annotator sample $(DEMO)/sample
	$(BIN)/annotator build-index $(DEMO)/sample/images $(DEMO)/sample/concepts.csv \
		--split $(DEMO)/sample/split.csv --only train --groups $(DEMO)/sample/patients.csv \
		--names $(DEMO)/sample/concept_names.csv --captions $(DEMO)/sample/captions.csv \
		--index $(DEMO)/index --thumbnails
	$(BIN)/annotator annotate $(DEMO)/sample/images \
		--split $(DEMO)/sample/split.csv --only test --index $(DEMO)/index > $(DEMO)/run.csv
	$(BIN)/annotator evaluate $(DEMO)/run.csv $(DEMO)/sample/concepts.csv \
		--split $(DEMO)/sample/split.csv --only test --names $(DEMO)/sample/concept_names.csv

test: lint ## lint, type-check, import rules, all tests
	$(BIN)/python -m pytest --numprocesses $(JOBS)

test-fast: $(VENV)/.dev ## the tests that take seconds
	$(BIN)/python -m pytest --numprocesses $(JOBS) -m 'not slow'

scale: $(VENV)/.scale $(MILVUS)/.ready ## install Ray and a Milvus server, for their tests

test-scale: scale ## the tests with a real Milvus server and with Ray
	ANNOTATOR_REQUIRE_MILVUS=1 ANNOTATOR_REQUIRE_RAY=1 $(BIN)/python -m pytest -k 'milvus or ray'

# As Milvus: environments of their own. Their locks name all that they need.
$(LABEL_STUDIO)/.ready $(FIFTYONE)/.ready: .venv-%/.ready: tests/integrations/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	touch $@

integrations: $(VENV)/.dev $(LABEL_STUDIO)/.ready $(FIFTYONE)/.ready ## install Label Studio, FiftyOne, and Orthanc by apt-get, for their tests
	{ [ -e $(ORTHANC) ] && command -v dciodvfy > /dev/null; } || $(AS_ROOT) apt-get install \
		--yes --quiet --no-install-recommends orthanc orthanc-dicomweb dicom3tools

test-integrations: integrations ## the tests with a real Label Studio, FiftyOne and DICOM archive
	ANNOTATOR_REQUIRE_LABEL_STUDIO=1 ANNOTATOR_REQUIRE_FIFTYONE=1 ANNOTATOR_REQUIRE_ORTHANC=1 $(BIN)/python -m pytest tests/integrations

lint: $(VENV)/.dev ## ruff, mypy, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: $(VENV)/.dev ## let ruff put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## the documentation's site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: $(VENV)/.dev ## build the wheel and the sdist, and check their metadata
	rm -rf dist build
	$(BIN)/python -m build --outdir dist . > /dev/null
	$(BIN)/twine check --strict dist/*

check-dist: dist ## install the wheel outside the checkout, and run the demo from it
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(PYTHON) -m venv "$$folder/venv" && \
	"$$folder/venv/bin/python" -m pip $(PIP_INSTALL) "$$(ls $(CURDIR)/dist/*.whl)[cpu]" && \
	cd "$$folder" && venv/bin/annotator --version && \
	$(MAKE) --no-print-directory -f $(CURDIR)/Makefile demo-steps BIN=venv/bin

image: ## the service's container image, by docker
	docker build -f service/deploy/Dockerfile -t annotator .

check-image: $(VENV)/.dev ## the steps of the image and the service in it, without docker; as root
	ANNOTATOR_REQUIRE_IMAGE=1 $(BIN)/python -m pytest tests/deploy/test_image.py

clean: ## remove what the other targets made
	rm -rf $(VENV) $(MILVUS) $(LABEL_STUDIO) $(FIFTYONE) $(DEMO) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
