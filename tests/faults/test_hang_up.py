"""A remote that closes its connection and goes on: nobody else waits for what becomes of it."""

from __future__ import annotations

import select
import sys
import time
from pathlib import Path

import pytest

import sbe
from sbe.link.link import Link
from sbe.remotes.process import RemoteProcess
from tests.conformance.ends import RESTART, daemon_process
from tests.faults.attacks import remote

LIMIT_S = 20.0
STAYS = "import os, sys, time\nos.close(int(sys.argv[2]))\ntime.sleep(1000)\n"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "stays"
    path.write_text(f"#!{sys.executable}\n{STAYS}")
    path.chmod(0o755)
    return path


def test_a_link_goes_on_meanwhile(program: Path) -> None:
    with RemoteProcess(program) as process, Link(process.connect) as link:
        ready = link.start()
        assert select.select([link.fileno()], [], [], LIMIT_S)[0]
        link.process()
        assert not ready.done  # not yet known, and nobody has waited
        assert process.alive
        with pytest.raises(sbe.RemoteRestarted, match="went on; killed by signal 9"):
            link.wait(ready, LIMIT_S)
        assert not process.alive


@remote(17, 25)
def test_other_links_of_a_daemon_are_served_meanwhile(program: Path) -> None:
    configuration = (
        f"[[link]]\nname = 'good'\n[[link]]\nname = 'stays'\ncommand = ['{program}']\n{RESTART}"
    )
    with daemon_process(configuration) as uri, sbe.connect(uri) as link:
        slow = lives = 0
        while lives < 4:
            begun = time.monotonic()
            restarts = {entry["name"]: entry["restarts"] for entry in link.stat()["links"]}
            lives = restarts["stays"]
            slow += time.monotonic() - begun > 0.7
            time.sleep(0.02)
        assert slow < 3  # each of its lives would hold all up for a second
        assert link.call("echo", payload=b"on").payload == b"on"
