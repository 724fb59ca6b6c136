# SPDX-License-Identifier: Apache-2.0
"""The core's tests with threads, built for AArch64 and run by qemu-user.

This proves that the code works there, and nothing about its barriers: QEMU turns each into one of
the machine it runs on, and an x86 orders more than Arm does by itself. The order is proven by the
instructions (tests/unit/test_barriers.py) and by the litmus tests in tests/model.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.rigs.missing import require

ROOT = Path(__file__).resolve().parents[2]
COMPILER = "aarch64-linux-gnu-gcc"
SOURCES = [
    *(f"firmware/core/{name}.c" for name in ("ring", "channel", "area")),
    *(f"firmware/asg/{name}.c" for name in ("flow", "client", "server")),
]
THREADED = sorted((ROOT / "tests" / "core").glob("test_*_threads.c"))
LIMIT_S = 300

pytestmark = pytest.mark.rig


def test_there_are_tests_with_threads() -> None:
    assert {path.stem for path in THREADED} >= {"test_ring_threads", "test_channel_threads"}


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("source", THREADED, ids=lambda path: path.stem)
def test_threads_work_on_aarch64(source: Path, tmp_path: Path) -> None:
    for tool, packages in (
        (COMPILER, "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
        ("qemu-aarch64", "qemu-user"),
    ):
        require(shutil.which(tool) is not None, f"no {tool} (sudo apt install {packages})")
    program = tmp_path / source.stem
    flags = ["-std=c11", "-D_GNU_SOURCE", "-DSLOW", "-O2", "-static", "-pthread", "-Ifirmware"]
    built = subprocess.run(
        [COMPILER, *flags, "-o", str(program), str(source), *SOURCES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        ["qemu-aarch64", str(program)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "doorbells" in done.stdout
