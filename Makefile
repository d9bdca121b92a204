# make demo     see it work, in about ten seconds
# make sandbox  the same set-up, kept running to play with
# make simulate many worlds on a virtual clock; SEEDS=1000 JOBS=2
# make soak     minutes of clients and faults, on real sockets and in real time; MINUTES=5
# make test     all tests          make lint    style and types
# make wheel    build it, install it elsewhere, look whether it is all there
# make bench    bkscaler and other proxies side by side; a few minutes, or BENCH=--quick
# make docs     write the table of settings anew into docs/configuration.md

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

BENCH ?=

.PHONY: demo sandbox bench simulate soak test lint wheel docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	@$(BIN)/python -m bkscaler.demo

sandbox: $(VENV)/.installed
	@$(BIN)/python -m bkscaler.demo --stay --idle-timeout 10s

bench: $(VENV)/.installed
	@$(BIN)/python -m bkscaler.bench $(BENCH)

SEEDS ?= 1000
JOBS ?= 2

simulate: $(VENV)/.installed
	@$(BIN)/python -m bkscaler.simulation --seeds $(SEEDS) --jobs $(JOBS)

MINUTES ?= 5

soak: $(VENV)/.installed
	@$(BIN)/python -m bkscaler.soak --minutes $(MINUTES)

test: $(VENV)/.testable
	$(BIN)/python -m twisted.trial bkscaler

lint: $(VENV)/.tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

wheel: $(VENV)/.tools
	$(BIN)/python .ci/check_wheel.py

docs: $(VENV)/.installed
	$(BIN)/python .ci/write_configuration.py

# Debian's python3 comes without ensurepip unless python3-venv is installed; pip can then be put in from outside.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m pip --python $(BIN)/python install --quiet pip

# Without editable_mode=compat an editable install hides the twistd plugin.
$(VENV)/.installed: $(VENV)/bin/python setup.py pyproject.toml
	$(PIP) --editable . --config-settings editable_mode=compat
	@touch $@

$(VENV)/.testable: $(VENV)/.installed
	$(PIP) --editable '.[test]' --config-settings editable_mode=compat
	@touch $@

$(VENV)/.tools: $(VENV)/.installed
	$(PIP) --editable '.[dev]' --config-settings editable_mode=compat
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info _trial_temp* .mypy_cache .ruff_cache
	find bkscaler twisted -name __pycache__ -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache
