# The front door. Each target does its own set-up; nothing but Python 3.11+, python3-venv and make is needed.

PYTHON ?= python3
TESTS_AT_ONCE ?= 4
BIN := .venv/bin

# Tests start hundreds of Python processes: where this is set, each would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-long bench bench-intake bench-read bench-feed check format lock screenshot clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: .venv/.ready  ## create .venv and nothing else

# Created again only when the lock or a project file is newer. Every version and its hash comes from requirements.lock.
.venv/.ready: requirements.lock pyproject.toml sdk/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "SHM needs Python 3.11 or newer; $(PYTHON) is older. Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/pip || { echo "Creating .venv"; $(PYTHON) -m venv --clear .venv; } \
	  || { echo "Python's venv module is needed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing the locked dependencies into .venv (about a minute the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --require-hashes --progress-bar on -r requirements.lock
	@echo "Installing shm-server and shm-sdk from this checkout"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e . -e sdk
	@touch $@

demo: .venv/.ready  ## a simulated fleet, a server and the console, in one terminal
	@$(BIN)/shm demo --data-dir .demo

serve: .venv/.ready  ## the server alone, for real use
	@$(BIN)/shm serve

test: .venv/.ready  ## every test but the long ones, on real PostgreSQL and processes; T=tests/... for some
	@$(BIN)/python -m pytest $(or $(T),--numprocesses $(TESTS_AT_ONCE) --dist worksteal)

test-long: .venv/.ready  ## the tests that take minutes: many rounds of kills, outages of realistic length
	@$(BIN)/python -m pytest -m long --timeout 1800

bench: bench-intake bench-read bench-feed  ## every bench; each prints its figures beside a baseline of this machine

bench-intake: .venv/.ready  ## durable snapshots a second, in about five minutes; needs wrk
	@$(BIN)/python -m bench.intake

bench-read: .venv/.ready  ## latency of reads at 10,000 and 1,000,000 instances, in about ten minutes, with 15 GB
	@$(BIN)/python -m bench.read

bench-feed: .venv/.ready  ## from 202 to 1,000 subscribers at 1,000 snapshots a second, in about six minutes
	@$(BIN)/python -m bench.feed

check: .venv/.ready  ## format, lint, spelling, types, imports and the lock, in under a minute
	@$(BIN)/ruff format --check . || { echo "to correct it: make format"; exit 1; }
	@$(BIN)/ruff check . || { echo "to correct what can be corrected automatically: make format"; exit 1; }
	@$(BIN)/codespell . .ci || { echo "correct it, or add the word to [tool.codespell] in pyproject.toml"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo || { echo "the contracts are in pyproject.toml, [tool.importlinter]"; exit 1; }
	@$(BIN)/python .ci/lock.py --check

format: .venv/.ready  ## format the code and apply the linter's corrections
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: .venv/.ready  ## resolve the dependencies again into requirements.lock
	@$(BIN)/python .ci/lock.py

screenshot: .venv/.ready  ## docs/console.svg, taken from the demo fleet
	@$(BIN)/shm demo --data-dir .demo --screenshot docs/console.svg

clean:  ## remove what was built here (.demo, with the demo's data, stays)
	rm -rf .venv dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
