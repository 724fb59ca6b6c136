"""Users who want more of the daemon than is theirs: nobody else notices it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbe.daemon.log import LINES_MAX
from sbe.sdk.varlink import VarlinkClient as SdkClient
from tests.faults.attacks import application
from tests.integration.varlink_client import SECONDS, Daemon, Refused, VarlinkClient, daemon

OTHER = 65533
PUBLIC = '[daemon]\nmode = "0666"\n'

FLOOD = f"""
import os, socket, sys
os.setgroups([]), os.setgid({OTHER}), os.setuid({OTHER})
held = []
print("floods", flush=True)
while True:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        sock.connect(sys.argv[1])
    except BlockingIOError:
        sock.close()
    else:
        held.append(sock)
    if len(held) > 200:
        for old in held[:150]:
            old.close()
        del held[:150]
"""


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter, which tmp_path is not."""
    if os.getuid() != 0:
        pytest.skip("being several users needs root")
    folder = Path(tempfile.mkdtemp(prefix="sbe-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def public(folder: Path, more: str = "") -> Daemon:
    running = Daemon(folder, PUBLIC + more)
    running.socket.parent.chmod(0o755)
    return running


def as_other(running: Daemon) -> VarlinkClient:
    """A connection of another user."""
    os.setegid(OTHER)
    os.seteuid(OTHER)
    try:
        return running.client()
    finally:
        os.seteuid(0)
        os.setegid(0)


@application(7, 12, 15)
def test_a_flood_of_connects_locks_nobody_out(public_folder: Path):
    running = public(public_folder)
    floods = [
        subprocess.Popen([sys.executable, "-c", FLOOD, str(running.socket)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        for flood in floods:
            assert flood.stdout is not None
            assert flood.stdout.readline() == b"floods\n"
        running.wait_until(lambda: "connection refused" in running.log())
        for _ in range(10):
            client = SdkClient(str(running.socket), SECONDS)
            client.call("List")
            client.close()
        assert all(flood.poll() is None for flood in floods)
    finally:
        for flood in floods:
            flood.kill()
            flood.communicate()
        running.close()
    assert running.log().count("connection refused") <= 10 * LINES_MAX


@application(17, 20)
def test_refusals_do_not_fill_the_log(tmp_path: Path):
    """As many as anybody likes: the most of them is a number."""
    with daemon(tmp_path, "[policy.default]\nconnections = 1\n") as running:
        with running.client() as first:
            first.call("List")
            for _ in range(5 * LINES_MAX):
                with running.client() as refused, pytest.raises(Refused, match="quota connections"):
                    refused.receive()
        lines = running.log().count("connection refused")
        assert 1 <= lines <= 2 * LINES_MAX


@application(7, 12, 15)
def test_the_last_connections_are_for_users_who_have_none(public_folder: Path):
    running = public(public_folder, "max_connections = 16\n")
    try:
        held = []
        for _ in range(14):
            held.append(running.client())
            held[-1].call("List")
        with running.client() as refused, pytest.raises(Refused, match="for users who have none"):
            refused.receive()
        with as_other(running) as first:
            first.call("List")
            with as_other(running) as second, pytest.raises(Refused, match="have none"):
                second.receive()
        for client in held:
            client.close()
    finally:
        running.close()


@application(17, 20)
def test_a_crowd_finds_room_before_it_is_accepted(tmp_path: Path):
    with daemon(tmp_path) as running:
        os.kill(running.pid, signal.SIGSTOP)
        crowd = []
        try:
            for _ in range(500):
                crowd.append(socket.socket(socket.AF_UNIX))
                crowd[-1].setblocking(False)
                crowd[-1].connect(str(running.socket))
        finally:
            os.kill(running.pid, signal.SIGCONT)
            for sock in crowd:
                sock.close()


def take_all(client: VarlinkClient, method: str, **parameters: int) -> Refused:
    """As many as there are; what is told then."""
    while True:
        try:
            client.call(method, **parameters)
        except Refused as refused:
            return refused
        finally:
            while client.fds:
                os.close(client.fds.pop())


@application(7, 12, 15)
def test_a_user_who_takes_all_descriptors_leaves_some_for_others(public_folder: Path):
    limited = ["sh", "-c", 'ulimit -n 160; exec "$@"', "sh"]
    running = Daemon(public_folder, PUBLIC, launcher=limited)
    try:
        running.socket.parent.chmod(0o755)
        remote = running.remote_pid()
        with running.client() as greedy:
            greedy.open()
            told = [take_all(greedy, "Allocate", size=4096), take_all(greedy, "OpenChannel")]
            os.kill(remote, signal.SIGKILL)  # what comes then has to be possible too
            running.wait_until(lambda: running.log().count("is connected") == 2)
            with as_other(running) as honest:
                honest.open()
                honest.call("Allocate", size=4096)
                honest.call("OpenChannel", slots=2, slot_size=64)
        assert all("no file descriptors left for this" in refused.message for refused in told)
        assert "what [policy.default] gives one user takes" in running.log()
        assert "can't accept" not in running.log()
    finally:
        running.close()
