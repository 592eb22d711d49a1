# Everything runs in .venv, which each target makes for itself when it is missing or out of date.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INPUTS := pyproject.toml constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help env demo test lint format types unit docs wheel-check matrix bench test-benchmarks \
    test-processors test-browser chromium test-deployment types-outside example-flower example-distributed \
    example-pfl example-nvflare clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'

env: $(VENV)/.full ## make .venv with everything that development needs

demo: $(VENV)/.demo ## plan the example fleet and draw the result
	$(BIN)/coopt demo --plot coopt-demo.png

test: lint types unit docs wheel-check ## everything that continuous integration checks

lint: $(VENV)/.full ## ruff: rules and format; import-linter: rooms import one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.full ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.full ## mypy, strict
	$(BIN)/mypy

types-outside: $(VENV)/.full ## mypy and pyright on a user's file, with coopt as an installed package
	$(BIN)/python tools/types_outside.py

unit: $(VENV)/.full ## tests and docstring examples, on all cores
	$(BIN)/python -m pytest -n auto --dist loadfile

test-processors: $(VENV)/.full ## the tests as other processors would run them: twice as long as `make unit`
	$(BIN)/python tools/processors.py -n auto --dist loadfile

docs: $(VENV)/.full ## build the documentation, running its examples
	$(BIN)/sphinx-build -q -W --keep-going -j auto -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

wheel-check: $(VENV)/.full ## build wheel and sdist, install the wheel alone, use it away from the checkout
	$(BIN)/python tools/wheel_check.py

matrix: $(VENV)/.full ## the tests that need no torch on the newest Pythons, and on the oldest versions allowed
	$(BIN)/python tools/matrix.py

# Real data, where the environment does not say where they are.
ifneq ($(wildcard ../shared/data),)
export COOPT_DATA ?= $(realpath ../shared/data)
endif

bench: export OMP_NUM_THREADS := 1
# One that fails stops no other, and is named at the end.
bench: $(VENV)/.bench ## every table and picture in benchmarks/, but for the fuzzing; one core, many hours
	failed=; for script in $$(grep -l __main__ benchmarks/*/*.py); do \
	    case $$script in benchmarks/fuzz/fuzz.py) continue;; esac; \
	    module=$${script%.py}; $(BIN)/python -m $${module//\//.} || failed+=" $$module"; done; \
	    test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

test-benchmarks: $(VENV)/.bench ## a small piece of every table in benchmarks/, those that train with numba too
	$(BIN)/python -m pytest tests/benchmarks

test-browser: $(VENV)/.full chromium ## the what-if page in Debian's Chromium
	$(BIN)/python -m pytest tests/cli/test_explore_page.py

# Debian's, where it is missing; the tests of the page are skipped, and say so, where it cannot be installed.
chromium:
	command -v chromium > /dev/null || { apt-get -qq update && \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium > /dev/null; }

fuzz: $(VENV)-fuzz/.ready ## fuzz the readers, where it ended last time, until 10 million inputs were read
	OMP_NUM_THREADS=1 $(VENV)-fuzz/bin/python -m benchmarks.fuzz.fuzz

supply-chain: $(VENV)-audit/.ready $(VENV)/.full ## licences of all that is installed; known vulnerabilities, where the index tells
	$(VENV)-audit/bin/pip-licenses --python $(BIN)/python --order name --format csv \
	    --ignore-packages coopt --output-file docs/reference/licences.csv
	$(VENV)-audit/bin/pip-audit --disable-pip --no-deps --requirement constraints.txt

test-deployment: $(VENV)/.full ## Flower with real processes, some of which are killed: minutes
	$(BIN)/python -m pytest -m deployment

example-flower: $(VENV)/.full ## coopt on Flower's simulation engine, ten nodes
	PYTHONPATH=tests $(BIN)/python tools/flower_example.py

example-distributed: $(VENV)/.full ## local SGD planned across two processes with torch.distributed
	GLOO_SOCKET_IFNAME=lo $(BIN)/python -m torch.distributed.run --standalone --nproc-per-node 2 docs/examples/distributed/train.py

example-pfl: $(VENV)-pfl/.ready ## coopt in pfl-research, in an environment of its own
	$(VENV)-pfl/bin/python docs/examples/pfl/example.py

example-nvflare: $(VENV)-nvflare/.ready ## coopt in NVFlare's simulator, in an environment of its own
	cd docs/examples/nvflare && $(CURDIR)/$(VENV)-nvflare/bin/python job.py $(CURDIR)/build/nvflare

clean: ## remove the environments and all that was built
	rm -rf $(VENV) $(VENV)-* build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis coopt-demo.png
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first and by exact version: with it there, nothing that depends on it looks for another build.
$(VENV)/.full: $(BIN)/python $(INPUTS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,plot,docs,torch,flower]"
	@touch $(VENV)/.full $(VENV)/.demo

# The benchmarks of the forecast train with numba, and compare with optuna.
$(VENV)/.bench: $(VENV)/.full
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	@touch $@

# Only what the demonstration needs: the library and matplotlib.
$(VENV)/.demo: $(BIN)/python $(INPUTS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[plot]"
	@touch $(VENV)/.demo

# Atheris brings libFuzzer, and needs nothing of what development needs.
$(VENV)-fuzz/.ready: $(INPUTS)
	$(PYTHON) -m venv $(VENV)-fuzz
	$(VENV)-fuzz/bin/python -m pip install --quiet --constraint constraints.txt atheris --editable .
	@touch $@

$(VENV)-audit/.ready:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit pip-licenses
	@touch $@

# Engines that pin what coopt's own environment has in newer versions: attrs, absl-py.
$(VENV)-%/.ready: docs/examples/%/requirements.txt $(INPUTS)
	$(PYTHON) -m venv $(VENV)-$*
	grep -vE '^(attrs|absl-py)==' constraints.txt > $(VENV)-$*/constraints.txt
	$(VENV)-$*/bin/python -m pip install --quiet --constraint $(VENV)-$*/constraints.txt \
	    --requirement docs/examples/$*/requirements.txt --editable .
	@touch $@
