# Everything one does with jobber from a checkout. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Both names: pip reads the second one for build requirements from 25.3 on.
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	$(RUN) -m pip install --quiet --editable

# What is installed is noted in these; they are older than pyproject.toml or constraints.txt when those have changed.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
REQUIREMENTS := pyproject.toml constraints.txt

DEMO_ARGS ?=
PYTEST_ARGS ?=
CHAOS_ARGS ?=
BENCH_ARGS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo run test lint type format bench chaos docs lock clean servers

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## See jobber at work in a few seconds; needs no server (DEMO_ARGS="--rows 1000000")
	@$(RUN) -m jobber demo $(DEMO_ARGS)

run: $(INSTALLED) ## Serve the demo's database on http://127.0.0.1:6060 until Ctrl-C
	@$(RUN) -m jobber demo --serve $(DEMO_ARGS)

test: servers $(INSTALLED_DEV) lint type docs ## Lint, types, links, and all tests (PYTEST_ARGS="tests/api -x")
	$(RUN) -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(INSTALLED_DEV) ## Check style and formatting
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

type: $(INSTALLED_DEV) ## Check the types
	$(RUN) -m mypy

format: $(INSTALLED_DEV) ## Format the code and fix what can be fixed mechanically
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

bench: servers $(INSTALLED_DEV) ## Measure jobber beside baselines (BENCH_ARGS="--short": a few minutes instead of forty)
	@$(RUN) -m benchmarks $(BENCH_ARGS)

chaos: servers $(INSTALLED_DEV) ## Kill, stop and restart everything while jobs run, then check (CHAOS_ARGS="--seed 7")
	@$(RUN) -m tests.chaos $(CHAOS_ARGS)

docs: ## Check that every link between the Markdown files leads somewhere
	@$(PYTHON) scripts/check_links.py

lock: ## Pin the newest versions that pyproject.toml allows in constraints.txt
	@PYTHON="$(PYTHON)" scripts/lock

clean: ## Remove everything that can be made again, the virtual environment included
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info jobber-data/demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

servers: ## Install the servers that the tests need, where that is possible; "make test" does it
	@PYTHON="$(PYTHON)" scripts/test-servers

# -- what the targets above need --------------------------------------------------------------------------------------

$(VENV)/bin/pip:
	@scripts/make-venv "$(PYTHON)" $(VENV)

$(INSTALLED): $(REQUIREMENTS) | $(VENV)/bin/pip
	@echo "Installing jobber into $(VENV) …"
	@$(PIP) .
	@touch $@

$(INSTALLED_DEV): $(REQUIREMENTS) | $(VENV)/bin/pip
	@echo "Installing jobber and the tools for its tests into $(VENV) …"
	@$(PIP) ".[dev]"
	@touch $(INSTALLED) $@
