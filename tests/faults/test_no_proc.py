"""A machine, or a container, without /proc: everything that a link needs comes from elsewhere."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sbe.testing.conformance.parts import LIMIT_S
from tests.integration.varlink_client import daemon
from tests.rigs.boards import require_board

# In a mount namespace of its own, where an empty folder covers it.
WITHOUT = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
COVER = 'mount -t tmpfs none /proc; exec "$@"'

APPLICATION = """
import os, sys, sbe
assert not os.listdir("/proc")
with sbe.connect(sys.argv[1]) as link:
    area = link.allocate(4096)
    area[:3] = b"abc"
    assert len(link.call("crc32", sbe.In(area[:3]), timeout=10.0).payload) == 4
    names = [each["client"] for each in link.list()["contexts"] if each["id"] == link.context]
    assert names == [sys.argv[2]], names
    link.stat()
"""


@functools.cache
def why_not() -> str | None:
    if shutil.which("unshare") is None:
        return "unshare is not there (sudo apt install util-linux)"
    tried = subprocess.run([*WITHOUT, COVER, "sh", "true"], capture_output=True, text=True)
    return tried.stderr.strip() or None if tried.returncode else None


@pytest.fixture(autouse=True)
def _needs_a_namespace() -> None:
    why = why_not()
    if why is not None:
        pytest.skip(f"/proc can't be covered here: {why}")


def run(code: str, *arguments: str) -> None:
    with tempfile.TemporaryDirectory(prefix="sbe") as folder:
        path = Path(folder) / "application.py"
        path.write_text(code)
        process = subprocess.run(
            [*WITHOUT, COVER, "sh", sys.executable, str(path), *arguments],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env={**os.environ, "XDG_RUNTIME_DIR": folder},
        )
    assert process.returncode == 0, process.stderr


def test_the_embedded_remote() -> None:
    run(APPLICATION, "loopback:", "application.py")


def test_a_board() -> None:
    require_board("mps2-an521")
    run(APPLICATION, "qemu:mps2-an521", "application.py")


def test_a_daemon_and_its_client(tmp_path: Path) -> None:
    with daemon(tmp_path, launcher=[*WITHOUT, COVER, "sh"]) as running:
        run(APPLICATION, f"unix:{running.socket}", "application.py")


def test_what_needs_it_says_so() -> None:
    run(
        """
import pytest
from sbe import errors
from sbe.remotes.boards import Resident, resident
from sbe.heaps import dmabuf
assert dmabuf._available_bytes() > 0
with pytest.raises(errors.LinkError, match="/proc, which is not mounted here"):
    resident._started(1)
"""
    )
