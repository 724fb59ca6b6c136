"""The README's program runs unchanged in both forms: with an embedded remote, and with a daemon."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.ends import daemon

ROOT = Path(__file__).parents[2]


def program() -> str:
    """The first block of Python that connects, and a word on what it connected to."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    for block in blocks:
        if "sbe.connect" in block:
            return f"{block}\nprint('backend', type(link._backend).__name__)\n"
    pytest.skip("README.md has no Python that connects")


def run(socket: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program()],
        env={**os.environ, "SBE_SOCKET": socket, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_with_an_embedded_remote(tmp_path: Path) -> None:
    assert "backend EmbeddedBackend" in run(str(tmp_path / "nobody"))


def test_with_a_daemon() -> None:
    with daemon() as connect:
        with connect() as link:
            path = link._backend.uri.removeprefix("unix:")
        assert "backend DaemonBackend" in run(path)
