# SPDX-License-Identifier: Apache-2.0
"""The plugin from outside: what a test in the guest comes to, as the user sees it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rigs.kernel import guest
from tests.rigs.missing import give_up

pytestmark = pytest.mark.rig

TESTS = """
import ctypes
import os
import threading
import pytest
pytestmark = pytest.mark.kernel

def test_good():
    assert "SBE_RIG_GUEST" in os.environ

def test_bad():
    assert 1 + 1 == 3

def test_kernel_complains():
    with open("/dev/kmsg", "w") as log:
        log.write("<4>WARNING: CPU: 0 PID: 1 at drivers/example.c:1\\n")

def test_kernel_dies():
    ctypes.CDLL(None).reboot(0x4321FEDC)

def test_next_one_runs_again():
    pass

@pytest.mark.timeout(0.5)
def test_hangs():
    threading.Event().wait()

@pytest.mark.skip(reason="of its own")
def test_skipped():
    pass
"""


@pytest.fixture
def kernel() -> Path:
    try:
        return guest.find()
    except guest.RigMissing as error:
        give_up(str(error))


ALONE = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_XDIST")}


def run_pytest(path: Path, *options: str, **environment: str) -> str:
    """pytest over a file, or a folder and what is in it."""
    folder = path if path.is_dir() else path.parent
    (folder / "pytest.ini").write_text(
        "[pytest]\nmarkers = kernel\nasyncio_default_fixture_loop_scope = function\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.rigs.kernel.plugin"),
            *("-p", "tests.rigs.missing", "-v", "-ra", "-p", "no:cacheprovider", *options),
            str(path),
        ],
        cwd=folder,
        env={**ALONE, "PYTHONPATH": str(guest.ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=50,
    )
    return done.stdout + done.stderr


def test_reports_come_back(kernel: Path, tmp_path: Path):
    path = tmp_path / "test_inner.py"
    path.write_text(TESTS)
    output = run_pytest(path)
    assert "test_good PASSED" in output
    assert "test_bad FAILED" in output
    assert "assert (1 + 1) == 3" in output
    assert "test_kernel_complains FAILED" in output
    assert "the kernel complained during this test" in output
    assert "test_kernel_dies FAILED" in output
    assert "the guest ended" in output
    assert "test_next_one_runs_again PASSED" in output
    assert "test_hangs FAILED" in output
    assert "Timeout (>0.5s) from pytest-timeout" in output
    assert "INTERNALERROR" not in output
    assert "1 skipped" in output


def test_neighbours_of_a_kernel_test_are_set_up_and_torn_down(tmp_path: Path):
    """Needs no kernel: the test is skipped, and its folder was set up by the plain one in it."""
    (tmp_path / "a").mkdir()
    plain = "def test_plain():\n    pass\n"
    (tmp_path / "a" / "test_a.py").write_text(plain)
    marked = "import pytest\n@pytest.mark.kernel\ndef test_marked():\n    pass\n"
    (tmp_path / "a" / "test_b.py").write_text(marked)
    (tmp_path / "test_c.py").write_text(plain)
    cache = str(tmp_path / "cache")
    output = run_pytest(tmp_path, XDG_CACHE_HOME=cache, SBE_RIGS="")
    assert "2 passed, 1 skipped" in output


MANY = """
import pytest
pytestmark = pytest.mark.kernel
@pytest.mark.parametrize("number", range(6))
def test_it(number):
    pass
"""


def test_missing_kernel_skips_or_fails_once(tmp_path: Path):
    """Also in several processes: one failure with one reason."""
    path = tmp_path / "test_inner.py"
    path.write_text(MANY)
    empty = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    skipped = run_pytest(path, **empty, SBE_RIGS="")
    assert "6 skipped" in skipped
    assert "make rig-kernel" in skipped
    assert "1 failed, 5 skipped" in run_pytest(path, **empty, SBE_RIGS="required")
    assert "1 failed, 5 skipped" in run_pytest(path, "-n", "2", **empty, SBE_RIGS="required")


def test_kernel_that_does_not_boot_is_one_failure(tmp_path: Path):
    path = tmp_path / "test_inner.py"
    path.write_text(MANY)
    (tmp_path / "linux").write_text("#!/bin/sh\necho this CPU will not do\nexit 1\n")
    (tmp_path / "linux").chmod(0o755)
    (tmp_path / "conftest.py").write_text(
        "from pathlib import Path\n"
        "from tests.rigs.kernel import plugin\n"
        "plugin.find = lambda: Path(__file__).parent\n"
    )
    output = run_pytest(path, "-n", "2", SBE_RIGS="required")
    assert "1 failed, 5 skipped" in output
    assert "the rig's kernel does not boot: the guest ended" in output
    assert "this CPU will not do" in output
    assert "6 skipped" in run_pytest(path, SBE_RIGS="")


def test_command_and_its_status(kernel: Path):
    result = guest.run(kernel, ["sh", "-c", "echo hello; exit 7"], timeout_s=30)
    assert (result.status, result.output, result.faults) == (7, "hello\n", [])
    assert f"Linux version {kernel.name.split('-')[1]} " in result.kernel_log


def test_hanging_guest_is_killed(kernel: Path):
    with guest.Guest(kernel, ["sleep", "1000"]) as box:
        with pytest.raises(guest.GuestDied, match="did not end within"):
            box.wait(3)
        work = box.work
    assert not work.exists()
