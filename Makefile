# Two things must be here: make, and Python 3.11 or later with venv.
PYTHON ?= python3
BIN := .venv/bin

help: ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /	/' | expand -t 12

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; name it: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.env: .env.example
	@test -e .env || { umask 077 && cp .env.example .env && \
	  $(PYTHON) -c 'import secrets; print("SECRET_KEY=" + secrets.token_hex(32))' >> .env && \
	  $(PYTHON) -c 'import secrets; print("ADMIN_TOKEN=" + secrets.token_hex(32))' >> .env && \
	  echo "wrote .env from .env.example; sign in at /admin with its ADMIN_TOKEN"; }
	@touch .env

run: .venv/ready .env ## start the service, with a Redis of its own when REDIS_URL is unset
	@$(BIN)/python -m app --env-file .env serve --embedded-redis data

test: .venv/ready ## run every test, against a real Redis server, the pages in a browser
	@$(BIN)/python -m tests.browser
	$(BIN)/python -m pytest -n 3 --dist loadfile -rfEs

demo: .venv/ready ## place one simulated call and listen to it: writes demo.wav
	@$(BIN)/python -m app demo

BUSINESS ?= business-1

call: .venv/ready .env ## call the service of make run, for half a minute: BUSINESS=business-1
	@$(BIN)/python -m app --env-file .env simulate --business $(BUSINESS)

bench: .venv/ready ## measure the service beside its peers: about ten minutes
	@$(BIN)/python -m benchmarks

MINUTES ?= 10

soak: .venv/ready ## measure what grows: memory, files and tasks, for MINUTES=10
	@$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

chaos: .venv/ready ## hurt Redis, the network and the service under live calls: half an hour
	@$(BIN)/python -m tests.chaos

lint: .venv/ready ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready ## check types
	$(BIN)/mypy

style: .venv/ready ## correct style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types test ## all of what CI checks

.venv/release: .venv/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	@touch $@

lock: .venv/release ## write requirements.txt, with hashes, from pyproject.toml and constraints.txt
	@mkdir -p build
	@$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --upgrade \
	  --constraint constraints.txt --generate-hashes --no-annotate --no-header -o build/lock.txt
	@{ sed '/^#/!d' requirements.txt && cat build/lock.txt; } > build/requirements.txt
	@mv build/requirements.txt requirements.txt && rm build/lock.txt

REGISTRY ?=

pin-image: ## write the digest of the base image into the Dockerfile: REGISTRY=https://...
	@$(PYTHON) scripts/pin_image.py --registry "$(REGISTRY)"

sbom: .venv/release ## write sbom.json (CycloneDX): what requirements.txt installs
	@rm -rf build/sbom && $(PYTHON) -m venv --without-pip build/sbom
	@$(BIN)/python -m pip --python build/sbom/bin/python install --quiet --disable-pip-version-check \
	  --only-binary :all: --require-hashes --requirement requirements.txt
	@$(BIN)/cyclonedx-py environment build/sbom/bin/python --pyproject pyproject.toml \
	  --mc-type application --spec-version 1.6 --output-format JSON --output-reproducible \
	  --validate --output-file sbom.json
	@rm -rf build/sbom && echo "wrote sbom.json"

clean: ## remove what was built; data/ and .env stay
	rm -rf .venv build sbom.json *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help run test demo call bench soak chaos lint types style check lock pin-image sbom clean
