# SPDX-License-Identifier: Apache-2.0
"""Debian on an emulated AArch64, and the Cortex-M33 beside it in another QEMU.

A part of each runs with all tests; SBE_SOC=all, as `make rig-soc` sets it, has all of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest

from tests.rigs.boards import require_board
from tests.rigs.guest import GuestDied, RigMissing
from tests.rigs.missing import give_up, require
from tests.rigs.soc import machine
from tests.rigs.soc.both import BOARD, PYTHON, Soc, booted_board

ALL = os.environ.get("SBE_SOC") == "all"
PART = "(test_calls and not extremes) or test_formats or test_services or test_asg or test_power"
TOO_SLOW = "two_loops or thousands_at_once or eight_threads or blocks_to_be_filled or stands_still"
"""What a clock measures: thousands of calls in 20 or 30 s, streams not to run out of frames."""
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
    with booted_board() as board, contextlib.closing(Soc(parts, board)) as soc:
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


def test_conformance(soc: Soc) -> None:
    """The suite that is shipped, against a carve-out in the guest's own terms."""
    command = [PYTHON, "-m", "pytest", "-p", "sbe.testing.plugin", "-p", "no:cacheprovider", "-q"]
    command += ["--color=no", "--sbe-uri=carveout:/run/link.toml", "--sbe-timeout=300"]
    command += ["-c", "/dev/null", "--rootdir", "/checkout/sbe/testing"]
    command += ["-k", f"not ({TOO_SLOW})" if ALL else PART]
    said = soc.run(*command, "--pyargs", "sbe.testing.conformance", timeout_s=1500)
    print(said[-1])
    assert "failed" not in said[-1]


def test_command_line_over_a_daemon(soc: Soc) -> None:
    said = "\n".join(soc.run(*PROGRAMS, "daemon", timeout_s=300))
    for words in ("carveout", "crc32", "PASS 23 of 23 results checked against zlib and numpy"):
        assert words in said


def test_firmware_is_killed_and_comes_back(soc: Soc) -> None:
    """Every other time QEMU dies with it, which takes the serial line down for a second."""
    count = 100 if ALL else 10
    soc.begin(*PROGRAMS, "cycles", str(count))
    for number in range(count):
        assert soc.guest.receive(120) == "up", soc.log
        if number % 2:
            soc.board.reset()
        else:
            soc.board.start()
    soc.end(timeout_s=120)


def test_guest_is_killed_and_the_next_one_connects(parts: machine.Parts) -> None:
    with booted_board() as board:
        pid = board.pid
        with contextlib.closing(Soc(parts, board)) as soc:
            soc.begin(*PROGRAMS, "busy")
            for _ in range(3):
                assert soc.guest.receive(60) == "up", soc.log
        # Its process is gone, in the middle of a call.
        with contextlib.closing(Soc(parts, board)) as soc:
            soc.run(*PROGRAMS, "room", timeout_s=120)
        assert (board.pid, board.exit_description) == (pid, None)


@pytest.mark.parametrize("size_mib", [8, 32] if ALL else [8])
def test_window_of_another_size_is_refused(parts: machine.Parts, size_mib: int) -> None:
    size, ours = size_mib << 20, 16 << 20
    with booted_board() as board:
        os.truncate(board.ram, max(size, ours))
        with contextlib.closing(Soc(parts, board, size)) as soc:
            found = soc.run(*PROGRAMS, "refused", str(ours), timeout_s=120)
    ram = "/sys/bus/pci/devices/0000:00:12.0/resource2_wc"
    assert found == [
        f"the firmware on {BOARD} shares {ours} bytes of RAM, this end {size} of {ram}: "
        "give both the same",
        *(
            [f"the shared RAM {ram} has {size} bytes from 0, {ours} are needed"]
            if size < ours
            else []  # as many of the larger one are configured, and that works
        ),
    ]
