# `make demo` and `make test` each work as the first command after a clone; `make help` lists the rest.
# Python packages go into .venv of this checkout, builds into build/; nothing else is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := tests/tools
PYTEST_ARGS ?= -n 2

NATIVE := $(shell find firmware sbe/native -type f \( -name '*.[ch]' -o -name '*.ld' -o -name CMakeLists.txt \))

# Stamps, in order: the venv, what the build and the demo need, the extension, what tests and bench add.
MADE := $(VENV)/.made
BASE := $(VENV)/.base
BUILT := $(VENV)/.built
DEV := $(VENV)/.dev
PEERS := $(VENV)/.bench

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test ctest pytest sanitize bench lint build wheel footprint clean distclean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(BUILT) ## send a photograph and 500 frames to a co-processor process; writes build/demo.png
	@mkdir -p build
	$(BIN)/sbe demo

test: ctest pytest ## C tests under the sanitizers, then pytest

ctest: $(BUILT)
	$(TOOLS)/ctests.sh $(BIN)

pytest: $(BUILT) $(DEV) ctest
	$(BIN)/python -m pytest $(PYTEST_ARGS)

sanitize: $(BUILT) $(DEV) ## conformance and extension tests with the extension under ASan and UBSan
	$(TOOLS)/sanitize.sh $(BIN) address,undefined -n 2 $(SANITIZE_ARGS)

bench: $(BUILT) $(PEERS) ## every figure beside its floor or peer; writes build/bench.json
	@mkdir -p build
	$(BIN)/python -m tests.bench

lint: $(BUILT) $(DEV) ## ruff, mypy, clang-format, strict gcc and clang builds, cross builds
	$(TOOLS)/lint.sh $(BIN)

build: $(BUILT) ## build the extension and sbe-remote into .venv (editable install)

wheel: $(BASE) ## build dist/*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

footprint: $(MADE) ## text, data, bss, stack and RAM of the core per target
	$(BIN)/python $(TOOLS)/footprint.py

clean: ## remove what was built, keep .venv's packages
	rm -rf build dist
	rm -f $(BUILT)

distclean: clean ## remove .venv as well
	rm -rf $(VENV)

$(MADE): | preflight
	$(PYTHON) -m venv $(VENV)
	@touch $@

.PHONY: preflight
preflight:
	@$(TOOLS)/preflight.sh "$(PYTHON)"

$(BASE): pyproject.toml $(TOOLS)/requirements.py $(MADE)
	$(BIN)/python $(TOOLS)/requirements.py build daemon demo > $@.txt
	$(PIP_INSTALL) -r $@.txt
	@touch $@

$(BUILT): $(NATIVE) $(BASE) | preflight
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(BASE)
	$(BIN)/python $(TOOLS)/requirements.py test > $@.txt
	$(PIP_INSTALL) -r $@.txt
	@touch $@

$(PEERS): $(BASE)
	$(BIN)/python $(TOOLS)/requirements.py bench > $@.txt
	$(PIP_INSTALL) -r $@.txt
	@touch $@
