"""10^5 of each operation leave memory, objects, references and descriptors as they were."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sbe import _native, errors
from tests.unit.channel_pair import LIMIT_S, Pair
from tests.unit.session_pair import End, count_fds
from tests.unit.test_native_batch import descriptors

TIMES = 100_000
WARM = 2_000  # allocators and caches settle
ALLOWED_BYTES = 1 << 20  # ten bytes an operation are a leak; the smallest object has sixteen
KINDS = (_native.Channel, _native.Call, _native.Reply, _native.Request)
# A sanitizer's quarantine holds freed memory, a debug allocator its bookkeeping.
EXACT = not os.environ.get("LD_PRELOAD") and not sys.flags.dev_mode


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def objects() -> list[int]:
    gc.collect()
    seen = [type(item) for item in gc.get_objects()]
    return [seen.count(kind) for kind in KINDS]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair(slots=64) as pair:
        yield pair


@pytest.fixture
def flat(pair: Pair) -> Callable[[Callable[[], object]], None]:
    """Runs it 10^5 times and looks what has changed."""

    def run(work: Callable[[], object], each: int = 1) -> None:
        def state() -> tuple[Any, ...]:
            names = pair.host.names
            counted = (area, memory, pair.tables[0], pair.host, pair.remote, names, None)
            # None is immortal from Python 3.12 on; before, a leaked reference shows.
            references = [
                sys.getrefcount(item) // (1 if item is not None else 1000) for item in counted
            ]
            return objects(), references, area.holds, memory.holds, count_fds()

        area, memory = pair.area()
        pair.flat_area = area  # type: ignore[attr-defined]
        for _ in range(WARM // each):
            work()
        before, bytes_before = state(), resident_bytes()
        for _ in range(TIMES // each):
            work()
        grown = resident_bytes() - bytes_before
        assert state() == before
        assert not EXACT or grown < ALLOWED_BYTES, f"{grown / TIMES:.1f} bytes an operation"

    return run


def test_calls(pair: Pair, flat: Any):
    def work() -> None:
        area = pair.flat_area  # type: ignore[attr-defined]
        result = bytearray(16)
        buffers = (_native.In(area), _native.Out(area[0:64]), _native.Out(result), _native.In(b"x"))
        call = pair.host.submit(1, buffers, b"payload", LIMIT_S)
        request = pair.remote.next_request(0)
        assert request is not None
        request.respond(request.payload, 0, [0, 64, 16])
        reply = call.result(LIMIT_S)
        assert reply.written == (64, 16)
        assert reply.cost.copied_bytes == 17  # 16 home, 1 there
        assert repr(reply)

    flat(work)


def test_calls_with_callbacks(pair: Pair, flat: Any):
    def work() -> None:
        call = pair.host.submit(1)
        call.add_done_callback(lambda done: done.exception())
        pair.answer(status=-5)
        assert call.done()

    flat(work)


def test_calls_that_are_given_up(pair: Pair, flat: Any):
    def work() -> None:
        call = pair.host.submit(1, (_native.In(pair.flat_area),))  # type: ignore[attr-defined]
        call.cancel()
        request = pair.remote.next_request(0)
        assert request is not None
        del request  # unanswered
        pair.remote.poll()
        pair.host.poll()
        assert isinstance(call.exception(0), errors.Cancelled)

    flat(work)


def test_messages_and_syncs(pair: Pair, flat: Any):
    def work() -> None:
        area = pair.flat_area  # type: ignore[attr-defined]
        pair.host.send(1, (_native.In(area),), b"told")
        call = pair.host.sync(0, (_native.InOut(area),))
        assert pair.remote.next_request(0) is not None
        pair.remote.poll()
        call.result(LIMIT_S)

    flat(work)


def test_batches(pair: Pair, flat: Any):
    count = 50
    given: list[bytearray] = []

    def work() -> None:
        area = pair.flat_area  # type: ignore[attr-defined]
        if not given:
            given.append(descriptors(area, count, area=area.id + 1))
            given.append(descriptors(area, count))
        zeros = bytearray(8 * count)
        arrays = (b"", 0, bytearray(4 * count), zeros, bytearray(), 0)
        pair.host.batch(1, count, 1, given[0], *arrays)  # each fails alone
        with pytest.raises(errors.Timeout):
            pair.host.batch(1, count, 1, given[1], *arrays, 0.0001)
        while (request := pair.remote.next_request(0)) is not None:
            request.respond()
        pair.host.poll()

    flat(work, count)


def failures(pair: Pair) -> Iterator[Callable[[], object]]:
    host, area = pair.host, pair.flat_area  # type: ignore[attr-defined]
    yield lambda: host.submit(-1)
    yield lambda: host.submit(1, (_native.Out(b"constant"),))
    yield lambda: host.submit(1, (_native.In(area), _native.In(bytes(600))))
    yield lambda: host.submit(1, (_native.In(area),) * 3 + (None,))  # type: ignore[arg-type]
    yield lambda: host.submit(1, (_native.In(area),) * 17)
    yield lambda: host.submit(1, (_native.In(area),), bytes(2000))
    yield lambda: host.submit(1, (), b"", float("nan"))
    yield lambda: host.batch(1, 1, 1, b"", b"", 0, bytearray(), bytearray(), bytearray(), 0)
    yield lambda: area[0:8:2]
    yield lambda: area.__setitem__(slice(0, 8), b"x")
    yield lambda: pair.tables[0].add(area, 5, 1)
    yield lambda: _native.Memory(0, 0)
    yield lambda: _native.Table(0)
    yield lambda: _native.ring_size(3, 3, 3)


def test_errors(pair: Pair, flat: Any):
    works: list[Callable[[], object]] = []

    def work() -> None:
        if not works:
            works.extend(failures(pair))
        for wrong in works:
            try:
                wrong()
            except (errors.Error, _native.NeedsStaging, TypeError):
                continue
            raise AssertionError("no error")

    flat(work, 14)


def test_errors_of_a_dead_channel(pair: Pair, flat: Any):
    call = pair.host.submit(1)
    pair.host.fail(errors.LinkClosed("over"))

    def work() -> None:
        for wrong in (call.result, pair.host.poll, lambda: pair.host.submit(1)):
            try:
                wrong()
            except errors.LinkClosed:
                continue
            raise AssertionError("no error")

    flat(work, 3)


def test_channels(pair: Pair, flat: Any):
    def work() -> None:
        with Pair(slots=2, max_calls=2) as other:
            other.host.submit(1)
            other.remote.poll()

    flat(work, 50)


def test_sessions(pair: Pair, flat: Any):
    def work() -> None:
        end = End(_native.ROLE_HOST)
        end.session.start(7)
        end.session.receive(b"nonsense", 0)
        end.session.lost()
        end.handler.end = end  # type: ignore[attr-defined]  # a cycle

    flat(work, 20)
