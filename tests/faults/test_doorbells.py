"""Doorbells in hostile hands: whoever breaks one hurts nobody but itself.

A doorbell is an eventfd, and its flags are shared by all who hold it: who clears O_NONBLOCK and
fills the counter makes every other holder's write wait for ever. The daemon stands between ends
that do not trust each other, so what it hands out must not allow that.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
import sbe.testing
from sbe import _native
from sbe.errors import LinkClosed
from sbe.link.rings import DEFAULT_GEOMETRY, Geometry, Rings, attach, create_rings
from tests.faults.attacks import application, remote
from tests.integration.varlink_client import SECONDS, Daemon, daemon, readable

ROOT = Path(__file__).resolve().parents[2]
FULL = 2**64 - 2  # of an eventfd: the next write finds no room

ATTACKER = f"""
import contextlib, os, select, sys
from sbe import _native
from tests.integration.varlink_client import VarlinkClient
from tests.faults.test_doorbells import attach_to

def fill(fd):
    with contextlib.suppress(OSError):  # what only listens can't be read nor written
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(fd)  # it has been rung, perhaps
        os.eventfd_write(fd, {FULL})
    os.set_blocking(fd, True)

client = VarlinkClient(sys.argv[1])
client.open("attacker")
echo = client.call("FindService", name="echo", version=0)["service"]
for name in sys.argv[2].split(","):
    opened = client.call("OpenChannel")
    channel = attach_to(opened, 0)
    channel.call(echo, (), b"", {SECONDS})
    assert channel.poll()  # the answer to come rings us
    if name == "close":
        os.close(opened["wake_fd"]), os.close(opened["ring_fd"])
    elif name == "watch":
        watchers = [select.epoll() for _ in range(200)]
        with contextlib.suppress(OSError):  # the kernel has a limit too
            for watcher in watchers:
                watcher.register(opened["wake_fd"], select.EPOLLIN)
    else:
        fill(opened[name])
        if name == "ring_fd":
            continue  # our own writes would wait
    channel.submit(echo, (), b"x").result({SECONDS})  # seen before the remote rings, or as it does
print("done", flush=True)
sys.stdin.read()
os._exit(0)
"""

EVIL_REMOTE = f"""
import contextlib, os, socket, sys
from sbe.serve.life import Life
from sbe.serve.memory import Descriptors
from sbe.transports.seqpacket import SeqpacketTransport

class Evil(Life):
    def channel_open(self, *how):
        bell = os.dup(self._fds[0])
        super().channel_open(*how)
        with contextlib.suppress(OSError):
            os.eventfd_write(bell, {FULL})
        os.set_blocking(bell, True)

    def _idle(self):
        return True  # nor is the doorbell ever quieted

fd = int(sys.argv[sys.argv.index("--control-fd") + 1])
transport = SeqpacketTransport(socket.socket(fileno=fd))
services = {{"echo": lambda payload, *_: payload}}
Evil(transport, Descriptors(), services, name="evil").run(os.eventfd(0))
"""

CALLER = """
import sys
import sbe
with sbe.connect(sys.argv[1]) as link:
    for _ in range(50):
        assert link.call("echo", payload=b"hello", timeout=20).payload == b"hello"
"""


def attach_to(opened: dict[str, int], context: int) -> _native.Channel:
    """The client's end of a channel that the daemon has opened."""
    rings = Rings(
        Geometry(opened["slots"], opened["slot_size"]),
        *(opened[name] for name in ("line", "send_offset", "receive_offset", "size")),
        *(opened[name] for name in ("memory_fd", "ring_fd", "wake_fd")),
    )
    return attach(rings, _native.Table(64), opened["channel"], context)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Daemon]:
    with daemon(tmp_path) as started:
        yield started


@contextlib.contextmanager
def attacker(running: Daemon, attacks: str) -> Iterator[None]:
    """A client process that has made its attacks, and stays."""
    command = [sys.executable, "-c", ATTACKER, str(running.socket), attacks]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"done\n"
            yield
        finally:
            process.kill()


@pytest.mark.parametrize(
    "attacks", ["wake_fd", "ring_fd", "close", "watch", "wake_fd,ring_fd,wake_fd"]
)
@application(14, 18, 21)
def test_a_client_that_breaks_its_doorbells_stops_nobody(running: Daemon, attacks: str):
    remote = running.remote_pid()
    with sbe.connect(f"unix:{running.socket}") as bystander:
        with attacker(running, attacks):
            for size in range(50):
                payload = os.urandom(size)
                assert bystander.call("echo", payload=payload, timeout=SECONDS).payload == payload
            bystander.find("crc32")  # the remote's control side goes on too
        for _ in range(50):
            assert bystander.call("echo", payload=b"after", timeout=SECONDS).payload == b"after"
    running.wait_until_empty()
    assert running.remote_pid() == remote  # it was not started again either


@application(14, 18, 21)
def test_a_client_can_only_listen_for_its_doorbell(running: Daemon):
    with running.client() as client:
        client.open()
        opened = client.call("OpenChannel")
        with pytest.raises(OSError, match="Invalid argument"):
            os.eventfd_write(opened["wake_fd"], 1)
        with pytest.raises(OSError, match="Invalid argument"):
            os.eventfd_read(opened["wake_fd"])
        os.eventfd_write(opened["ring_fd"], 1)


@remote(18, 21)
def test_a_remote_that_breaks_its_doorbell_stops_no_client(tmp_path: Path):
    script = tmp_path / "remote"
    script.write_text(f"#!{sys.executable}\n{EVIL_REMOTE}")
    script.chmod(0o755)
    environment = {"PYTHONPATH": str(ROOT)}
    config = f"[[link]]\ncommand = ['{script}']\n"
    with daemon(tmp_path, config, environment=environment) as running:
        command = [sys.executable, "-c", CALLER, f"unix:{running.socket}"]
        done = subprocess.run(command, cwd=ROOT, timeout=SECONDS, check=False)
        assert done.returncode == 0, running.log()


# -- the channel's own end -------------------------------------------------------------------------


@pytest.fixture(params=["eventfd", "listener"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[_native.Channel, int]]:
    """A channel with nobody at its other end, and the eventfd that rings it."""
    rings = create_rings(DEFAULT_GEOMETRY, 64)
    with rings.remote_doorbells(apart=request.param == "listener") as (_, bell):
        bell = os.dup(bell)
    yield attach(rings, _native.Table(1), 1, 0), bell
    os.close(bell)
    rings.close()


def in_epoll_wait(thread: threading.Thread) -> bool:
    """As the kernel tells; where it doesn't, asleep at all."""
    task = Path(f"/proc/self/task/{thread.native_id}")
    where = (task / "wchan").read_text()
    return "poll" in where if where != "0" else (task / "stat").read_text().split()[2] == "S"


def test_failing_a_channel_wakes_its_sleeper_whatever_its_doorbell_does(
    ends: tuple[_native.Channel, int],
):
    """With nothing in flight there is no timer, so only the end of the channel wakes it."""
    channel, bell = ends

    def sleep() -> None:
        with contextlib.suppress(LinkClosed):
            channel.next_request()

    sleeper = threading.Thread(target=sleep, daemon=True)
    sleeper.start()
    while not in_epoll_wait(sleeper):
        os.sched_yield()
    os.eventfd_write(bell, FULL)  # which wakes it once
    os.set_blocking(bell, True)
    while not in_epoll_wait(sleeper):
        os.sched_yield()
    channel.fail(LinkClosed("enough"))
    sleeper.join(SECONDS)
    assert not sleeper.is_alive()


def test_polling_quiets_either_kind_of_doorbell(ends: tuple[_native.Channel, int]):
    channel, bell = ends
    for _ in range(3):
        assert not readable(channel.fileno(), 0)
        os.eventfd_write(bell, 1)
        assert readable(channel.fileno())
        assert channel.poll()
