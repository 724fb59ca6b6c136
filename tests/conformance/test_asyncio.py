"""asyncio: the loop is woken by the doorbell's descriptor, nothing blocks it."""

from __future__ import annotations

import asyncio
import gc
import resource
import threading
import time
import weakref

import numpy as np
import pytest

import sbe
from sbe.link.rings import Geometry
from tests.conformance.ends import Connector
from tests.conformance.gate import LIMIT_S, answered, gated


async def number(link: sbe.Connection, i: int, **how: float) -> int:
    reply = await link.acall("echo", payload=i.to_bytes(4, "little"), **how)
    return int.from_bytes(reply.payload, "little")


async def test_one_call(link: sbe.Connection) -> None:
    reply = await link.acall("echo", payload=b"hi")
    assert reply.payload == b"hi"
    assert reply.cost.doorbells <= 1


@pytest.mark.parametrize("slots", [4, 256])
async def test_thousands_at_once(connect: Connector, slots: int) -> None:
    link = connect(slots=slots)
    count = 5000 if slots > 4 else 500
    got = await asyncio.gather(*(number(link, i) for i in range(count)))
    assert got == list(range(count))


async def test_async_with_closes_and_frees(connect: Connector) -> None:
    link = connect()
    async with link as entered:
        assert entered is link
        async with link.allocate(4096) as area:
            assert (await link.acall("fill", sbe.Out(area[:4]), payload=b"x")).written == (4,)
        assert area.freed
    assert link.closed


async def test_buffers_by_reference(link: sbe.Connection) -> None:
    area = link.allocate(1 << 16)
    calls = (
        link.acall("fill", sbe.Out(area[i * 64 : i * 64 + 64]), payload=bytes([i % 256]))
        for i in range(1024)
    )
    replies = await asyncio.gather(*calls)
    assert all(reply.written == (64,) for reply in replies)
    assert area.holds == 0


async def test_staged_with_a_full_ring(connect: Connector) -> None:
    link = connect(slots=2)
    arrays = [np.full(20_000, i, np.uint8) for i in range(40)]
    await asyncio.gather(*(link.acall("invert", sbe.InOut(array)) for array in arrays))
    assert all((array == 255 - i).all() for i, array in enumerate(arrays))


async def test_errors_reach_their_own_call(link: sbe.Connection) -> None:
    got = await asyncio.gather(
        number(link, 1),
        link.acall("teleport"),
        link.acall("fill", sbe.Out(bytearray(1))),
        link.acall("echo", payload=bytes(5000)),
        number(link, 2),
        return_exceptions=True,
    )
    assert (got[0], got[4]) == (1, 2)
    assert isinstance(got[1], sbe.UnknownService)
    assert isinstance(got[2], sbe.RemoteError)
    assert isinstance(got[3], sbe.MessageTooLarge)


async def test_a_cancelled_task_cancels_its_call() -> None:
    with gated() as (gate, link):
        area = link.allocate(64)
        task = asyncio.create_task(link.acall("gate", sbe.Out(area), payload=b"x", timeout=None))
        other = asyncio.create_task(link.acall("gate", payload=b"other", timeout=None))
        await asyncio.to_thread(gate.wait_seen)
        assert area.holds == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert area.holds == 1  # the remote may still write
        gate.open()
        assert (await other).payload == b"other"
        await link.acall("echo")
        assert area.holds == 0


async def test_cancelled_staged_calls_return_their_pool() -> None:
    with gated() as (gate, link):
        for _ in range(5):
            gate.shut()
            task = asyncio.create_task(link.acall("gate", sbe.In(bytes(100_000)), timeout=None))
            await asyncio.to_thread(gate.wait_seen)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open()
            await link.acall("echo")
        assert link.stat()["connection"]["areas"] == 1


async def test_a_deadline() -> None:
    with gated() as (gate, link):
        area = link.allocate(64)
        begun = time.monotonic()
        with pytest.raises(sbe.Timeout, match="'gate' in time"):
            await link.acall("gate", sbe.Out(area), timeout=0.05)
        assert 0.04 < time.monotonic() - begun < 5
        with pytest.raises(sbe.Busy):
            area.free()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await link.acall("gate", sbe.Out(area), timeout=None)
        gate.open()
        await link.acall("echo")
        area.free()


async def test_a_deadline_counts_the_wait_for_room() -> None:
    with gated(Geometry(2, 256)) as (gate, link):
        held = [asyncio.create_task(link.acall("gate", timeout=None)) for _ in range(10)]
        await asyncio.to_thread(gate.wait_seen)
        begun = time.monotonic()
        with pytest.raises(sbe.Timeout):
            await link.acall("gate", timeout=0.05)
        assert time.monotonic() - begun < 5
        task = asyncio.create_task(link.acall("echo"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
        await asyncio.gather(*held)
        assert await number(link, 3) == 3


async def test_the_loop_stays_free() -> None:
    with gated() as (gate, link):
        held = asyncio.create_task(link.acall("gate", timeout=None))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not held.done()
        gate.open()
        await held


async def test_waiting_costs_no_time_of_the_processor() -> None:
    with gated() as (gate, link):
        link.serve("idle", lambda payload: payload)  # a thread that sleeps on the same doorbell
        for i in range(20):
            await number(link, i)
        held = asyncio.create_task(link.acall("gate", timeout=None))
        await asyncio.to_thread(gate.wait_seen)
        before = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.sleep(0.3)
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert used < 0.15
        gate.open()
        await held


def test_two_loops_in_two_threads(connect: Connector) -> None:
    link = connect(slots=8)
    results: dict[int, list[int]] = {}

    def run(start: int) -> None:
        async def main() -> list[int]:
            return await asyncio.gather(*(number(link, i) for i in range(start, start + 1500)))

        results[start] = asyncio.run(main())

    threads = [threading.Thread(target=run, args=(start,)) for start in (0, 10_000)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert results == {start: list(range(start, start + 1500)) for start in (0, 10_000)}
    assert time.monotonic() - begun < 20


def test_one_loop_after_the_other(link: sbe.Connection) -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main(i: int) -> int:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        return await number(link, i)

    for i in range(5):
        assert asyncio.run(main(i)) == i
    gc.collect()
    assert [loop() for loop in loops] == [None] * 5


async def test_beside_threads(link: sbe.Connection) -> None:
    stop = threading.Event()
    counts = [0, 0]

    def busy(which: int) -> None:
        while not stop.is_set():
            assert link.call("echo", payload=b"sync").payload == b"sync"
            counts[which] += 1

    threads = [threading.Thread(target=busy, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    try:
        got = await asyncio.gather(*(number(link, i) for i in range(2000)))
        assert got == list(range(2000))
        for i in range(200):
            assert await number(link, i) == i
    finally:
        stop.set()
        for thread in threads:
            await asyncio.to_thread(thread.join, LIMIT_S)
    assert min(counts) > 0


async def test_close_ends_what_is_awaited() -> None:
    with gated(Geometry(4, 256)) as (gate, link):
        tasks = [asyncio.create_task(link.acall("gate", timeout=None)) for _ in range(20)]
        await asyncio.to_thread(gate.wait_seen)
        gate.open()
        gate.remote.services["gate"] = lambda payload: b""
        await asyncio.to_thread(link.close)
        got = await asyncio.gather(*tasks, return_exceptions=True)
        assert any(isinstance(error, sbe.LinkClosed) for error in got)
        assert all(isinstance(item, (sbe.Reply, sbe.LinkClosed)) for item in got)
        with pytest.raises(sbe.LinkClosed):
            await link.acall("echo")


def test_a_loop_that_ended_with_calls_open() -> None:
    with gated() as (gate, link):

        async def main() -> None:
            task = asyncio.create_task(link.acall("gate", timeout=None))
            await asyncio.to_thread(gate.wait_seen)
            assert not task.done()

        asyncio.run(main())  # cancels the task
        gate.open()
        answered(link)
        assert asyncio.run(number(link, 5)) == 5
