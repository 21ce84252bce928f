# Everything a person or CI does with the project. Needed: make, and Python 3.11, 3.12 or 3.13 with its venv module.
# Another interpreter: make test PYTHON=python3.13 VENV=.venv-3.13

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
SHELL := /bin/sh
export PYTHONNOUSERSITE := 1
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH
export UV_PYTHON_DOWNLOADS := never

# A newer one is taken where there is nothing else: the recogniser is then compiled, which needs a C compiler.
PYTHON ?= $(shell for newest in 13 99; do for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $$newest))" 2>/dev/null \
	&& echo $$name && exit; done; done)
PYTHON_2_11 ?= $(PYTHON)
VENV ?= .venv
VENV_2_11 ?= .venv-2.11

UV := .work/uv/bin/uv
UV_COMPILE := $(UV) pip compile --quiet --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --python-version 3.11
# What was there when Airflow 2.11.2 came out, as its constraints have it. The DuckDB provider is younger, and what the
# emulator works with may be.
NEWER := apache-airflow-providers-duckdb av moto
COMPILE_2_11 := $(UV_COMPILE) --python-platform linux --exclude-newer 2026-03-15 \
	$(foreach name,$(NEWER),--exclude-newer-package $(name)=2026-11-22)
RUN := $(VENV)/bin/python
PYTEST := $(RUN) -m pytest
# How many processes tests are spread over that don't disturb each other.
JOBS ?= 2
SPREAD := -n $(JOBS) --dist worksteal
EMULATOR_PYTEST := cd emulator && $(abspath $(RUN)) -m pytest

.PHONY: help setup setup-2.11 demo test unit unit-later integration system lint docs wheel test-wheel faults fuzz bench \
	size coverage test-airflow-2.11 lock lock-check clean

help:  ## list what can be made
	@sed -n 's/^\([a-z][a-z0-9.-]*\):.*##  *\(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-18s %s\n' "$$name" "$$text"; done

# $(1) the environment, $(2) its interpreter, $(3) its lock. uv changes only what differs from the lock.
define environment
@test -n "$(2)" || { echo "Install Python 3.11, 3.12 or 3.13" >&2; exit 1; }
@$(UV) venv --quiet --allow-existing --python "$(2)" "$(1)"
@$(UV) pip sync --quiet --compile-bytecode --python "$(1)/bin/python" --build-constraints $(3) $(3) locks/projects.txt
endef

setup: $(UV)  ## bring the environment in .venv up to date with its lock
	$(call environment,$(VENV),$(PYTHON),locks/dev.txt)

setup-2.11: $(UV)
	$(call environment,$(VENV_2_11),$(PYTHON_2_11),locks/airflow-2.11.txt)

$(UV): locks/uv.txt
	@"$(PYTHON)" -c 'import ensurepip' 2>/dev/null || { \
		echo "Install Python 3.11, 3.12 or 3.13 with its venv module (on Debian: apt-get install python3-venv)" >&2; \
		exit 1; }
	@rm -rf .work/uv
	@"$(PYTHON)" -m venv .work/uv
	@.work/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/uv.txt
	@touch $@

demo: setup  ## run the main job with the emulator: recordings in a bucket become rows in DuckDB
	@$(VENV)/bin/airflow-speechkit demo

# COVERAGE=1 measures what the unit and the integration tests cover; the limit holds for both together.
ifdef COVERAGE
UNIT_COVERAGE := --cov --cov-report= --cov-fail-under=0
INTEGRATION_COVERAGE := --cov --cov-append --cov-report=term:skip-covered
endif

test: unit integration system  ## run all tests: unit, integration, system

unit: setup  ## test without Airflow's database
	$(PYTEST) $(SPREAD) $(UNIT_COVERAGE) tests/unit
	$(EMULATOR_PYTEST) tests/unit

unit-later: setup  ## run the unit tests with the clock 400 days ahead
	PYTHONPATH=$(CURDIR)/.ci $(PYTEST) -p later $(SPREAD) tests/unit
	cd emulator && PYTHONPATH=$(CURDIR)/.ci $(abspath $(RUN)) -m pytest -p later tests/unit

integration: setup  ## test against the emulator: each operator, and the example DAGs in an Airflow
	$(EMULATOR_PYTEST) tests/integration
	$(PYTEST) $(SPREAD) $(INTEGRATION_COVERAGE) tests/integration

system: setup  ## test with a real scheduler, triggerer and executor on PostgreSQL
	$(PYTEST) tests/system

faults: setup  ## break things at every step and count what was paid and what was lost
	$(PYTEST) tests/faults

fuzz: setup  ## read thousands of mutated answers, errors and headers, the same ones each time
	$(PYTEST) tests/fuzz

# Of the lock, what builds is taken; nothing else of it has to be installed.
WHEEL := $(UV) build --quiet --wheel --build-constraints locks/dev.txt --require-hashes --python "$(PYTHON)" --out-dir dist

wheel: $(UV)  ## build both wheels into dist/
	@rm -rf dist
	$(WHEEL) .
	$(WHEEL) emulator

test-wheel: setup wheel  ## test each wheel in an environment of its own, and the README's commands for them
	UV="$(CURDIR)/$(UV)" $(PYTEST) tests/packaging

lint: setup  ## check style, types and the directions of imports
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports --cache-dir .import_linter_cache
	$(RUN) -m mypy

docs: setup  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=true $(RUN) -m mkdocs build --quiet --strict

size:  ## count the lines of code of the provider, by folder
	@"$(PYTHON)" .ci/size.py airflow_speechkit

bench: setup  ## run every benchmark; each prints a table
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(RUN) "$$script"; done

coverage:  ## run the unit and integration tests, and measure what they cover
	@$(MAKE) unit integration COVERAGE=1

# What of the tests meets Airflow's own code.
TOUCHES_AIRFLOW := $(addprefix tests/unit/,cli hooks operators package sensors transfers triggers \
	test_retry_policy.py test_shown_recordings.py) \
	$(addprefix tests/integration/,operators sensors triggers test_call_centre.py test_command_line_connections.py \
	test_dag_test.py test_import_weight.py test_labels_from_crm.py test_nightly.py test_oldest_airflow.py test_rendered_links.py test_testing_page.py)

test-airflow-2.11: setup-2.11  ## test what touches Airflow, and run one DAG, on the oldest Airflow supported
	$(VENV_2_11)/bin/python -c 'import airflow; assert airflow.__version__ == "2.11.2", airflow.__version__'
	$(VENV_2_11)/bin/python -m pytest $(SPREAD) $(TOUCHES_AIRFLOW)

# The emulator isn't published, so no index has what the extra `emulator` names: its own requirements stand for it.
SOURCES := pyproject.toml --extra s3 --extra audio --extra duckdb --extra postgres emulator/pyproject.toml

# All locks made anew in .work/locks, keeping what still fits of those that are there.
define compile_locks
@rm -rf .work/locks && mkdir -p .work/locks && cp locks/*.txt .work/locks/
@$(UV_COMPILE) --universal locks/uv.in -o .work/locks/uv.txt
@$(UV_COMPILE) --universal $(SOURCES) locks/dev.in -o .work/locks/dev.txt
@$(COMPILE_2_11) $(SOURCES) locks/airflow-2.11.in -o .work/locks/airflow-2.11.txt
endef

lock: $(UV)  ## bring the locks up to date with pyproject.toml and locks/*.in, keeping what still fits
	$(compile_locks)
	@for lock in locks/*.txt; do cmp -s .work/$$lock $$lock || { cp .work/$$lock $$lock; echo "changed $$lock"; }; done

lock-check: $(UV)  ## check that the locks fit what they were made from
	$(compile_locks)
	@for lock in locks/*.txt; do cmp -s .work/$$lock $$lock || { echo "make lock would change $$lock" >&2; exit 1; }; done
	@for version in 3.11 3.12 3.13; do \
		$(UV) pip install --quiet --dry-run --only-binary :all: --python-version $$version --require-hashes \
			--target .work/wheels -r locks/dev.txt \
		|| { echo "Python $$version would have to compile something of locks/dev.txt" >&2; exit 1; }; done
	@if grep -n 'index-url\|find-links\|://' locks/*.txt; then echo "a lock names a host" >&2; exit 1; fi

clean:  ## remove everything that was made, environments included
	rm -rf .work .venv .venv-* dist build site demo-output .coverage .mypy_cache .pytest_cache .ruff_cache \
		.hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
