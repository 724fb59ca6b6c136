"""What the daemon may, and what it could still do once something has gone wrong in it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.integration.varlink_client import Daemon, daemon

NOTHING = "0000000000000000"


def rights(pid: int) -> list[dict[str, str]]:
    """Of every thread of a process."""
    return [
        dict(re.findall(r"^(Cap\w+|NoNewPrivs):\s+(\w+)$", task.read_text(), re.M))
        for task in Path(f"/proc/{pid}/task").glob("*/status")
    ]


@pytest.fixture(autouse=True)
def _root() -> None:
    if rights(os.getpid())[0]["CapPrm"] == NOTHING:
        pytest.skip("this user has no capabilities that could be given up")


def check_dropped(running: Daemon) -> None:
    for pid in (running.pid, running.remote_pid()):
        for thread in rights(pid):
            assert thread["CapEff"] == thread["CapPrm"] == thread["CapInh"] == NOTHING
            assert thread["NoNewPrivs"] == "1"


def test_capabilities_that_are_not_needed_are_given_up(tmp_path: Path):
    with daemon(tmp_path) as running:
        check_dropped(running)
        os.kill(running.remote_pid(), signal.SIGKILL)  # the next one has no more
        running.wait_until(lambda: running.log().count("is connected") == 2)
        with running.client() as client:
            client.open()
            client.call("OpenChannel")
        check_dropped(running)


def test_a_program_of_the_integrator_keeps_what_root_has(tmp_path: Path):
    with daemon(tmp_path, "[[link]]\n[link.power]\ncommand = ['/bin/true']\n") as running:
        assert rights(running.pid)[0]["CapPrm"] == rights(os.getpid())[0]["CapPrm"]
