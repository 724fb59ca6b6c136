"""asyncio, also against a remote that answers when the test says so."""

from __future__ import annotations

import asyncio
import resource
import time

import pytest

import sbe
from sbe.link.rings import Geometry
from sbe.testing.conformance.parts import answered
from sbe.testing.conformance.test_asyncio import *
from sbe.testing.conformance.test_asyncio import number
from tests.conformance.gate import gated


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
