# SPDX-License-Identifier: Apache-2.0
"""Debian on an emulated AArch64, and the Cortex-M33 beside it in another QEMU.

A part of each runs with all tests; SBE_SOC=all, as `make rig-soc` sets it, has all of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.rigs.boards import require_board
from tests.rigs.guest import GuestDied, RigMissing
from tests.rigs.missing import give_up, require
from tests.rigs.soc import machine
from tests.rigs.soc.both import BOARD, PYTHON, Soc, started

ALL = os.environ.get("SBE_SOC") == "all"
PROGRAMS = (PYTHON, "-m", "tests.rigs.soc.programs")

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800 if ALL else 300)]


@pytest.fixture(scope="module")
def parts() -> machine.Parts:
    require(
        shutil.which(machine.PROGRAM) is not None,
        f"no {machine.PROGRAM} (sudo apt install qemu-system-arm)",
    )
    require_board(BOARD)
    try:
        return machine.find()
    except RigMissing as error:
        give_up(str(error))


@pytest.fixture(scope="module")
def soc(parts: machine.Parts) -> Iterator[Soc]:
    with started(parts) as soc:
        yield soc


def test_boots_to_python_and_down(parts: machine.Parts) -> None:
    words = "import os, sbe; print(*os.uname()[::4], sbe.__version__)"
    try:
        result = machine.run(parts, [PYTHON, "-c", words], timeout_s=120)
    except GuestDied as error:
        give_up(f"the virtual SoC does not boot: {error}")
    assert result.status == 0, result.output
    assert result.output.startswith("Linux aarch64 ")
    assert not result.faults


def test_calls(soc: Soc) -> None:
    soc.run(*PROGRAMS, "calls", "2000" if ALL else "200", timeout_s=120)
