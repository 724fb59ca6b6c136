"""Calls: many in flight, out of order, cancelled, late, on rings of every geometry."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import sbe
from sbe.link.rings import Geometry
from tests.conformance.ends import Connector
from tests.conformance.gate import LIMIT_S, answered, gated
from tests.conformance.services import ref_crc32, shown


def test_many_in_flight(link: sbe.Connection) -> None:
    futures = [link.submit("echo", payload=i.to_bytes(4, "little")) for i in range(5000)]
    for i, future in enumerate(futures):
        assert future.result(LIMIT_S).payload == i.to_bytes(4, "little")
    assert link.stat()["connection"]["in_flight"] == 0


def test_results_in_any_order(link: sbe.Connection) -> None:
    futures = [link.submit("echo", payload=i.to_bytes(4, "little")) for i in range(200)]
    for i in np.random.default_rng(3).permutation(200):
        assert futures[i].result().payload == int(i).to_bytes(4, "little")
        assert futures[i].done()
        assert futures[i].exception() is None
    assert futures[0].result(timeout=1.0).payload == bytes(4)  # again, by name


def test_done_becomes_true_without_waiting(link: sbe.Connection) -> None:
    future = link.submit("echo", payload=b"x")
    limit = time.monotonic() + LIMIT_S
    while not future.done():
        assert time.monotonic() < limit
    assert future.result(0).payload == b"x"


def test_a_descriptor_that_other_loops_can_poll(link: sbe.Connection) -> None:
    import select

    future = link.submit("echo")
    poll = select.poll()
    poll.register(link.fileno(), select.POLLIN)
    while not future.done():
        assert poll.poll(LIMIT_S * 1000)
    assert future.result().payload == b""


@pytest.mark.parametrize("slot_size", [64, 128, 192, 4096, 16384])
@pytest.mark.parametrize("slots", [2, 4, 1024])
def test_extremes_of_geometry(connect: Connector, slots: int, slot_size: int) -> None:
    if 2 * slots * slot_size > connect.rings_bytes:
        pytest.skip(f"{connect.name} has {connect.rings_bytes} bytes for rings, these need more")
    if slot_size > connect.slot_bytes:
        with pytest.raises(sbe.BadArgument, match=f"allows .* slots of {connect.slot_bytes} bytes"):
            connect(slots=slots, slot_size=slot_size)
        return
    link = connect(slots=slots, slot_size=slot_size)
    area = link.allocate(1 << 16)
    area[:] = np.arange(1 << 16, dtype=np.uint8)
    futures = [link.submit("echo", payload=bytes([i % 256])) for i in range(300)]
    assert [future.result().payload[0] for future in futures] == [i % 256 for i in range(300)]
    assert link.call("crc32", sbe.In(area)).payload == ref_crc32(area)
    both = np.arange(100_000, dtype=np.uint8)
    assert link.call("crc32", sbe.In(both)).payload == ref_crc32(both)
    link.call("invert", sbe.InOut(both))
    assert np.array_equal(both, np.invert(np.arange(100_000, dtype=np.uint8)))


@pytest.mark.parametrize(
    ("slots", "slot_size"), [(0, 1024), (1, 1024), (3, 1024), (256, 0), (256, 100), (1 << 17, 64)]
)
def test_geometry_that_cant_be(connect: Connector, slots: int, slot_size: int) -> None:
    with pytest.raises(sbe.BadArgument):
        connect(slots=slots, slot_size=slot_size)
    with pytest.raises(sbe.BadArgument, match="allows"):
        connect(slots=1 << 13, slot_size=64)
    assert connect().call("echo", payload=b"on").payload == b"on"


def test_messages_that_nobody_answers(link: sbe.Connection) -> None:
    area = link.allocate(1000)
    for i in range(1000):
        link.send("fill", sbe.Out(area[i : i + 1]), payload=bytes([i % 256]))
    answered(link)  # the ring keeps its order
    assert np.array_equal(shown(area), np.arange(1000, dtype=np.uint8))
    assert area.holds == 0
    with pytest.raises(sbe.BadArgument, match="must lie in an area"):
        link.send("crc32", sbe.In(bytes(100_000)))
    assert link.stat()["connection"]["in_flight"] == 0


def test_sync_hands_over_and_back(link: sbe.Connection) -> None:
    area = link.allocate(4096)
    area[:5] = b"stays"
    pixels = shown(area)
    reply = link.sync(sbe.InOut(area), sbe.In(pixels[:10]), sbe.Shared(area[10:20]))
    assert reply.payload == b""
    assert bytes(area[:5]) == b"stays"
    assert reply.cost.copied_bytes == 0
    assert link.sync().written == ()
    with pytest.raises(sbe.BadArgument, match="area"):
        link.sync(sbe.In(bytes(100_000)))


def test_cost_of_a_call(connect: Connector) -> None:
    link = connect()
    area = link.allocate(1 << 20)
    reply = link.call("crc32", sbe.In(area))
    cost = reply.cost
    assert cost.copied_bytes == 0
    assert cost.synced_bytes == 0  # memfds are coherent
    assert cost.doorbells <= 1
    assert cost.remote_ns > 0
    assert cost.queue_ns + cost.remote_ns <= cost.total_ns * (1 + connect.clock_error)
    assert link.call("crc32", sbe.In(bytes(10))).cost.copied_bytes == 10
    assert link.call("crc32", sbe.In(bytes(10_000))).cost.copied_bytes == 10_000
    assert link.call("crc32", sbe.In(bytes(7)), sbe.In(bytes(9999))).cost.copied_bytes == 10_006


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
        with pytest.raises(sbe.Timeout, match=r"'gate' in time; its 2 buffers stay quarantined"):
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


@pytest.mark.parametrize("bad", [-1, -0.001, float("nan"), "soon"])
def test_deadlines_that_cant_be(link: sbe.Connection, bad: object) -> None:
    with pytest.raises((sbe.BadArgument, TypeError)):
        link.call("echo", timeout=bad)  # type: ignore[arg-type]
    assert link.call("echo", payload=b"on", timeout=1e30).payload == b"on"
    assert link.call("echo", payload=b"on", timeout=None).payload == b"on"


def test_callbacks_run_once_each_in_order_of_completion(link: sbe.Connection) -> None:
    order: list[int] = []
    futures = [link.submit("echo", payload=bytes([i])) for i in range(100)]
    for i, future in enumerate(futures):
        future.add_done_callback(lambda call, i=i: order.append(i))  # type: ignore[misc]
    futures[-1].result()
    for future in futures:
        future.result()
    assert order == list(range(100))
    futures[0].add_done_callback(lambda call: order.append(-1))  # at once
    assert order[-1] == -1


def test_a_callback_may_call(link: sbe.Connection) -> None:
    replies: list[bytes] = []

    def again(call: object) -> None:
        replies.append(link.call("echo", payload=b"from within").payload)

    future = link.submit("echo", payload=b"first")
    future.add_done_callback(again)
    assert future.result().payload == b"first"
    assert replies == [b"from within"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_callback_that_raises_hurts_nobody(link: sbe.Connection) -> None:
    def bad(call: object) -> None:
        raise ZeroDivisionError("a bug of the application")

    futures = [link.submit("echo", payload=bytes([i])) for i in range(10)]
    for future in futures:
        future.add_done_callback(bad)
    assert [future.result().payload[0] for future in futures] == list(range(10))


def test_dropped_futures_are_answered_and_forgotten(link: sbe.Connection) -> None:
    area = link.allocate(4096)
    for i in range(500):
        link.submit("fill", sbe.Out(area[i : i + 1]), payload=b"\1")
    answered(link)
    assert area.holds == 0
    assert shown(area).sum() == 500


def test_dropped_staged_futures_return_their_pool(link: sbe.Connection) -> None:
    for _ in range(50):
        link.submit("crc32", sbe.In(bytes(100_000)))
        answered(link)
    assert link.stat()["connection"]["areas"] <= 2


def test_staged_failures_return_their_pool(link: sbe.Connection) -> None:
    data = bytearray(100_000)
    for _ in range(20):
        with pytest.raises(sbe.RemoteError):
            link.call("fill", sbe.Out(data), payload=b"")
        assert link.submit("fill", sbe.Out(data)).exception() is not None
        with pytest.raises(sbe.BadArgument):
            link.call("fill", sbe.Out(data), sbe.Shared(data))
    assert link.stat()["connection"]["areas"] <= 2
