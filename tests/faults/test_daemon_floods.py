"""Users who want more of the daemon than is theirs: nobody else notices it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
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


@contextlib.contextmanager
def other_user() -> Iterator[None]:
    """Connections are another user's."""
    os.setegid(OTHER)
    os.seteuid(OTHER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def as_other(running: Daemon) -> VarlinkClient:
    """A connection of another user."""
    with other_user():
        return running.client()


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


@application(7, 18, 26)
@pytest.mark.parametrize("service", ["relay", "tone"])
def test_one_user_does_not_have_all_places_of_a_service(public_folder: Path, service: str):
    """However many contexts it has them in."""
    never = threading.Event()
    mono = sbe.StreamFormat("int16", 1, 8000)
    running = public(public_folder, "[policy.default]\nchannels = 2000\nareas = 2000\n")
    uri = f"unix:{running.socket}"
    with contextlib.ExitStack() as ends:
        ends.callback(running.close)
        bystander = ends.enter_context(sbe.connect(uri))
        bystander.serve("echoed", lambda payload: payload)
        calls, streams, refused = [], [], 0
        for _ in range(10):
            with other_user():
                link = ends.enter_context(sbe.connect(uri))
            ends.callback(never.set)  # before it is closed, which waits for its handlers
            link.serve("never", lambda payload: bytes(never.wait(60)))
            if service == "relay":
                calls += [link.submit("relay", payload=b"never\0", timeout=None) for _ in range(8)]
                link.call("echo")
                continue
            for _ in range(32):
                try:
                    streams.append(link.open_stream("tone", "capture", mono, buffer_frames=160))
                except sbe.RemoteError:
                    refused += 1
        assert refused + sum(call.done() for call in calls) > 0
        if service == "relay":
            assert bystander.call("relay", payload=b"echoed\0here").payload == b"here"
        else:
            bystander.open_stream("tone", "capture", mono).close()
