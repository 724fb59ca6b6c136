"""Threads: any of them may use a link at any time, mixed with every way of calling."""

from __future__ import annotations

import asyncio
import struct
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S, Connector, needs


def together(count: int, work: Callable[[int], object]) -> list[object]:
    """work(i) in `count` threads that begin at once; raises what one raised."""
    barrier = threading.Barrier(count)

    def run(i: int) -> object:
        barrier.wait(LIMIT_S)
        return work(i)

    with ThreadPoolExecutor(count) as pool:
        return [future.result(LIMIT_S) for future in [pool.submit(run, i) for i in range(count)]]


@needs("echo")
@pytest.mark.parametrize("slots", [2, 256])
def test_eight_threads_call(connect: Connector, slots: int) -> None:
    link = connect(slots=min(slots, connect.slots))

    def work(i: int) -> None:
        for n in range(400):
            payload = struct.pack("<II", i, n)
            assert link.call("echo", payload=payload).payload == payload

    together(8, work)
    assert link.stat()["connection"]["in_flight"] == 0


@needs("crc32", "echo", "fill", "invert")
def test_every_way_of_calling_at_once(connect: Connector) -> None:
    link = connect(slots=16)
    area = link.allocate(8 << 16)

    def calls(i: int) -> None:
        part = area[i << 16 : (i + 1) << 16]
        for n in range(100):
            link.call("fill", sbe.Out(part), payload=bytes([n]))
            wanted = struct.pack("<I", zlib.crc32(bytes([n]) * len(part)))
            assert link.call("crc32", sbe.In(part)).payload == wanted

    def futures(i: int) -> None:
        for n in range(10):
            sent = [link.submit("echo", payload=bytes([n, k])) for k in range(50)]
            assert [future.result().payload[1] for future in sent] == list(range(50))

    def batches(i: int) -> None:
        part = np.arange(200, dtype="<u4").view(np.uint8).reshape(200, 4)
        for _ in range(5):
            result = link.batch("echo", np.zeros((200, 0), sbe.buffer_dtype()), part, reply_size=4)
            result.check()
            assert np.array_equal(result.payload, part)

    def loop(i: int) -> None:
        async def main() -> None:
            got = await asyncio.gather(
                *(link.acall("echo", payload=n.to_bytes(2, "little")) for n in range(500))
            )
            assert [int.from_bytes(reply.payload, "little") for reply in got] == list(range(500))

        asyncio.run(main())

    def staged(i: int) -> None:
        for n in range(30):
            data = np.full(30_000, n, np.uint8)
            link.call("invert", sbe.InOut(data))
            assert (data == 255 - n).all()

    def control(i: int) -> None:
        for n in range(30):
            with link.allocate(100 + n) as own:
                assert link.call("fill", sbe.Out(own), payload=b"\1").written == (100 + n,)
            link.find("echo")

    kinds = [calls, calls, futures, batches, loop, loop, staged, control]
    together(8, lambda i: kinds[i](i))
    assert area.holds == 0
    assert link.stat()["connection"]["in_flight"] == 0


@needs("crc32", "echo")
def test_close_while_threads_call(connect: Connector) -> None:
    for _ in range(10):
        link = connect(slots=8)
        started = threading.Semaphore(0)

        def work(i: int, link: Any = link, started: Any = started) -> str:
            if i == 0:
                for _ in range(6):
                    assert started.acquire(timeout=LIMIT_S)
                link.close()
                return "LinkClosed"
            try:
                while True:
                    if i % 3 == 0:
                        link.call("crc32", sbe.In(bytes(5000)))
                    elif i % 3 == 1:
                        link.submit("echo").result()
                    else:
                        link.allocate(64).free()
                    started.release()
            except sbe.Error as error:
                return type(error).__name__

        assert together(7, work) == ["LinkClosed"] * 7
        assert link.closed


@needs("echo")
def test_a_closed_link(connect: Connector) -> None:
    link = connect()
    link.close()
    link.close()
    calls: list[Callable[[], object]] = [
        lambda: link.call("echo"),
        lambda: link.submit("echo"),
        lambda: link.allocate(1),
        lambda: link.batch("echo", np.zeros((1, 0), sbe.buffer_dtype())),
        lambda: link.send("echo"),
        lambda: link.serve("echo", bytes),
        link.services,
        link.stat,
        link.list,
        link.sync,
    ]
    for call in calls:
        with pytest.raises(sbe.LinkClosed, match="closed"):
            call()
    assert "closed" in repr(link)
