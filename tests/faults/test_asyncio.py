"""asyncio when links are lost, closed and opened around it: everything awaited is watched."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import select
import signal
import sys
import threading
import time

import numpy as np
import pytest

import sbe
from sbe.sdk import aio
from tests.conformance.ends import Connector
from tests.conformance.gate import gated
from tests.faults.test_remote_dies import LIMIT_S, SOON_S, Process, process, victim

__all__ = ["process", "victim"]  # fixtures


async def in_flight(link: sbe.Connection) -> None:
    while not link._core.channel.in_flight:
        await asyncio.sleep(0)


async def test_what_a_lost_channel_leaves_behind(
    victim: sbe.Connection, process: Process, connect: Connector
) -> None:
    """A task of the old channel ends after the first one of the new channel has begun."""
    link, loop = victim, asyncio.get_running_loop()
    assert (await link.acall("echo", payload=b"1")).payload == b"1"
    old, last = link._waits._pumps[loop], loop.create_future()
    old._watch(last)
    process.kill()
    async with asyncio.timeout(LIMIT_S):
        while link._core.channel.error is None:
            await asyncio.sleep(0.001)
    assert (await link.acall("echo", payload=b"2", timeout=LIMIT_S)).payload == b"2"
    assert link._waits._pumps[loop] is not old
    again = Process(link, connect.board)
    again.freeze()
    task = asyncio.create_task(link.acall("echo", timeout=None))
    await in_flight(link)
    old._unwatch(last)
    again.kill()
    with pytest.raises(sbe.RemoteRestarted):
        async with asyncio.timeout(SOON_S):
            await task


async def test_descriptors_whose_numbers_are_used_again(
    victim: sbe.Connection, process: Process, connect: Connector
) -> None:
    """A link is closed while it is awaited, and another one opened before the loop runs."""
    if connect.board is not None:
        pytest.skip("the board stays frozen for the other link too")
    process.freeze()
    first = asyncio.create_task(victim.acall("echo", timeout=None))
    await in_flight(victim)
    process.thaw()
    victim.close()
    second = connect()
    second.find("echo")
    other = Process(second)
    other.freeze()

    async def kill() -> None:
        await asyncio.wait({first})
        other.kill()

    killer = asyncio.create_task(kill())
    with pytest.raises(sbe.RemoteRestarted):
        async with asyncio.timeout(SOON_S):
            await second.acall("echo", timeout=None)  # begins at once, before `first` ends
    await killer
    assert isinstance(first.exception(), sbe.LinkClosed)


async def test_many_tasks_through_few_slots_and_many_losses(connect: Connector) -> None:
    if not connect.firmware or connect.board is not None:
        pytest.skip("its remote is a thread, or takes long to start")
    link = connect(slots=4)
    link.find("echo")
    done = 0

    async def work(i: int) -> None:
        nonlocal done
        for turn in range(10):
            while True:
                try:
                    reply = await link.acall("echo", payload=bytes([i % 256, turn]), timeout=None)
                    break
                except sbe.LinkError:  # it died, or is being started
                    await asyncio.sleep(0.001)
            assert reply.payload == bytes([i % 256, turn])
            done += 1

    async def kill() -> None:
        killed: set[int | None] = {None}
        while len(killed) < 5:
            share = 800 * len(killed)
            while done < share:
                await asyncio.sleep(0.001)
            with contextlib.suppress(sbe.LinkError):  # it is being started
                pid = (await asyncio.to_thread(link.list))["links"][0]["pid"]
                if pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)

    async with asyncio.timeout(4 * LIMIT_S):
        await asyncio.gather(kill(), *(work(i) for i in range(400)))
    assert done == 4000


# -- control operations of other threads ----------------------------------------------------------


class Operation:
    """Another thread's control operation, as long as the test wants."""

    def __init__(self, link: sbe.Connection) -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        self.too_late = False
        self._thread = threading.Thread(target=self._run, args=(link,))

    def _run(self, link: sbe.Connection) -> None:
        with link._core.turn.operation():
            self.begun.set()
            self.too_late = not self.end.wait(SOON_S)

    def __enter__(self) -> Operation:
        self._thread.start()
        assert self.begun.wait(LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.end.set()
        self._thread.join(LIMIT_S)


async def test_news_during_a_control_operation(victim: sbe.Connection, process: Process) -> None:
    link = victim
    await link.acall("echo")
    process.freeze()
    task = asyncio.create_task(link.acall("echo", timeout=None))
    await in_flight(link)
    with Operation(link) as operation:
        process.kill()
        assert select.select([link.control_fd], [], [], LIMIT_S)[0]
        used = time.process_time()
        for _ in range(60):
            await asyncio.sleep(0.005)
        assert time.process_time() - used < 0.2  # of 0.3 s or more
        assert not task.done()
        assert not operation.too_late  # the loop ran all the time
    with pytest.raises(sbe.RemoteRestarted):
        async with asyncio.timeout(SOON_S):
            await task
    assert (await link.acall("echo", payload=b"on", timeout=LIMIT_S)).payload == b"on"


async def test_staging_during_a_control_operation(link: sbe.Connection) -> None:
    """An area for large data costs a question to the remote, which is not for the loop to wait."""
    link.find("invert")
    array = np.full(100_000, 1, np.uint8)
    with Operation(link) as operation:
        task = asyncio.create_task(link.acall("invert", sbe.InOut(array)))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not task.done()
        assert not operation.too_late
    await task
    assert (array == 254).all()


async def test_staging_that_is_cancelled_meanwhile(link: sbe.Connection) -> None:
    link.find("invert")
    array = np.full(100_000, 1, np.uint8)
    with Operation(link):
        task = asyncio.create_task(link.acall("invert", sbe.InOut(array)))
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await link.acall("invert", sbe.InOut(array))
    async with asyncio.timeout(LIMIT_S):
        while link._stager._count < 1:
            await asyncio.sleep(0.001)
    for _ in range(5):
        await link.acall("invert", sbe.InOut(array))
    assert link.stat()["connection"]["areas"] <= 2  # nothing is lost, all of it is used again


# -- descriptors ----------------------------------------------------------------------------------


async def test_no_descriptor_left_to_watch_with() -> None:
    with gated() as (gate, link):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        area = link.allocate(64)
        call = link.acall("gate", sbe.Out(area), timeout=None)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(sbe.OutOfResources, match="no descriptor to watch"):
                await call
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        gate.open()
        await link.acall("echo")
        assert area.holds == 0


def test_a_loop_closed_with_calls_open() -> None:
    with gated() as (gate, link):

        async def begin() -> None:
            task = asyncio.ensure_future(link.acall("gate", timeout=None))
            await asyncio.to_thread(gate.wait_seen)
            assert not task.done()

        def once() -> None:
            gate.shut()
            loop = asyncio.new_event_loop()
            loop.run_until_complete(begin())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            gate.open()
            link.call("echo")

        once()
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        once()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before


async def test_a_handler_that_raises_while_a_call_is_told(
    link: sbe.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the end of a call runs is Python, where a handler of a signal may raise."""
    await link.acall("echo")
    told, interrupted = aio._set, threading.Event()

    def raising(future: asyncio.Future[None]) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt
        told(future)

    monkeypatch.setattr(aio, "_set", raising)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    async with asyncio.timeout(LIMIT_S):
        assert (await link.acall("echo", payload=b"told", timeout=None)).payload == b"told"
    assert interrupted.is_set()
