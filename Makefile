# The entry point for developers. Each target sets up what it needs; only Python 3.11+, python3-venv and make are needed.

PYTHON ?= python3
TESTS_AT_ONCE ?= 5
BIN := .venv/bin

# Tests start hundreds of Python processes. With this variable, each of them would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-long bench bench-intake bench-read bench-feed bench-console bench-ssh bench-stall bench-check bench-sdk check format lock pictures recording screenshot dashboard image-test systemd-test clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: .venv/.ready  ## create .venv with all that development needs

# The server, console and SDK of this checkout, with their own dependencies: enough for `make demo` and `make serve`.
# Installed again only when a lock or a project file is newer. Every version and its hash comes from the locks.
.venv/.installed: requirements-server.lock requirements-build.lock pyproject.toml sdk/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "SHM needs Python 3.11 or newer; $(PYTHON) is older. Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/pip || { echo "Creating .venv"; $(PYTHON) -m venv --clear .venv; } \
	  || { echo "Python's venv module is needed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing the locked dependencies into .venv (up to a minute the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --require-hashes --progress-bar on \
	  -r requirements-server.lock -r requirements-build.lock
	@echo "Installing shm-server and shm-sdk from this checkout"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e . -e sdk
	@touch $@

# Development needs the tools and frameworks of the tests too.
.venv/.ready: .venv/.installed requirements.lock
	@echo "Installing the locked development tools into .venv (some minutes the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --require-hashes --progress-bar on -r requirements.lock
	@touch $@

demo: .venv/.installed  ## run a simulated fleet, a server and the console in one terminal
	@$(BIN)/shm demo --data-dir .demo

serve: .venv/.installed  ## run the server
	@$(BIN)/shm serve

test: .venv/.ready  ## run all tests except the long ones, on real PostgreSQL and processes; T=tests/... for a part
	@$(BIN)/python -m pytest $(or $(T),--numprocesses $(TESTS_AT_ONCE) --dist worksteal)

test-long: .venv/.ready  ## run the tests that take minutes: repeated kills, outages of realistic length
	@$(BIN)/python -m pytest -m long --timeout 1800

bench: bench-intake bench-read bench-feed bench-console bench-ssh bench-stall bench-check bench-sdk  ## run all benchmarks; each prints its results and a baseline of this machine

bench-intake: .venv/.ready  ## measure durable snapshots a second, in about five minutes; needs wrk
	@$(BIN)/python -m bench.intake --dsn "$(DSN)"

bench-read: .venv/.ready  ## measure reads at 10,000 and 1,000,000 instances, in about ten minutes, with 15 GB
	@$(BIN)/python -m bench.read --dsn "$(DSN)"

bench-feed: .venv/.ready  ## measure the feed's latency: 1,000 subscribers, 1,000 snapshots a second, in about six minutes
	@$(BIN)/python -m bench.feed

bench-console: .venv/.ready  ## measure the console at up to 1,000,000 instances: start, keys, CPU, bytes, memory; in about twenty minutes
	@$(BIN)/python -m bench.console

bench-ssh: .venv/.ready  ## measure what ten consoles over SSH cost, in about seven minutes; needs the OpenSSH client
	@$(BIN)/python -m bench.console.over_ssh

bench-stall: .venv/.ready  ## measure the longest wait of an honest install during attacks and bulk changes, in about ten minutes; needs wrk
	@$(BIN)/python -m bench.attack

bench-check: .venv/.ready  ## measure `shm check` of a million snapshots beside a server, in about four minutes
	@$(BIN)/python -m bench.check

# The SDK's host and the SDKs beside it have an environment of their own: they are dependencies of this bench only.
.bench-sdk/.ready: requirements-bench-sdk.lock
	@$(PYTHON) -m venv --clear .bench-sdk
	@.bench-sdk/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r $<
	@touch $@

bench-sdk: .venv/.ready .bench-sdk/.ready  ## measure what the SDK costs its host, beside sentry-sdk and posthog, in about three minutes
	@$(BIN)/python -m bench.sdk --python "$(CURDIR)/.bench-sdk/bin/python"

check: .venv/.ready  ## check format, lint, spelling, types, imports and locks, in under a minute
	@git grep --no-index --exclude-standard -InE '^([<>|]{7}( |$$)|={7}$$)'; test $$? -eq 1 \
	  || { echo "a merge was not finished: remove the lines with its markers"; exit 1; }
	@$(BIN)/ruff format --check . || { echo "to correct it: make format"; exit 1; }
	@$(BIN)/ruff check . || { echo "to apply automatic corrections: make format"; exit 1; }
	@$(BIN)/codespell . .ci || { echo "correct the spelling, or add the word to [tool.codespell] in pyproject.toml"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/mypy --python-version 3.10 --package shm_sdk --package sdk_tests  # the oldest Python of the SDK's hosts
	@$(BIN)/mypy --python-version 3.14 --package shm_sdk --package sdk_tests  # the newest
	@$(BIN)/lint-imports --no-logo || { echo "the contracts are in pyproject.toml, [tool.importlinter]"; exit 1; }
	@$(BIN)/python .ci/lock.py --check

format: .venv/.ready  ## format the code and apply the linter's corrections
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: .venv/.ready  ## resolve the dependencies again into requirements.lock
	@$(BIN)/python .ci/lock.py

pictures: .venv/.ready  ## draw the pictures of the console's tests again, and list those that changed
	@DRAW_PICTURES=1 $(BIN)/python -m pytest tests/console/test_pictures.py -m "" -q
	@git diff --stat -- tests/console/pictures

recording: .venv/.ready  ## record the fleet of those pictures again from a new demo, and draw all of them
	@tests/support/record_pictures
	@$(MAKE) pictures

screenshot: .venv/.ready  ## update the pictures of docs/console.md from the demo fleet
	@$(BIN)/shm demo --data-dir .demo --screenshot docs/console.svg
	@$(BIN)/shm demo --data-dir .demo --view "ledger/versions 1y" --screenshot docs/console-versions.svg
	@$(BIN)/shm demo --data-dir .demo --view "ledger/metric/invoices_sent 1y" --screenshot docs/console-metric.svg

image-test: .venv/.ready  ## build the image and run it: health, a snapshot, console, backup, SIGTERM; needs root, buildah, debootstrap
	@tests/packaging/try_image

systemd-test:  ## run the commands of docs/deploy-systemd.md in a Debian with systemd; needs root, debootstrap, systemd-container
	@tests/packaging/try_systemd

dashboard: .venv/.ready  ## write deploy/grafana-dashboard.json from the list in deploy/dashboard.py
	@$(BIN)/python deploy/dashboard.py > deploy/grafana-dashboard.json

clean:  ## remove build results and caches, but not .demo with the demo's data
	rm -rf .venv .bench-sdk dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
