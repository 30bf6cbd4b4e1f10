# make up       start a cluster in ./cluster-data, in the foreground
# make mount    mount that cluster on ./mnt
# make test     all checks and all tests but the long ones
# make simulate SEED=7 RUNS=1000   the masters under faults, on a virtual clock; a fresh seed without SEED
# make test-long, make check, make bench, make docs, make lock, make clean

PYTHON ?= python3
BIN := .venv/bin
SOURCES := protocol master standby chunkserver client cluster tests bench loadtests
export PYTHON

.PHONY: up mount test test-long simulate check format bench docs lock clean

up: .venv/runtime.stamp
	@$(BIN)/gfs up --dir cluster-data

mount: .venv/mount.stamp
	@mkdir -p mnt
	@$(BIN)/gfsclient mount mnt
	@echo "The cluster's files are in ./mnt; '$(BIN)/gfsclient umount mnt' unmounts them."

test: check
	@sh scripts/install-for-tests
	$(BIN)/pytest -m "not long"

test-long: .venv/develop.stamp
	@sh scripts/install-for-tests
	$(BIN)/pytest -m long

RUNS ?= 100

simulate: .venv/develop.stamp
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED)) --runs $(RUNS)

check: .venv/develop.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/develop.stamp
	$(BIN)/ruff format $(SOURCES)

bench: .venv/develop.stamp
	$(BIN)/python -m bench

# The parts of docs/ that are made from the code: settings, errors, command lines. A test fails when they are old.
docs: .venv/develop.stamp
	$(BIN)/python -m tests.house.documentation

# LOCK_FLAGS=--upgrade takes the newest versions; else what is locked stays if it still fits pyproject.toml.
COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options $(LOCK_FLAGS)

lock: .venv/develop.stamp
	$(BIN)/python -m pip install --quiet pip-tools
	$(COMPILE) --extra build -o requirements.lock pyproject.toml
	$(COMPILE) --extra build --extra mount -c requirements.lock -o requirements-mount.lock pyproject.toml
	$(COMPILE) --extra build --extra test --extra check --extra mount -c requirements-mount.lock \
		-o requirements-dev.lock pyproject.toml

.venv/runtime.stamp: requirements.lock pyproject.toml scripts/install
	@sh scripts/install requirements.lock
	@touch $@

.venv/mount.stamp: requirements-mount.lock pyproject.toml scripts/install
	@sh scripts/install requirements-mount.lock
	@touch $@

.venv/develop.stamp: requirements-dev.lock pyproject.toml scripts/install
	@sh scripts/install requirements-dev.lock
	@touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
