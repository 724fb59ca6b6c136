"""The remote is killed or frozen: every call ends with its own error, and the link comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sbe
from sbe.remotes.boards import QemuBoard
from sbe.testing.conformance.parts import shown
from sbe.testing.conformance.services import ref_crc32
from tests.conformance.ends import Connector

LIMIT_S = 30.0
SOON_S = 5.0  # "at once", on a machine that is busy with other tests


def remote_pid(link: sbe.Connection) -> int:
    (entry,) = link.list()["links"]
    return int(entry["pid"])


@pytest.fixture
def victim(connect: Connector) -> sbe.Connection:
    """A link whose remote is a process that may be killed."""
    if not connect.firmware:
        pytest.skip("its remote is a thread")
    link = connect()
    link.find("echo")
    link.find("crc32")
    link.find("relay")
    return link


class Process:
    """The remote's process: frozen, killed."""

    def __init__(self, link: sbe.Connection, board: QemuBoard | None = None) -> None:
        self._board = board
        """One that nobody else starts again."""
        self.pid = (board and board.pid) or remote_pid(link)

    def _until_state(self, states: str) -> None:
        until = time.monotonic() + LIMIT_S
        while True:
            try:
                fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            except FileNotFoundError:
                return
            if fields[0] in states:
                return
            assert time.monotonic() < until
            time.sleep(0.001)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self._until_state("T")

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        if self._board is not None:
            self._board.start()


@pytest.fixture
def process(victim: sbe.Connection, connect: Connector) -> Process:
    return Process(victim, connect.board)


def comes_back(link: sbe.Connection, epoch: int, area: sbe.Area, content: bytes) -> None:
    """A new epoch; areas under the same ids with what was in them."""
    number = area.id
    assert link.call("crc32", sbe.In(area), timeout=LIMIT_S).payload == ref_crc32(content)
    assert link.epoch not in (0, epoch)
    assert area.id == number
    assert not area.freed
    assert bytes(area) == content
    fresh = link.allocate(4096)
    assert fresh.id != area.id
    assert link.call("fill", sbe.Out(fresh), payload=b"\7").written == (4096,)
    fresh.free()
    area.free()
    assert link.stat()["connection"]["losses"] == 1


def test_killed_with_many_calls_in_flight(victim: sbe.Connection, process: Process) -> None:
    link, epoch = victim, victim.epoch
    area = link.allocate(4096)
    content = np.random.default_rng(1).bytes(4096)
    area[:] = content
    link.call("echo", sbe.In(bytes(100_000)))  # a frozen remote maps no area to stage in
    process.freeze()
    futures = [link.submit("crc32", sbe.In(area), timeout=None) for _ in range(100)]
    futures += [link.submit("echo", sbe.In(bytes(100_000)), timeout=None)]
    assert area.holds == 100
    process.kill()
    begun = time.monotonic()
    errors = [future.exception(LIMIT_S) for future in futures]
    assert time.monotonic() - begun < SOON_S
    assert {type(error) for error in errors} == {sbe.RemoteRestarted}
    assert "may have run or not" in str(errors[0])
    assert len({id(error) for error in errors}) == len(errors)  # each its own
    assert area.holds == 0
    comes_back(link, epoch, area, content)


def test_how_it_died_is_told(connect: Connector) -> None:
    if connect.name != "loopback":
        pytest.skip("the daemon has the process")
    link = connect()
    link.find("echo")
    process = Process(link)
    process.freeze()
    future = link.submit("echo")
    process.kill()
    with pytest.raises(sbe.RemoteRestarted, match=r"killed by signal 9 \(SIGKILL\)"):
        future.result(LIMIT_S)


def test_killed_under_a_blocking_call_of_each_thread(
    victim: sbe.Connection, process: Process
) -> None:
    link, epoch = victim, victim.epoch
    area = link.allocate(64)
    process.freeze()
    ends: list[str] = []

    def call(i: int) -> None:
        try:
            if i % 2:
                link.call("crc32", sbe.In(area), timeout=None)
            else:
                link.batch("crc32", area.descriptors(sbe.In, np.arange(60), 1), timeout=None)
            ends.append("answered")
        except sbe.Error as error:
            ends.append(type(error).__name__)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + LIMIT_S
    while area.holds < 4 * 60 and time.monotonic() < until:  # the ring is full by then
        time.sleep(0.001)
    process.kill()
    for thread in threads:
        thread.join(LIMIT_S)
    # Who had not begun to send by then may find the new remote.
    assert set(ends) <= {"RemoteRestarted", "answered"}
    assert "RemoteRestarted" in ends
    assert len(ends) == 8
    assert area.holds == 0
    comes_back(link, epoch, area, bytes(64))


async def test_killed_under_asyncio(victim: sbe.Connection, process: Process) -> None:
    link, epoch = victim, victim.epoch
    area = link.allocate(64)
    process.freeze()
    # More than the ring holds: some are in flight, the others wait for room.
    tasks = [
        asyncio.create_task(link.acall("crc32", sbe.In(area), timeout=None)) for _ in range(1000)
    ]
    while area.holds < 200:
        await asyncio.sleep(0)
    process.kill()
    begun = time.monotonic()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert time.monotonic() - begun < SOON_S
    assert {type(error) for error in got} == {sbe.RemoteRestarted}
    reply = await link.acall("crc32", sbe.In(area), timeout=LIMIT_S)
    assert reply.payload == ref_crc32(bytes(64))
    comes_back(link, epoch, area, bytes(64))


def test_killed_while_serving(victim: sbe.Connection, connect: Connector) -> None:
    """The thread blocked in next_request: it serves the new remote as well."""
    link = victim
    link.serve("double", lambda payload: payload * 2)
    assert link.call("relay", payload=b"double\0x").payload == b"xx"
    for _ in range(3):
        epoch = link.epoch
        Process(link, connect.board).kill()
        until = time.monotonic() + LIMIT_S
        while True:
            try:
                if link.call("relay", payload=b"double\0again").payload == b"againagain":
                    break
            except sbe.RemoteRestarted:
                assert time.monotonic() < until
        assert link.epoch != epoch


def test_killed_inside_a_handler(victim: sbe.Connection, process: Process) -> None:
    link = victim

    def die(payload: bytes) -> bytes:
        process.kill()
        return b"for nobody"

    link.serve("die", die)
    with pytest.raises(sbe.RemoteRestarted):
        link.call("relay", payload=b"die\0", timeout=LIMIT_S)
    assert link.call("echo", payload=b"on", timeout=LIMIT_S).payload == b"on"


def test_killed_while_idle(victim: sbe.Connection, process: Process) -> None:
    link, epoch = victim, victim.epoch
    area = link.allocate(64)
    process.kill()
    until = time.monotonic() + LIMIT_S
    while True:
        try:
            link.call("echo", timeout=LIMIT_S)
            break
        except sbe.RemoteRestarted:  # the one call that found out
            assert time.monotonic() < until
    comes_back(link, epoch, area, bytes(64))


OPERATIONS: dict[str, Callable[[sbe.Connection, sbe.Area], Any]] = {
    "allocate": lambda link, area: link.allocate(4096),
    "free": lambda link, area: area.free(),
    "find": lambda link, area: link.find("fir"),
    "services": lambda link, area: link.services(),
    "first call of a service": lambda link, area: link.call("fill", sbe.Out(area), payload=b"x"),
}


@pytest.mark.parametrize("what", OPERATIONS)
def test_killed_during_a_control_operation(connect: Connector, what: str) -> None:
    if connect.name != "loopback":
        pytest.skip("a daemon's own tests do this")
    link = connect()
    area = link.allocate(64)
    process = Process(link)
    process.freeze()
    killer = threading.Timer(0.05, process.kill)
    killer.start()
    begun = time.monotonic()
    with contextlib.suppress(sbe.LinkError):  # or it found the new remote
        OPERATIONS[what](link, area)
    killer.join()
    assert time.monotonic() - begun < SOON_S
    if what != "free":
        area.free()
    assert area.freed
    assert link.call("echo", payload=b"on", timeout=LIMIT_S).payload == b"on"


def test_killed_again_and_again(connect: Connector) -> None:
    if connect.name != "loopback":
        pytest.skip("a daemon waits between restarts")
    link = connect()
    area = link.allocate(1 << 16)
    content = np.random.default_rng(2).bytes(1 << 16)
    area[:] = content
    epochs = {link.epoch}
    counts = []
    for _ in range(15):
        Process(link).kill()
        with pytest.raises(sbe.RemoteRestarted):
            link.call("crc32", sbe.In(area), timeout=LIMIT_S)
        assert link.call("crc32", sbe.In(area), timeout=LIMIT_S).payload == ref_crc32(content)
        epochs.add(link.epoch)
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[-1] <= counts[0]
    assert len(epochs) == 16
    assert link.stat()["connection"]["losses"] == 15


def test_frozen_calls_time_out_and_late_answers_are_ignored(
    victim: sbe.Connection, process: Process
) -> None:
    link, epoch = victim, victim.epoch
    area = link.allocate(4096)
    link.call("echo", sbe.In(bytes(100_000)))
    process.freeze()
    try:
        inline = bytearray(4)
        with pytest.raises(sbe.Timeout, match=r"'crc32' in time.*quarantined"):
            link.call("crc32", sbe.In(area), timeout=0.05)
        future = link.submit("crc32", sbe.In(area), timeout=0.05)
        cancelled = link.submit("crc32", sbe.In(area), sbe.InOut(inline))
        assert cancelled.cancel()
        with pytest.raises(sbe.Timeout):
            future.result()
        assert area.holds == 3
        with pytest.raises(sbe.Busy, match=r"3 unanswered.*quarantined"):
            area.free()
        staged = np.zeros(100_000, np.uint8)
        with pytest.raises(sbe.Timeout):
            link.call("echo", sbe.InOut(staged), timeout=0.05)
        assert not staged.any()
    finally:
        process.thaw()
    assert link.call("echo", payload=b"on", timeout=LIMIT_S).payload == b"on"
    assert area.holds == 0
    assert inline == bytes(4)
    with pytest.raises(sbe.Timeout):
        future.result()
    with pytest.raises(sbe.Cancelled, match="'crc32' was cancelled"):
        cancelled.result()
    assert not cancelled.cancel()
    area.free()
    assert link.epoch == epoch


def test_frozen_control_operations_time_out(connect: Connector) -> None:
    if connect.name != "loopback":
        pytest.skip("a daemon has its own bounds")
    link = connect(timeout=0.2)
    area = link.allocate(4096)
    pixels = shown(area)
    link.find("echo")
    process = Process(link)
    process.freeze()
    try:
        with pytest.raises(sbe.Timeout, match=r"not answered within 0\.\d+ s"):
            link.allocate(4096)
        with pytest.raises(sbe.Timeout, match=r"not answered within 0\.\d+ s"):
            area.free()
    finally:
        process.thaw()
    assert link.call("echo", payload=b"on", timeout=LIMIT_S).payload == b"on"
    area.free()  # again, and it succeeds
    assert not pixels.any()
    with pytest.raises(sbe.AreaFreed):
        link.call("echo", sbe.In(area))


def test_full_ring() -> None:
    with sbe.connect("loopback:", slots=4) as link:
        link.find("echo")
        process = Process(link)
        process.freeze()
        try:
            waiting = [link.submit("echo", timeout=None, wait=False) for _ in range(4)]
            with pytest.raises(sbe.WouldBlock, match="full"):
                link.submit("echo", wait=False)
            with pytest.raises(sbe.Timeout, match="full"):
                link.submit("echo", timeout=0.05)
            late = threading.Thread(target=lambda: waiting.append(link.submit("echo")))
            late.start()
        finally:
            process.thaw()
        late.join(LIMIT_S)
        assert len(waiting) == 5
        for call in waiting:
            call.result(LIMIT_S)


def test_closing_a_link_to_a_frozen_remote_is_bounded(connect: Connector) -> None:
    if connect.name != "loopback":
        pytest.skip("closing a daemon's connection waits for nobody")
    link = connect()
    area = link.allocate(4096)
    link.find("crc32")
    process = Process(link)
    process.freeze()
    future = link.submit("crc32", sbe.In(area), timeout=None)
    begun = time.monotonic()
    link.close()
    assert time.monotonic() - begun < SOON_S
    with pytest.raises(sbe.LinkClosed):
        future.result()
    assert not Path(f"/proc/{process.pid}").exists()


def test_a_python_remote_that_restarts() -> None:
    import sbe.testing

    with sbe.testing.Remote({"echo": lambda payload: payload}) as remote, remote.link() as link:
        area = link.allocate(64)
        area[:4] = b"kept"
        epoch = link.epoch
        link.call("echo")
        remote.restart()
        with pytest.raises(sbe.RemoteRestarted):
            link.call("echo", timeout=LIMIT_S)
        assert link.call("echo", payload=b"on").payload == b"on"
        assert link.epoch != epoch
        assert bytes(area[:4]) == b"kept"
