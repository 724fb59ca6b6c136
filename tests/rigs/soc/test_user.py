# SPDX-License-Identifier: Apache-2.0
"""Programs of arm64 and armhf under qemu-user: the core's tests, unit tests, the loopback.

A part of each runs with all tests; SBE_SOC=all, as `make rig-soc` sets it, has more. QEMU makes
its barriers those of the machine that it runs on: order is proven elsewhere (test_barriers.py).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.rigs.guest import RigMissing
from tests.rigs.missing import give_up
from tests.rigs.soc import machine

ALL = os.environ.get("SBE_SOC") == "all"
LIMIT_S = 1200
UNITS = [
    *(f"test_native_{name}.py" for name in ("arguments", "batch", "cache", "endpoints", "life")),
    *(f"test_native_{name}.py" for name in ("request", "signals", "wait")),
    *("test_session_native.py", "test_context.py", "test_crash_record.py", "test_host.py"),
]
MORE_UNITS = ["test_carveout_heap.py", "test_core_lock.py", "test_growth.py", "test_heaps.py"]
MORE_UNITS += ["test_link.py"]
CANNOT = "not somebody_else"  # the namespace has one user
SUITE = ["test_calls.py", "test_formats.py", "test_services.py"]
SUITE_CANNOT = "not ninep_export"  # qemu-user 7.2 has no openat2()

pytestmark = [pytest.mark.rig, pytest.mark.timeout(LIMIT_S + 100)]


def run(script: str, arch: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """One of the scripts beside this file, to its end."""
    return subprocess.run(
        [machine.HERE / script, arch, *words], capture_output=True, text=True, timeout=LIMIT_S
    )


@pytest.fixture(scope="module", params=["arm64", "armhf"])
def debian(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """An architecture, and its Debian."""
    arch = request.param
    try:
        folder = machine.find(arch).debian
    except RigMissing as error:
        give_up(str(error))
    done = run("user.sh", arch, folder, "python3", "-c", "import sbe")
    if done.returncode != 0:
        give_up(f"programs of {arch} can't be run here: {done.stderr.strip()}")
    return arch, folder


def check_pytest(debian: tuple[str, Path], files: Sequence[str], keyword: str) -> None:
    command = ["python3", "-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=short"]
    done = run("user.sh", *debian, *command, *files, "-k", keyword)
    assert done.returncode == 0, done.stdout[-10000:] + done.stderr[-2000:]
    print(done.stdout.splitlines()[-1])


def test_core(debian: tuple[str, Path]) -> None:
    done = run("core.sh", *debian)
    assert done.returncode == 0, done.stdout[-10000:] + done.stderr[-2000:]
    assert "100% tests passed" in done.stdout


def test_units(debian: tuple[str, Path]) -> None:
    files = UNITS + (MORE_UNITS if ALL else [])
    check_pytest(debian, [f"tests/unit/{name}" for name in files], CANNOT)


def test_loopback(debian: tuple[str, Path]) -> None:
    suite = "tests/conformance"
    files = [suite] if ALL else [f"{suite}/{name}" for name in SUITE]
    check_pytest(debian, files, f"loopback and {SUITE_CANNOT}")
