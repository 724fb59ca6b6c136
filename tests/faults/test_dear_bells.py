"""A client that makes each ring of its bell cost the remote: it waits, and nobody else does."""

from __future__ import annotations

import ctypes
import os
import resource
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sbe
from sbe import _native
from sbe.link.rings import Geometry, Rings, attach, listener
from tests.integration.varlink_client import SECONDS, VarlinkClient, daemon

THREADS = 10
MOST = 19_000  # entries of one poll(), which RLIMIT_NOFILE bounds
POLLIN = 1
RINGS = 12
DEAR_NS = 1_000_000
LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def polled_by_many(fd: int) -> Iterator[Callable[[], None]]:
    """All of it legal: the same descriptor, again and again, in some calls of poll().

    What is yielded waits until all of these sleep.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    count = min(limit[1], MOST)
    stop, stopped = os.pipe()
    entries = (struct.pack("ihh", stop, POLLIN, 0), struct.pack("ihh", fd, POLLIN, 0))
    array = entries[0] + entries[1] * (count - 1)
    ended = threading.Event()

    sleepers: list[Path] = []
    bell = select.epoll.fromfd(fd)

    def poll() -> None:
        sleepers.append(Path(f"/proc/self/task/{threading.get_native_id()}/stat"))
        mine = ctypes.create_string_buffer(array, len(array))
        while not ended.is_set():
            LIBC.poll(mine, ctypes.c_ulong(count), -1)

    threads = [threading.Thread(target=poll) for _ in range(THREADS)]
    for thread in threads:
        thread.start()

    def wait_asleep() -> None:
        end = time.monotonic() + SECONDS
        while len(sleepers) < THREADS or not all(map(asleep, sleepers)):
            assert time.monotonic() < end
            bell.poll(0.001, 1)  # which takes that it was rung

    try:
        yield wait_asleep
    finally:
        ended.set()
        os.close(stopped)
        for thread in threads:
            thread.join()
        os.close(stop)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def cpu_ns(pid: int | str) -> int:
    """That a process has had, or a thread of ours, "self/task/N"."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def asleep(stat: Path) -> bool:
    """By its line in /proc."""
    return stat.read_text().rpartition(")")[2].split()[0] == "S"


def attached(client: VarlinkClient) -> tuple[_native.Channel, int, Callable[[], None]]:
    """A channel of a client, the descriptor that waits for its bell, and what asks for a ring at
    the next answer, whether anybody sleeps then or not.
    """
    opened = client.open("evil")
    new = client.call("OpenChannel")
    rings = Rings(
        Geometry(new["slots"], new["slot_size"]),
        new["line"],
        new["send_offset"],
        new["receive_offset"],
        new["size"],
        new["memory_fd"],
        new["ring_fd"],
        new["wake_fd"],
    )
    layout = _native.layout()["sbe_ring_consumer"]
    line = new["offset"] + new["receive_offset"] + new["line"]

    def arm() -> None:
        taken = os.pread(new["memory_fd"], 4, line + layout["tail"][0])
        os.pwrite(new["memory_fd"], taken, line + layout["data_wake"][0])

    channel = attach(rings, _native.Table(1), new["channel"], opened["context"])
    return channel, new["wake_fd"], arm


def test_who_makes_its_bell_dear_waits_alone(tmp_path: Path) -> None:
    with (
        daemon(tmp_path) as running,
        running.client() as client,
        sbe.connect(f"unix:{running.socket}") as good,
    ):
        remote = running.remote_pid()
        channel, wake_fd, arm = attached(client)
        echo = client.call("FindService", name="echo", version=0)["service"]
        good.call("echo")
        with polled_by_many(wake_fd) as wait_asleep:

            def cost_of(call: Callable[[], sbe.Reply]) -> int:
                wait_asleep()
                before = cpu_ns(remote)
                assert call().payload == b"x"
                return cpu_ns(remote) - before

            def evil() -> sbe.Reply:
                arm()
                return channel.call(echo, (), b"x", SECONDS)

            first = max(cost_of(evil) for _ in range(3))
            assert first > DEAR_NS
            assert sum(cost_of(evil) for _ in range(RINGS)) < RINGS * first / 4
            assert cost_of(lambda: good.call("echo", payload=b"x", timeout=SECONDS)) < DEAR_NS
        assert channel.call(echo, (), b"x", SECONDS).payload == b"x"
        channel.fail(sbe.LinkClosed("the test is over"))


def test_whoever_carries_doorbells_does_not_wait_either() -> None:
    """The daemon's thread, where the remote can't ring itself."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    before = {*os.listdir("/proc/self/task")}
    doorbells = _native.Doorbells(near.fileno())
    (thread,) = {*os.listdir("/proc/self/task")} - before
    flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC
    ring_fd, dear_bell, good_bell = (os.eventfd(0, flags) for _ in range(3))
    wake_fd = listener(dear_bell)
    doorbells.add(1, ring_fd, dear_bell)
    doorbells.add(2, ring_fd, good_bell)
    stat = Path(f"/proc/self/task/{thread}/stat")

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.001)

    with near, far, polled_by_many(wake_fd) as wait_asleep:

        def cost_of(channel: int) -> int:
            wait_asleep()
            spent, come = cpu_ns(f"self/task/{thread}"), doorbells.counters()["tokens_received"]
            far.send(bytes([0x80 | channel << 1]))  # its token
            wait(lambda: doorbells.counters()["tokens_received"] > come and asleep(stat))
            return cpu_ns(f"self/task/{thread}") - spent

        first = max(cost_of(1) for _ in range(3))
        assert first > DEAR_NS
        assert sum(cost_of(1) for _ in range(RINGS)) < RINGS * first / 4
        assert cost_of(2) < DEAR_NS
        assert os.eventfd_read(good_bell) == 1
    doorbells.close()
    for fd in (ring_fd, dear_bell, good_bell, wake_fd):
        os.close(fd)
