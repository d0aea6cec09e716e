# Two commands matter: `make demo` and `make test`. Needed: Python 3.11 or newer with venv, make, git.

PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := $(UV) run --frozen

.PHONY: demo test dev check format bench bench-broadcast drills replay-fixtures clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    install, start a real Temporal server, run the main jobs on real files, print what came out"
	@echo "make test    install and run the tests"
	@echo "make dev     leave everything running: Temporal with its Web UI, worker, API"
	@echo "make check   format, lint, import direction, types, tests"
	@echo "make bench   the measurements in bench/"
	@echo "make bench-broadcast   broadcasts beside BullMQ and Celery"
	@echo "make drills  workers killed under load, a relay away for ten minutes; 15 minutes"

.venv/.installed: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --quiet
	@touch $@

# uv from PyPI where the machine has none
.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check "uv>=0.9,<1"

demo: .venv/.installed
	@$(RUN) holdfast demo

test: .venv/.installed
	$(RUN) pytest
	@echo "Not run here: what needs a browser, a Docker engine, Redis or promtool, and the long drills (make drills)."

dev: .venv/.installed
	@$(RUN) holdfast up --simulator

check: .venv/.installed
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) lint-imports
	$(RUN) mypy
	$(MAKE) test

format: .venv/.installed
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

bench: .venv/.installed
	$(RUN) python -m bench.server_tuning
	$(RUN) python -m bench.api_latency
	$(RUN) python -m bench.notification_latency
	$(RUN) python -m bench.file_throughput
	$(RUN) python -m bench.worker_memory
	$(RUN) python -m bench.sync_neighbours
	$(RUN) python -m bench.sync_quota

# ours beside BullMQ and Celery; installs Redis and Node.js from Debian where they are missing
bench-broadcast: .venv/.installed
	$(RUN) python -m bench.broadcast

# the drills at full length: two minutes of load with three kills, ten minutes without a relay
drills: .venv/.installed
	HOLDFAST_DRILLS=1 HOLDFAST_DRILL_SECONDS=120 HOLDFAST_DRILL_OUTAGE_SECONDS=600 HOLDFAST_DRILL_RECIPIENTS=20000 \
	HOLDFAST_DRILL_KILLS=3 $(RUN) pytest tests/drills -s

# one history per released shape; existing ones are kept
replay-fixtures: .venv/.installed
	$(RUN) python -m tests.replay.record

clean:
	rm -rf .venv .uv .holdfast .mypy_cache .ruff_cache .pytest_cache
