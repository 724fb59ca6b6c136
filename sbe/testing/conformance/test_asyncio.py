"""asyncio: the loop is woken by the doorbell's descriptor, nothing blocks it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S, Connector, in_a_loop, needs


async def number(link: sbe.Connection, i: int, **how: float) -> int:
    reply = await link.acall("echo", payload=i.to_bytes(4, "little"), **how)
    return int.from_bytes(reply.payload, "little")


@needs("echo")
@in_a_loop
async def test_one_call(link: sbe.Connection) -> None:
    reply = await link.acall("echo", payload=b"hi")
    assert reply.payload == b"hi"
    assert reply.cost.doorbells <= 1


@needs("echo")
@pytest.mark.parametrize("slots", [4, 256])
@in_a_loop
async def test_thousands_at_once(connect: Connector, slots: int) -> None:
    link = connect(slots=min(slots, connect.slots))
    count = 5000 if slots > 4 else 500
    got = await asyncio.gather(*(number(link, i) for i in range(count)))
    assert got == list(range(count))


@needs("fill")
@in_a_loop
async def test_buffers_by_reference(link: sbe.Connection) -> None:
    area = link.allocate(1 << 16)
    calls = (
        link.acall("fill", sbe.Out(area[i * 64 : i * 64 + 64]), payload=bytes([i % 256]))
        for i in range(1024)
    )
    replies = await asyncio.gather(*calls)
    assert all(reply.written == (64,) for reply in replies)
    assert area.holds == 0


@needs("invert")
@in_a_loop
async def test_staged_with_a_full_ring(connect: Connector) -> None:
    link = connect(slots=2)
    arrays = [np.full(20_000, i, np.uint8) for i in range(40)]
    await asyncio.gather(*(link.acall("invert", sbe.InOut(array)) for array in arrays))
    assert all((array == 255 - i).all() for i, array in enumerate(arrays))


@needs("echo", "fill")
@in_a_loop
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


@needs("echo")
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


@needs("echo")
def test_one_loop_after_the_other(link: sbe.Connection) -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main(i: int) -> int:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        return await number(link, i)

    for i in range(5):
        assert asyncio.run(main(i)) == i
    gc.collect()
    assert [loop() for loop in loops] == [None] * 5


@needs("echo")
@in_a_loop
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


@needs("fill")
@in_a_loop
async def test_async_with_closes_and_frees(connect: Connector) -> None:
    link = connect()
    async with link as entered:
        assert entered is link
        async with link.allocate(4096) as area:
            assert (await link.acall("fill", sbe.Out(area[:4]), payload=b"x")).written == (4,)
        assert area.freed
    assert link.closed
