PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq

.PHONY: help install run test check lint format docs clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## make .venv with the locked packages and comigs itself

run: install ## run the quickstart federation
	@$(BIN)/comigs run

test check: export OMP_NUM_THREADS = 1
test check: export HF_HUB_OFFLINE = 1
test check: export FLWR_TELEMETRY_ENABLED = 0
test check: export RAY_USAGE_STATS_ENABLED = 0
test check: export PYTHONDONTWRITEBYTECODE =
test: lint ## lint, check types, run all tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: lint ## the same without the slow tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

lint: install ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p comigs -p comigs_clients -p comigs_server

format: install ## put imports and layout in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install ## build the docs site into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict -f .mkdocs.yml

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that still works is brought up to date, another one is made anew.
$(READY): requirements.lock pyproject.toml
	@$(BIN)/python -c 'import pip; $(RECENT)' 2>/dev/null || { \
	  $(PYTHON) -c '$(RECENT)' 2>/dev/null || { \
	    echo 'comigs needs Python 3.11 or newer, and "$(PYTHON)" is not; try: make install PYTHON=python3.11' >&2; \
	    exit 1; }; \
	  $(PYTHON) -m venv --clear $(VENV); }
	@echo 'Installing into $(VENV); this takes a few minutes the first time.'
	@$(PIP) install -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
