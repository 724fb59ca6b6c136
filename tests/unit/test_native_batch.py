"""Batches given up, cut short or fed with odd arrays: nothing stays held, nothing crashes."""

from __future__ import annotations

import struct
import sys
from typing import Any

import pytest

from sbe import _native, errors
from tests.unit.channel_pair import Pair, Thread
from tests.unit.test_native_request import pack


def descriptors(area: Any, count: int, /, **values: int) -> bytearray:
    one = pack(
        "sbe_wire_buffer", **{"area": area.id, "direction": _native.DIR_IN, "size": 8} | values
    )
    return bytearray(one * count)


def batch(end: _native.Channel, count: int, given: Any, timeout: float | None = None) -> list[int]:
    statuses = bytearray(4 * count)
    per_call = len(given) // 24 // count if count else 1
    written = bytearray(8 * count * per_call)
    end.batch(1, count, per_call, given, b"", 0, statuses, written, bytearray(), 0, timeout)
    return [status for (status,) in struct.iter_unpack("<i", statuses)]


def serve(pair: Pair, count: int) -> None:
    for _ in range(count):
        pair.answer()


def test_descriptors_at_an_odd_address():
    with Pair() as pair:
        area, _ = pair.area()
        odd = memoryview(b"x" + descriptors(area, 4))[1:]
        server = Thread(lambda: serve(pair, 4))
        assert batch(pair.host, 4, odd) == [0] * 4
        server.outcome()


@pytest.mark.parametrize("count", [0, 1, 100])
def test_batches_without_buffers_and_without_calls(count: int):
    with Pair() as pair:
        server = Thread(lambda: serve(pair, count))
        assert batch(pair.host, count, b"") == [0] * count
        server.outcome()


def test_a_batch_that_times_out_says_what_became_of_it_and_lets_go_when_answered():
    with Pair() as pair:
        area, _ = pair.area()
        with pytest.raises(errors.Timeout, match=r"8 were sent and are not answered.*quarantined"):
            batch(pair.host, 20, descriptors(area, 20), 0.05)
        assert area.holds == 8
        serve(pair, 8)
        pair.host.poll()
        assert area.holds == 0


def test_a_channel_that_dies_with_a_batch_given_up_lets_go_of_its_areas():
    pair = Pair()
    area, _ = pair.area()
    before = sys.getrefcount(area)
    with pytest.raises(errors.Timeout):
        batch(pair.host, 8, descriptors(area, 8), 0.01)
    assert sys.getrefcount(area) == before + 8
    del pair.host
    assert sys.getrefcount(area) == before
    assert area.holds == 0
    pair.rings.close()


@pytest.mark.parametrize("count", [8, 100])
def test_a_channel_that_fails_under_a_batch_holds_nothing(count: int):
    """The same error, whether the ring took all of it or not: no service has answered that."""
    with Pair() as pair:
        area, _ = pair.area()
        caller = Thread(lambda: batch(pair.host, count, descriptors(area, count)))
        caller.wait_asleep(leader=True)
        pair.host.fail(errors.RemoteRestarted("it died"))
        with pytest.raises(errors.RemoteRestarted, match="it died"):
            caller.outcome()
        assert area.holds == 0
        assert pair.host.in_flight == 0


def test_a_ring_that_breaks_under_a_batch_holds_nothing():
    with Pair() as pair:
        area, _ = pair.area()
        before = sys.getrefcount(area)
        rings = pair.rings
        memory = memoryview(_native.Memory(rings.memory_fd, rings.size_bytes))
        tail = rings.send_offset + rings.line_bytes
        caller = Thread(lambda: batch(pair.host, 100, descriptors(area, 100)))
        caller.wait_asleep(leader=True)
        memory[tail : tail + 4] = struct.pack("<I", 1 << 30)
        pair.remote.send(1)  # a doorbell: it goes on, and finds the ring broken
        with pytest.raises(errors.ProtocolError, match="can't be"):
            caller.outcome()
        assert area.holds == 0
        assert sys.getrefcount(area) == before


def test_a_wrong_descriptor_fails_alone():
    with Pair() as pair:
        area, _ = pair.area()
        given = descriptors(area, 3)
        given[24:48] = descriptors(area, 1, size=1 << 40)
        server = Thread(lambda: serve(pair, 2))
        statuses = batch(pair.host, 3, given)
        assert [status == 0 for status in statuses] == [True, False, True]
        server.outcome()
        assert area.holds == 0


def test_calls_of_a_batch_carry_its_deadline():
    with Pair() as pair:
        rings = pair.rings
        memory = memoryview(_native.Memory(rings.memory_fd, rings.size_bytes))
        at = rings.send_offset + 2 * rings.line_bytes
        at += _native.layout()["sbe_wire_frame"]["deadline_us"][0]
        with pytest.raises(errors.Timeout):
            batch(pair.host, 1, b"", 0.05)
        assert 0 < struct.unpack_from("<I", memory, at)[0] <= 50_000
        pair.host.submit(1, (), b"", 7200.0)  # more than the wire can say: none
        assert struct.unpack_from("<I", memory, at + rings.geometry.slot_size_bytes)[0] == 0
