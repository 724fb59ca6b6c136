"""The daemon or one of its clients dies with calls in flight, or is not to be reached."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sbe
from sbe.control import PROTOCOL
from tests.integration.varlink_client import Daemon, VarlinkClient, daemon

PATIENCE_S = 30.0  # bounds what must not hang; nothing waits that long when all is well


def check_works(link: sbe.Connection) -> None:
    assert link.call("echo", payload=b"still here", timeout=PATIENCE_S).payload == b"still here"


def test_daemon_killed(tmp_path: Path):
    with daemon(tmp_path) as running, sbe.connect(f"unix:{running.socket}") as link:
        link.find("echo")
        os.kill(running.remote_pid(), signal.SIGSTOP)  # it dies with the daemon all the same
        call = link.submit("echo", timeout=None)
        running.process.kill()
        with pytest.raises(sbe.LinkError) as lost:
            call.result(PATIENCE_S)
        assert isinstance(lost.value, (sbe.DaemonGone, sbe.RemoteRestarted))
        with pytest.raises(sbe.LinkError):
            link.call("echo", timeout=PATIENCE_S)
        with pytest.raises(sbe.DaemonGone, match="connect again"):
            link.call("echo", timeout=PATIENCE_S)


CLIENT = """
import sys, sbe
link = sbe.connect(sys.argv[1])
area = link.allocate(1 << 20)
calls = [link.submit("crc32", sbe.In(area), timeout=None) for _ in range(50)]
print("in flight", flush=True)
sys.stdin.read()
"""


def test_client_killed_with_calls_in_flight(tmp_path: Path):
    with (
        daemon(tmp_path) as running,
        sbe.connect(f"unix:{running.socket}") as bystander,
    ):
        check_works(bystander)
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, f"unix:{running.socket}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert client.stdout is not None
        assert client.stdout.readline() == b"in flight\n"
        assert len(bystander.list()["contexts"]) == 2
        client.kill()
        client.communicate()
        wait_until_alone(running, bystander)
        check_works(bystander)


def wait_until_alone(running: Daemon, bystander: sbe.Connection) -> None:
    """The daemon lets go of the dead client once the remote has; each List is a round to it."""
    for _ in range(10_000):
        found = bystander.list()
        if len(found["contexts"]) == 1:
            assert found["areas"] == []
            return
    pytest.fail("the dead client's context is still there")


NOBODY = """
import grp, os, sys, sbe, sbe.sdk.daemon_client
sbe.connect("loopback:").close()  # imports what it needs while this user may still read it
os.setgid(65534); os.setuid(65534)
try:
    sbe.connect(sys.argv[1])
except sbe.PermissionDenied as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without permission")
def test_socket_without_permission(tmp_path: Path):
    with daemon(tmp_path) as running:
        running.socket.chmod(0o600)
        for place in [running.socket.parent, *running.socket.parents]:
            if place == Path("/tmp"):
                break
            place.chmod(place.stat().st_mode | 0o011)
        done = subprocess.run(
            [sys.executable, "-c", NOBODY, f"unix:{running.socket}"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    assert "no permission on the daemon's socket" in done.stdout, done.stderr
    assert "group" in done.stdout


STUCK = """
[[link]]
name = "embedded"
transport = "embedded"
[[link]]
name = "absent"
transport = "carveout"
memory = "{folder}/no-memory"
doorbell = "unix:{folder}/no-doorbell"
trust_clients = true
"""


def test_stopped_under_operations_of_clients(tmp_path: Path):
    with (
        daemon(tmp_path, STUCK.format(folder=tmp_path)) as running,
        contextlib.ExitStack() as stack,
    ):

        def client() -> VarlinkClient:
            return stack.enter_context(running.client())

        pid = next(link["pid"] for link in running.list()["links"] if link["name"] == "embedded")
        waiting, opening, *busy = [client() for _ in range(8)]
        waiting.send("Open", protocol=PROTOCOL, name="waits for its remote", link="absent")
        for each in busy:
            each.open()
        area = busy[0].call("Allocate", size=4096)["area"]
        channel = busy[1].call("OpenChannel")["channel"]
        os.kill(pid, signal.SIGSTOP)
        opening.send("Open", protocol=PROTOCOL, name="opens")
        busy[0].send("Free", area=area)
        busy[1].send("CloseChannel", channel=channel)
        busy[2].send("Allocate", size=4096)
        busy[3].send("OpenChannel")
        busy[4].send("FindService", name="echo", version=0)
        busy[5].send("ListServices")
        for _ in range(2):
            running.stat()  # the loop has gone round: all of them are under way
        assert running.stop() == 0
        log = running.log()
        assert "Traceback" not in log
        assert " error " not in log.partition("stopping")[2]
