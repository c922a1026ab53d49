# Everything a person does with a clone. Each target sets up what it needs first; see scripts/setup.sh.
#
#   make run [ARGS="--listen 127.0.0.1:3100"]   build and start the gateway
#   make test [PYTEST_ARGS="tests/wire -x"]     every test
#   make check                                  lint, format, types, layers
VENV ?= .venv
ARGS ?=
PYTEST_ARGS ?=
PART ?=
INPUTS ?= 1000000
PY = $(VENV)/bin/python
export VENV PYTHON
# Compiling every test anew takes each of the test processes 16 s.
unexport PYTHONDONTWRITEBYTECODE
# Pyright runs on the Node.js that is here, and asks nobody whether there is a newer one.
export PYRIGHT_PYTHON_GLOBAL_NODE = 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
SOURCES = src tests scripts bench

.DEFAULT_GOAL := help
.PHONY: help run setup dev test test-long web-test check format bench screenshots fuzz lock wheel clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Build and start the gateway in the foreground (ARGS="…" go to `underpass serve`)
	@sh scripts/setup.sh runtime console
	@exec $(VENV)/bin/underpass serve $(ARGS)

setup: ## Only the set-up that `run` needs
	@sh scripts/setup.sh runtime console

dev: ## Only the set-up that `test` and `check` need
	@sh scripts/setup.sh dev console

# UNDERPASS_E2E=forked: see tests/e2e/forked.py; with any other value each program starts anew.
test: dev web-test ## Every test (PYTEST_ARGS="…" go to pytest)
	@UNDERPASS_E2E=$${UNDERPASS_E2E-forked} $(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder \
		$(PYTEST_ARGS)

test-long: dev ## The stress tests that `make test` leaves out
	@$(PY) -m pytest -m long -n auto $(PYTEST_ARGS)

web-test: dev
	@cd web && npm run --silent test

check: ## Lint, formatting, types, layers; Python and console
	@sh scripts/setup.sh dev node
	@$(VENV)/bin/ruff check $(SOURCES)
	@$(VENV)/bin/ruff format --check $(SOURCES)
	@$(VENV)/bin/pyright
	@$(VENV)/bin/lint-imports
	@cd web && npm run --silent check

format: ## Put every file into the project's format
	@sh scripts/setup.sh dev node
	@$(VENV)/bin/ruff check --fix --quiet $(SOURCES)
	@$(VENV)/bin/ruff format $(SOURCES)
	@cd web && npm run --silent format

bench: ## Benchmarks (PART=links, tunnels or paths; default: all)
	@sh scripts/setup.sh dev
	@$(PY) -m bench $(PART) $(ARGS)

screenshots: dev ## Pictures of every console page, into screenshots/ (ARGS=--docs: and those of the documentation)
	@$(PY) -m tests.e2e.screenshots $(ARGS)

fuzz: ## Seeded mutation fuzzing of every codec (INPUTS=1000000 each)
	@sh scripts/setup.sh dev
	@$(PY) -m tests.fuzz.run --inputs $(INPUTS) $(ARGS)

lock: ## Write requirements/*.lock anew after a change of pyproject.toml (UPGRADE=1: newest versions)
	@sh scripts/setup.sh dev
	@sh scripts/lock.sh

wheel: dev ## A wheel with the console in it, in dist/
	@$(VENV)/bin/uv build --quiet --wheel --no-build-isolation --python $(PY)
	@ls dist/*.whl

clean: ## Remove what the targets above made
	rm -rf $(VENV) web/node_modules src/underpass/gateway/console dist htmlcov .coverage .coverage.*
