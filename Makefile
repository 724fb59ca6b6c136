# `make demo` and `make test` each work as the first command after a clone; `make help` lists the rest.
# Python packages go into .venv of this checkout, builds into build/; nothing else is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := tests/tools
PYTEST_ARGS ?= -n 2

BOARDS := mps2-an521 mps2-an385
FIRMWARE := $(BOARDS:%=build/firmware/%/sbe-firmware.elf)
# Tests on the emulated boards are skipped, with the apt line, where there is no cross compiler.
RIG := $(if $(shell command -v arm-none-eabi-gcc),$(FIRMWARE))

NATIVE := $(shell find firmware sbe/native -type f \( -name '*.[ch]' -o -name '*.ld' -o -name CMakeLists.txt \))

# Stamps, in order: the venv, what the build and the demo need, the extension, what tests and bench add.
MADE := $(VENV)/.made
BASE := $(VENV)/.base
BUILT := $(VENV)/.built
DEV := $(VENV)/.dev
PEERS := $(VENV)/.bench

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: firmware rig-kernel rig-soc soc-parts rig-zephyr instructions help demo demo-stream test ctest pytest sanitize fuzz soak deaths bench bench-streams bench-kernel lint build wheel release footprint prove-tests clean distclean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

# make demo TARGET=cortex-m33 or cortex-m3: the same on an emulated core.
TARGET ?=
DEMO_BOARD := $(if $(TARGET),$(or $(patsubst cortex-%,%,$(filter cortex-m33 cortex-m3,$(TARGET))),\
	$(error TARGET=$(TARGET): cortex-m33 or cortex-m3)))
DEMO_BOARD := $(patsubst m33,mps2-an521,$(patsubst m3,mps2-an385,$(DEMO_BOARD)))
DEMO_URI := $(if $(DEMO_BOARD),--uri qemu:$(DEMO_BOARD))

demo: $(BUILT) $(DEMO_BOARD:%=build/firmware/%/sbe-firmware.elf) ## send a photograph and 500 frames to a co-processor process; writes build/demo.png
	@mkdir -p build
	$(BIN)/sbe $(DEMO_URI) demo

demo-stream: $(BUILT) $(DEMO_BOARD:%=build/firmware/%/sbe-firmware.elf) ## play a melody through a co-processor process, check each sample; writes build/stream.png
	@mkdir -p build
	$(BIN)/sbe $(DEMO_URI) demo-stream

test: ctest pytest ## C tests under the sanitizers, then pytest

ctest: $(BUILT)
	$(TOOLS)/ctests.sh $(BIN)

pytest: $(BUILT) $(DEV) $(RIG) ctest
	$(BIN)/python -m pytest $(PYTEST_ARGS)

sanitize: $(BUILT) $(DEV) ## conformance and extension tests with the extension under ASan and UBSan
	$(TOOLS)/sanitize.sh $(BIN) address,undefined -n 2 $(SANITIZE_ARGS)

# make fuzz SECONDS=600: what pytest runs for a fixed number of executions, for longer, from other seeds.
SECONDS ?= 60
fuzz: $(BUILT) $(DEV) ## SECONDS=n: run each fuzz target so long, print executions and coverage
	$(BIN)/python -m tests.fuzz.targets --seconds $(SECONDS) $(FUZZ_ARGS)

MINUTES ?= 10
soak: $(BUILT) $(DEV) ## MINUTES=10 [SEED=N]: many clients at random, kills on every side, then all is accounted for
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

deaths: $(BUILT) $(DEV) ## SIGKILL at every point of remote, daemon and client; every call fails in every way
	SBE_DEATHS=all $(BIN)/python -m pytest $(PYTEST_ARGS) tests/deaths

# In a private copy, build/proof. SAMPLE=5: that many, SEED= which ones, by default the commit says. ONLY=text.
prove-tests: $(BUILT) $(DEV) ## put known bugs back one by one: each must turn a test red
	$(BIN)/python -m tests.proof $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only "$(ONLY)")

bench: $(BUILT) $(PEERS) ## every figure beside its floor or peer; writes build/bench.json
	@mkdir -p build
	$(BIN)/python -m tests.bench

bench-streams: $(BUILT) $(PEERS) ## the rows of streams alone, 64 at once for a minute among them; SECONDS=60
	$(BIN)/python -m tests.bench --only 'stream_*' --seconds $(SECONDS) --build build/streams

bench-kernel: $(BUILT) $(PEERS) rig-kernel ## SBE over a real kernel's rpmsg beside rpmsg alone; writes build/bench-kernel.json
	$(BIN)/python -m tests.bench --kernel

lint: $(BUILT) $(DEV) ## ruff, mypy, clang-format, strict gcc and clang builds, cross builds
	$(TOOLS)/lint.sh $(BIN)

build: $(BUILT) ## build the extension and sbe-remote into .venv (editable install)

wheel: $(BASE) ## build dist/*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# make release DRY=1: of any tree, into build/release; docs/release.md has all steps.
release: $(BASE) ## check this tree, build and try dist/, say what is left to a person; DRY=1: of any tree
	$(BIN)/python $(TOOLS)/release.py $(if $(DRY),--dry)

footprint: $(MADE) ## text, data, bss, stack and RAM of the core per target
	$(BIN)/python -m tests.tools.footprint

firmware: $(FIRMWARE) ## cross-build the images of the emulated boards (gcc-arm-none-eabi)

build/firmware/%/sbe-firmware.elf: $(NATIVE) $(BASE)
	@command -v arm-none-eabi-gcc >/dev/null || { echo "sbe: no arm-none-eabi-gcc. Install with: \
	sudo apt install gcc-arm-none-eabi libnewlib-arm-none-eabi" >&2; exit 1; }
	@mkdir -p build
	@$(BIN)/cmake -S firmware -B build/firmware/$* -G Ninja \
		-DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DSBE_BOARD=$* -DCMAKE_BUILD_TYPE=Release \
		--toolchain $(CURDIR)/firmware/ports/mps2/toolchain.cmake > build/firmware-$*.log 2>&1 || \
		{ cat build/firmware-$*.log; exit 1; }
	@$(BIN)/cmake --build build/firmware/$* -- --quiet
	@touch $@
	@arm-none-eabi-size $@
	@$(BIN)/python -m tests.tools.stack build/firmware/$* || { rm -f $@; exit 1; }

instructions: $(BUILT) $(FIRMWARE) ## instructions of the firmware per call, counted in QEMU
	$(BIN)/python $(TOOLS)/instructions.py --functions

rig-kernel: ## build the kernel that tests marked `kernel` run in (once, some minutes), and our modules
	tests/rigs/kernel/build.sh

# Debian for these comes by apt and pip, once; the package is cross-built as often as it changes.
SOC := build/soc/arm64/.built build/soc/armhf/.built
SOC_SOURCES := $(NATIVE) $(shell find sbe -name '*.py') $(wildcard tests/rigs/soc/*.sh)
rig-soc: $(BUILT) $(DEV) $(RIG) $(SOC) ## a Debian for AArch64 under emulation beside the Cortex-M33, qemu-user: all of their tests, some minutes
	SBE_SOC=all $(BIN)/python -m pytest tests/rigs/soc

soc-parts: $(SOC) ## only build what those tests run, which are skipped without

build/soc/%/.built: $(SOC_SOURCES) $(BASE)
	@cache=$$(tests/rigs/soc/build.sh $*) && tests/rigs/soc/cross.sh $* "$$cache"
	@touch $@

# An image of Zephyr is one more image of the emulated board: the same suites, but for what bare metal alone says.
ZEPHYR_IMAGE := build/zephyr/carveout_mps2_an521_cpu0/zephyr/zephyr.elf
rig-zephyr: $(BUILT) $(DEV) $(RIG) ## ZEPHYR_BASE=... ZEPHYR_MODULES=...: build the Zephyr applications with that Zephyr, run the suites on one
	@tests/rigs/zephyr/build.sh
	SBE_FIRMWARE=$(ZEPHYR_IMAGE) SBE_ZEPHYR_IMAGE=$(ZEPHYR_IMAGE) $(BIN)/python -m pytest $(PYTEST_ARGS) \
		tests/conformance tests/rigs -m "not kernel" -k "(mps2-an521 and not boot_says and not test_faults and not memory_of_the_firmware) or test_zephyr"

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
	@# Another project's distribution, whose files would lie among ours; once it was our name, too.
	@$(BIN)/python -m pip uninstall --quiet --quiet --yes sbe
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
