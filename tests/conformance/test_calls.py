"""Calls, also against a remote that answers when the test says so: late, cancelled, no room."""

from __future__ import annotations

import threading
import time

import pytest

import sbe
from sbe.link.rings import Geometry
from sbe.testing.conformance.parts import LIMIT_S, answered, shown
from sbe.testing.conformance.test_calls import *
from tests.conformance.gate import gated


def test_doorbells_are_counted_and_saved() -> None:
    with gated() as (gate, link):
        answered(link)
        before = link.stat()["connection"]["doorbells"]
        held = link.submit("gate")
        gate.wait_seen()
        rung = link.stat()["connection"]["doorbells"]
        assert rung - before == 1  # the remote slept
        more = [link.submit("echo") for _ in range(100)]
        assert link.stat()["connection"]["doorbells"] == rung  # the remote is awake: none
        gate.open()
        assert held.result().cost.doorbells == 1
        assert [future.result().cost.doorbells for future in more] == [0] * 100


def test_remote_time_is_that_of_the_handler() -> None:
    with gated() as (gate, link):
        gate.open()
        link.call("gate")
        answered(link)
        gate.shut()
        held = link.submit("gate")
        gate.wait_seen()
        gate.wait_seen()
        behind = link.submit("echo")
        seen = time.monotonic_ns()
        while time.monotonic_ns() < seen + 5_000_000:
            pass
        gate.open()
        assert held.result().cost.remote_ns >= 5_000_000
        assert behind.result().cost.remote_ns < 5_000_000


def test_a_full_ring_would_block_or_waits() -> None:
    with gated(Geometry(4, 256)) as (gate, link):
        first = link.submit("gate", payload=b"0")
        gate.wait_seen()
        futures = [first]
        with pytest.raises(sbe.WouldBlock, match=r"ring .* is full") as caught:  # noqa: PT012
            while len(futures) < 100:
                futures.append(link.submit("gate", payload=b"n", wait=False))
        assert isinstance(caught.value, BlockingIOError)
        assert 4 <= len(futures) <= 6
        with pytest.raises(sbe.Timeout, match="full"):
            link.submit("gate", timeout=0.02)
        with pytest.raises(sbe.Timeout, match="full"):
            link.send("gate", timeout=0.02)
        with pytest.raises(sbe.Timeout, match="full"):
            link.call("gate", timeout=0.02)
        assert link.stat()["connection"]["in_flight"] == len(futures)
        waiting = threading.Thread(target=lambda: futures.append(link.submit("gate", payload=b"w")))
        waiting.start()
        gate.open()
        waiting.join(LIMIT_S)
        assert not waiting.is_alive()
        assert [future.result(LIMIT_S).payload for future in futures] == (
            [b"0"] + [b"n"] * (len(futures) - 2) + [b"w"]
        )


def test_cancel_leaves_the_buffers_quarantined_until_the_answer() -> None:
    with gated() as (gate, link):
        area = link.allocate(4096)
        future = link.submit("gate", sbe.Out(area[:10]), payload=b"late write")
        gate.wait_seen()
        assert area.holds == 1
        assert not future.done()
        assert future.cancel()
        assert not future.cancel()
        assert future.done()
        with pytest.raises(sbe.Cancelled):
            future.result()
        assert isinstance(future.exception(), sbe.Cancelled)
        with pytest.raises(sbe.Busy, match=r"1 unanswered.*quarantined"):
            area.free()
        assert area.holds == 1
        assert not area.freed
        gate.open()
        answered(link)
        assert area.holds == 0
        assert bytes(area[:10]) == b"late write"  # nobody else had been given the memory
        area.free()
        assert area.freed


def test_a_cancelled_call_that_had_not_begun_never_does() -> None:
    with gated() as (gate, link):
        area = link.allocate(100)
        answered(link)
        link.find("fill")
        held = link.submit("gate")
        gate.wait_seen()
        future = link.submit("fill", sbe.Out(area), payload=b"x")
        future.cancel()
        gate.open()
        held.result()
        answered(link)
        assert area.holds == 0


def test_a_deadline_quarantines_too() -> None:
    with gated() as (gate, link):
        area = link.allocate(4096)
        with pytest.raises(sbe.Timeout, match=r"'gate' in time.*; its 2 buffers stay quarantined"):
            link.call("gate", sbe.Out(area[:4]), sbe.In(area[8:]), payload=b"late", timeout=0.02)
        assert area.holds == 2
        with pytest.raises(sbe.Busy):
            area.free()
        future = link.submit("gate", sbe.In(area), timeout=0.02)
        with pytest.raises(sbe.Timeout, match="'gate'"):
            future.result()
        with pytest.raises(TimeoutError):
            future.result()
        assert area.holds == 3
        gate.open()
        answered(link)
        assert area.holds == 0
        area.free()


def test_waiting_less_than_the_deadline_leaves_the_call_alone() -> None:
    with gated() as (gate, link):
        future = link.submit("gate", payload=b"still", timeout=LIMIT_S)
        for patience in (0, 0.01):
            with pytest.raises(sbe.Timeout, match="goes on"):
                future.result(patience)
        assert not future.done()
        gate.open()
        assert future.result().payload == b"still"


def test_a_request_whose_deadline_passed_in_the_ring_never_begins() -> None:
    with gated() as (gate, link):
        area = link.allocate(100)
        answered(link)
        held = link.submit("gate")
        gate.wait_seen()
        with pytest.raises(sbe.Timeout):
            link.call("fill", sbe.Out(area), payload=b"x", timeout=0.01)
        gate.open()
        held.result()
        answered(link)
        assert area.holds == 0
        assert not shown(area).any()
