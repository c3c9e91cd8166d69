# `make` lists the targets. Everything they need is installed into .venv, everything they make at
# run time goes to .airlock; nothing is written to the home folder.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The certificates of the machine, as pip uses them, and no cache in the home folder.
UV := UV_SYSTEM_CERTS=1 UV_NO_CONFIG=1 $(BIN)/uv --no-cache --quiet
PIP := $(BIN)/python -m pip --quiet --no-cache-dir --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' Makefile | expand -t 10

.PHONY: demo
demo: $(STAMP) ## Play a good deploy, a bad release and a bad migration; KEEP=1 leaves it all up
	$(BIN)/python -m examples.ma_tracker.demo $(if $(KEEP),--keep) $(ARGS)

# Snapshots and servers wait for the disk more than for anything else. A file system in memory, where
# one is roomy enough and programs may run there, takes that wait away and proves the same.
MEMORY := $(shell d=/dev/shm; grep -qs " $$d [^ ]* [^ ]*noexec" /proc/mounts || [ ! -w $$d ] || \
	[ "$$(df -k -P $$d | awk 'END {print $$4}')" -lt 6000000 ] || echo $$d)

# Dozens of programs are started: each would compile airlock and flows anew where bytecode is not kept.
.PHONY: test
test: $(STAMP) ## Run the whole suite; ARGS goes to pytest
	PYTHONDONTWRITEBYTECODE= $(if $(MEMORY),TMPDIR=$(MEMORY) )$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# Who installs the wheel has no lock.
.PHONY: unlocked
unlocked: $(STAMP) ## Install what pyproject.toml admits today, and see that schedules start runs on it
	$(PYTHON) -m venv --clear $(VENV)/unlocked
	$(UV) pip install --python $(VENV)/unlocked/bin/python --editable . --group dev
	PYTHONDONTWRITEBYTECODE= $(if $(MEMORY),TMPDIR=$(MEMORY) )$(VENV)/unlocked/bin/python -m pytest -q \
		tests/pipeline/test_serve.py -k test_schedules_start $(ARGS)

.PHONY: faults
faults: $(STAMP) ## Break deploys in hundreds of ways, see that each recovers, write docs/faults.md
	$(if $(ARGS),,$(if $(MEMORY),TMPDIR=$(MEMORY) )$(BIN)/python -m pytest -q tests/faults/on_a_worker.py)
	$(if $(MEMORY),TMPDIR=$(MEMORY) )$(BIN)/python -m tests.faults $(ARGS)

.PHONY: attacks
attacks: $(STAMP) ## Try to get in, see that nothing does, write docs/attacks.md
	PYTHONDONTWRITEBYTECODE= $(if $(MEMORY),TMPDIR=$(MEMORY) )$(BIN)/python -m tests.attacks $(ARGS)

.PHONY: effects
effects: $(STAMP) ## Run each form of statement on each PostgreSQL found, write docs/effects.md
	$(if $(MEMORY),TMPDIR=$(MEMORY) )$(BIN)/python -m tests.effects

.PHONY: check
check: $(STAMP) ## Lint, formatting, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

.PHONY: bench
bench: $(STAMP) ## Measure against the peers
	$(BIN)/python -m bench $(ARGS)

.PHONY: rules
rules: $(STAMP) ## Write docs/lint.md from lint's rules and their cases
	$(BIN)/python -m tests.unit.lint.page

.PHONY: serve
serve: $(STAMP) ## Prefect's UI, worker and deployments until Ctrl-C
	$(BIN)/python -m flows.serve

COMPILE := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-header --no-emit-index-url --no-emit-find-links

# requirements-run.lock has the same versions without the development packages: the image's.
.PHONY: lock
lock: $(STAMP) ## Pin the newest versions that pyproject.toml admits
	$(COMPILE) --upgrade --group dev pyproject.toml --output-file requirements.lock
	$(COMPILE) --constraint requirements.lock pyproject.toml --output-file requirements-run.lock
	echo prefect-redis==0.3.0 | $(COMPILE) --no-deps - --output-file docs/install/redis.lock

.PHONY: clean
clean: ## Remove .venv and the caches; .airlock, which holds snapshots, stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.airlock/*' -prune -exec rm -rf {} +

# pip alone takes 38 s for this list and uv 8 s, so pip installs uv and uv the rest. uv does not
# read pip's configuration: where that names a mirror that uv cannot do without, pip takes over.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Airlock needs Python 3.11 or newer and found $$($(PYTHON) --version 2>&1)." \
			"Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.lock
	@$(PIP) install --no-deps --require-hashes -r $(VENV)/uv.lock
	@$(UV) pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock \
		|| $(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $(STAMP)
