"""Every system call of every control operation fails once and is interrupted once.

What is raised is ours, and afterwards there are as many descriptors, mappings, areas, channels and
contexts as before: here, at the remote and at the daemon.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.varlink_client import daemon
from tests.rigs.boards import require_board

HERE = Path(__file__).parent
BOARD = "mps2-an385"
LIMIT_S = 240.0  # turns a hang into a failure; it takes some seconds


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler (sudo apt install gcc)")
    built = tmp_path / "failing_calls.so"
    source = HERE / "failing_calls.c"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", built, source, "-ldl"], check=True
    )
    return built


@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer is preloaded already")
@pytest.mark.parametrize("end", ["loopback", "daemon", pytest.param(BOARD, marks=pytest.mark.rig)])
def test_each_call_that_fails_or_is_interrupted_leaves_nothing(
    end: str, shim: Path, tmp_path: Path
):
    def run(uri: str) -> None:
        done = subprocess.run(
            [sys.executable, HERE / "failing_calls.py", uri],
            env=os.environ | {"LD_PRELOAD": str(shim)},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        *wrong, last = done.stdout.splitlines() or [""]
        assert done.returncode == 0, done.stdout + done.stderr
        assert last.startswith("tried ")
        assert not wrong, "\n".join(wrong)

    if end == BOARD:
        require_board(BOARD)
        run(f"qemu:{BOARD}")
        return
    if end == "loopback":
        run("loopback:")
        return
    with daemon(tmp_path, "[policy.default]\npower = true\n") as running:
        run(f"unix:{running.socket}")
        running.wait_until_empty()
