"""Calls: many in flight, out of order, cancelled, late, on rings of every geometry."""

from __future__ import annotations

import time

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S, Connector, answered, needs, shown
from sbe.testing.conformance.services import ref_crc32


@needs("echo")
def test_many_in_flight(link: sbe.Connection) -> None:
    futures = [link.submit("echo", payload=i.to_bytes(4, "little")) for i in range(5000)]
    for i, future in enumerate(futures):
        assert future.result(LIMIT_S).payload == i.to_bytes(4, "little")
    assert link.stat()["connection"]["in_flight"] == 0


@needs("echo")
def test_results_in_any_order(link: sbe.Connection) -> None:
    futures = [link.submit("echo", payload=i.to_bytes(4, "little")) for i in range(200)]
    for i in np.random.default_rng(3).permutation(200):
        assert futures[i].result().payload == int(i).to_bytes(4, "little")
        assert futures[i].done()
        assert futures[i].exception() is None
    assert futures[0].result(timeout=1.0).payload == bytes(4)  # again, by name


@needs("echo")
def test_done_becomes_true_without_waiting(link: sbe.Connection) -> None:
    future = link.submit("echo", payload=b"x")
    limit = time.monotonic() + LIMIT_S
    while not future.done():
        assert time.monotonic() < limit
    assert future.result(0).payload == b"x"


@needs("echo")
def test_a_descriptor_that_other_loops_can_poll(link: sbe.Connection) -> None:
    import select

    future = link.submit("echo")
    poll = select.poll()
    poll.register(link.fileno(), select.POLLIN)
    while not future.done():
        assert poll.poll(LIMIT_S * 1000)
    assert future.result().payload == b""


@needs("crc32", "echo", "invert")
@pytest.mark.parametrize("slot_size", [64, 128, 192, 4096, 16384])
@pytest.mark.parametrize("slots", [2, 4, 1024])
def test_extremes_of_geometry(connect: Connector, slots: int, slot_size: int) -> None:
    if 2 * slots * slot_size > connect.rings_bytes:
        pytest.skip(f"{connect.name} has {connect.rings_bytes} bytes for rings, these need more")
    if slots > connect.slots or slot_size > connect.slot_bytes:
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


@needs("echo")
@pytest.mark.parametrize(
    ("slots", "slot_size"), [(0, 1024), (1, 1024), (3, 1024), (256, 0), (256, 100), (1 << 17, 64)]
)
def test_geometry_that_cant_be(connect: Connector, slots: int, slot_size: int) -> None:
    with pytest.raises(sbe.BadArgument):
        connect(slots=slots, slot_size=slot_size)
    with pytest.raises(sbe.BadArgument, match="allows"):
        connect(slots=1 << 13, slot_size=64)
    assert connect().call("echo", payload=b"on").payload == b"on"


@needs("crc32", "echo", "fill")
def test_messages_that_nobody_answers(link: sbe.Connection) -> None:
    area = link.allocate(200 * 1024)
    pieces = shown(area).reshape(200, 1024)  # on lines of their own, however long those are
    for i in range(200):
        link.send("fill", sbe.Out(pieces[i]), payload=bytes([i]))
    answered(link)  # the ring keeps its order
    link.sync(sbe.InOut(area))  # they are ours again, where there are caches
    assert np.array_equal(pieces, np.arange(200, dtype=np.uint8).repeat(1024).reshape(200, 1024))
    assert area.holds == 0
    with pytest.raises(sbe.BadArgument, match="must lie in an area"):
        link.send("crc32", sbe.In(bytes(100_000)))
    assert link.stat()["connection"]["in_flight"] == 0


def test_sync_hands_over_and_back(connect: Connector) -> None:
    link = connect()
    area, both = link.allocate(4096), link.allocate(4096, heap=connect.coherent_heap)
    area[:5] = b"stays"
    pixels = shown(area)
    reply = link.sync(sbe.InOut(area), sbe.In(pixels[:10]), sbe.Shared(both[10:20]))
    assert reply.payload == b""
    assert bytes(area[:5]) == b"stays"
    assert reply.cost.copied_bytes == 0
    assert link.sync().written == ()
    with pytest.raises(sbe.BadArgument, match="area"):
        link.sync(sbe.In(bytes(100_000)))


@needs("crc32")
def test_cost_of_a_call(connect: Connector) -> None:
    link = connect()
    area = link.allocate(1 << 20)
    reply = link.call("crc32", sbe.In(area))
    cost = reply.cost
    assert cost.copied_bytes == 0
    if connect.coherent:
        assert cost.synced_bytes == 0
    assert cost.doorbells <= 1
    assert cost.remote_ns > 0
    assert cost.queue_ns + cost.remote_ns <= cost.total_ns * (1 + connect.clock_error)
    assert link.call("crc32", sbe.In(bytes(10))).cost.copied_bytes == 10
    assert link.call("crc32", sbe.In(bytes(10_000))).cost.copied_bytes == 10_000
    assert link.call("crc32", sbe.In(bytes(7)), sbe.In(bytes(9999))).cost.copied_bytes == 10_006


@needs("echo")
@pytest.mark.parametrize("bad", [-1, -0.001, float("nan"), "soon"])
def test_deadlines_that_cant_be(link: sbe.Connection, bad: object) -> None:
    with pytest.raises((sbe.BadArgument, TypeError)):
        link.call("echo", timeout=bad)  # type: ignore[arg-type]
    assert link.call("echo", payload=b"on", timeout=1e30).payload == b"on"
    assert link.call("echo", payload=b"on", timeout=None).payload == b"on"


@needs("echo")
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


@needs("echo")
def test_a_callback_may_call(link: sbe.Connection) -> None:
    replies: list[bytes] = []

    def call_within(call: object) -> None:
        replies.append(link.call("echo", payload=b"from within").payload)

    future = link.submit("echo", payload=b"first")
    future.add_done_callback(call_within)
    assert future.result().payload == b"first"
    assert replies == [b"from within"]


@needs("echo")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_callback_that_raises_hurts_nobody(link: sbe.Connection) -> None:
    def bad(call: object) -> None:
        raise ZeroDivisionError("a bug of the application")

    futures = [link.submit("echo", payload=bytes([i])) for i in range(10)]
    for future in futures:
        future.add_done_callback(bad)
    assert [future.result().payload[0] for future in futures] == list(range(10))


@needs("echo", "fill")
def test_dropped_futures_are_answered_and_forgotten(link: sbe.Connection) -> None:
    area = link.allocate(4096)
    for i in range(500):
        link.submit("fill", sbe.Out(area[i : i + 1]), payload=b"\1")
    answered(link)
    assert area.holds == 0
    assert shown(area).sum() == 500


@needs("crc32", "echo")
def test_dropped_staged_futures_return_their_pool(link: sbe.Connection) -> None:
    for _ in range(50):
        link.submit("crc32", sbe.In(bytes(100_000)))
        answered(link)
    assert link.stat()["connection"]["areas"] <= 2


@needs("fill")
def test_staged_failures_return_their_pool(link: sbe.Connection) -> None:
    data = bytearray(100_000)
    for _ in range(20):
        with pytest.raises(sbe.RemoteError):
            link.call("fill", sbe.Out(data), payload=b"")
        assert link.submit("fill", sbe.Out(data)).exception() is not None
        with pytest.raises(sbe.BadArgument):
            link.call("fill", sbe.Out(data), sbe.Shared(data))
    assert link.stat()["connection"]["areas"] <= 2
