# One target for each thing a person does here; `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
# A poisoned record makes polars panic; it is caught, and 70 lines of backtrace for each would tell nobody anything.
export RUST_BACKTRACE := 0
# Some images say it for all of Python; then each of the tests' hundreds of processes compiles every file anew.
unexport PYTHONDONTWRITEBYTECODE

# `exec` leaves no shell between make and the program, so a signal that make passes on reaches the program itself.
# On Ctrl-C the terminal signals both and make waits; on SIGTERM make signals its child and waits.

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

.PHONY: setup
setup: $(VENV)/kafka-jars ## Install everything that is pinned, and Kafka's jars (does nothing when nothing changed)
	@:

.PHONY: up
up: setup ## Start Kafka, worker, archive and a simulated fleet on this machine; Ctrl-C ends all of it
	@exec $(BIN)/fleetbeat up

.PHONY: unit
unit: setup ## Tests that need no broker, in seconds
	@exec $(BIN)/python -m pytest -n auto -m "not slow and not long" tests/unit tests/contract

.PHONY: test
test: setup ## All tests, with a real Kafka
	@exec $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: examples
examples: setup ## What README and examples/ show, against a running stack
	@exec $(BIN)/python -m pytest tests/architecture/test_papers.py tests/integration/test_readme.py tests/integration/test_registry.py \
	    tests/integration/test_java_producer.py

.PHONY: long
long: setup ## Hundreds of random worlds against the exactness rules: minutes
	@exec $(BIN)/python -m pytest -n auto -m long --timeout 1800

.PHONY: faults
faults: setup ## Every fault of the matrix against real processes, three seeds each, and a table: over an hour
	@exec $(BIN)/python -m tests.faults.run

.PHONY: packages
packages: setup ## The agent for hosts without Python: an archive and a .deb, into dist/
	@exec $(BIN)/python -m infra.packages.build

.PHONY: lint
lint: setup ## Formatting, ruff, mypy and the import contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: reference
reference: setup ## Write docs/reference anew from the definitions in the code
	@for kind in agent worker archive; do \
	    $(BIN)/fleetbeat check --reference $$kind > docs/reference/$$kind.md && \
	    $(BIN)/fleetbeat check --schema $$kind > docs/reference/$$kind.schema.json || exit 1; \
	done

# The tests contain the examples and the built wheel. They come last: their summary is what CI reads.
.PHONY: check
check: lint test ## What CI runs: lint, then all tests

.PHONY: format
format: setup ## Format, and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: lock
lock: $(BIN)/uv ## Pin all dependencies anew, with hashes and without the address of a registry
	UV_CUSTOM_COMPILE_COMMAND='make lock' $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
	    --generate-hashes --no-annotate --no-emit-index-url --all-extras --group dev \
	    --output-file requirements.lock pyproject.toml

.PHONY: clean
clean: ## Remove what setup, tools and runs made
	rm -rf $(VENV) .fleetbeat dist build examples/producers/java/target .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find agents schemas streams infra tests -name __pycache__ -type d -prune -exec rm -rf {} +

# uv asks the registry that pip is set to, when one is set.
UV = UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null || true)}" $(BIN)/uv
# A progress bar belongs on a terminal; a log needs only what goes wrong.
QUIET = $(shell test -t 2 || echo --quiet)

$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3.12 python3.13; do \
	    if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	        echo "setup: $(VENV) with $$($$python --version)"; \
	        exec $$python -m venv $(VENV); \
	    fi; \
	done; \
	echo "setup: no Python 3.11, 3.12 or 3.13 on PATH; expected one, or make PYTHON=/path/to/python" >&2; exit 1

# uv installs the lock quickly. It is pinned by the same lock: pip installs just its entry, by hash.
$(BIN)/uv: | $(BIN)/python
	@echo "setup: uv"
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock

$(VENV)/installed: requirements.lock pyproject.toml | $(BIN)/uv
	@echo "setup: $$(grep -c '^[a-z].*==' requirements.lock) pinned packages"
	@$(UV) pip sync $(QUIET) --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/kafka-jars: infra/kafka/pom.xml $(VENV)/installed
	@echo "setup: Kafka's jars"
	@$(BIN)/python -m infra.kafka.jars > /dev/null
	@touch $@
