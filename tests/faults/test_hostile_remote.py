"""A remote that lies: an error for the call it concerns, never a crash or a hang."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import sbe
from sbe import _native
from sbe.link.rings import Geometry
from tests.faults.attacks import remote
from tests.faults.raw_remote import RawRemote
from tests.faults.raw_rings import HEADER, Frame, Rings, request

LIMIT_S = 30.0
SMALL = Geometry(8, 1024)


def honest(rings: Rings, frame: Frame) -> None:
    rings.put(frame.response(b"fine"))


@contextmanager
def answered_by(
    answer: Callable[[Rings, Frame], Any], geometry: Geometry = SMALL
) -> Iterator[tuple[RawRemote, sbe.Connection]]:
    remote = RawRemote(answer)
    link = remote.link(geometry)
    try:
        yield remote, link
    finally:
        link.close()
        remote.close()


def change(index: int, **changed: int) -> Callable[[Frame], bytes]:
    """The right response with a descriptor changed."""

    def make(frame: Frame) -> bytes:
        buffers = frame.outputs()
        for name, by in changed.items():
            buffers[index][name] += by
        return frame.response(buffers=buffers)

    return make


# Of a call with In, Out and InOut: answers that are its own, and wrong.
MALFORMED: dict[str, Callable[[Frame], bytes]] = {
    "longer than a slot": lambda frame: frame.response(size=1025),
    "as long as can be": lambda frame: frame.response(size=0xFFFFFFFF),
    "shorter than a header": lambda frame: frame.response(size=HEADER - 1),
    "no length": lambda frame: frame.response(size=0),
    "bytes left over": lambda frame: frame.response(size=HEADER + 2 * 24 + 1),
    "payload beyond the frame": lambda frame: frame.response(payload_size=1),
    "payload of 4 GiB": lambda frame: frame.response(payload_size=0xFFFFFFFF),
    "reserved flags": lambda frame: frame.response(flags=1),
    "reserved bits": lambda frame: frame.response(reserved=1),
    "a status above zero": lambda frame: frame.response(status=1),
    "17 buffers": lambda frame: frame.response(buffers=frame.outputs() * 8 + frame.outputs()[:1]),
    "65,535 buffers": lambda frame: frame.response(buffer_count=65535),
    "no buffers": lambda frame: frame.response(buffers=[]),
    "one buffer of two": lambda frame: frame.response(buffers=frame.outputs()[:1]),
    "one buffer too many": lambda frame: frame.response(buffers=[*frame.outputs()] * 2),
    "buffers swapped": lambda frame: frame.response(buffers=frame.outputs()[::-1]),
    "the IN buffer as well": lambda frame: frame.response(buffers=[dict(b) for b in frame.buffers]),
    "another area": change(0, area=1),
    "another offset": change(1, offset=1),
    "another direction": change(0, direction=1),
    "a direction of nothing": change(0, direction=100),
    "inline though it was not": change(0, flags=1),
    "unknown buffer flags": change(1, flags=2),
    "reserved buffer bits": change(1, reserved=1),
    "one byte more": change(0, size=1),
    "all bytes there are": change(1, size=(1 << 64) - 1 - 30),
}


@pytest.mark.parametrize("what", MALFORMED)
@remote(4, 8, 9)
def test_a_malformed_answer_ends_its_call_only(what: str) -> None:
    make, answers = MALFORMED[what], itertools.count()

    def answer(rings: Rings, frame: Frame) -> None:
        rings.put(frame.response(b"fine") if next(answers) else make(frame))

    with answered_by(answer) as (_, link):
        area = link.allocate(4096)
        buffers = sbe.In(area[:10]), sbe.Out(area[10:30]), sbe.InOut(area[50:80])
        with pytest.raises(sbe.ProtocolError, match=r"answer of service 'any' was malformed"):
            link.call("any", *buffers, timeout=LIMIT_S)
        assert area.holds == 0
        reply = link.call("any", *buffers, timeout=LIMIT_S)
        assert (reply.payload, reply.written) == (b"fine", (20, 30))
        area.free()


@pytest.mark.parametrize("what", MALFORMED)
@remote(4, 8, 9)
def test_a_malformed_answer_in_a_batch(what: str) -> None:
    make = MALFORMED[what]
    count = itertools.count()

    def answer(rings: Rings, frame: Frame) -> None:
        rings.put(make(frame) if next(count) == 3 else frame.response())

    with answered_by(answer) as (_, link):
        area = link.allocate(4096)
        columns = [
            area.descriptors(sbe.In, [0] * 10, 10),
            area.descriptors(sbe.Out, [10] * 10, 20),
            area.descriptors(sbe.InOut, [50] * 10, 30),
        ]
        result = link.batch("any", np.stack(columns, axis=1), timeout=LIMIT_S)
        assert result.status.tolist() == [0, 0, 0, -74, *[0] * 6]
        assert result.written[3].tolist() == [0, 0, 0]
        assert area.holds == 0


@remote(4, 8, 9)
def test_inline_results_of_another_size() -> None:
    for extra in (-1, 1, 1000, 1 << 40):

        def answer(rings: Rings, frame: Frame, extra: int = extra) -> None:
            buffers = frame.outputs()
            buffers[0]["size"] += extra
            rings.put(frame.response(bytes(100), buffers=buffers, payload_size=0))

        with answered_by(answer) as (_, link), pytest.raises(sbe.ProtocolError):
            link.call("any", sbe.Out(bytearray(100)), timeout=LIMIT_S)


@pytest.mark.parametrize(
    "changed",
    [
        {"transaction": 1 << 32 | 7},
        {"transaction": 0xFFFFFFFF_FFFFFFFF},
        {"transaction": 0x7FFFFFFF << 32},
        {"transaction": 0},
        {"type": 0},
        {"type": 200},
        {"type": _native.FRAME_CANCEL},
        {"type": _native.FRAME_EVENT},
    ],
    ids=str,
)
@remote(24, 28)
def test_frames_that_concern_no_call_are_dropped(changed: dict[str, Any]) -> None:
    def answer(rings: Rings, frame: Frame) -> None:
        rings.put(frame.response(**changed))
        honest(rings, frame)
        honest(rings, frame)  # again: the transaction is over

    with answered_by(answer) as (_, link):
        for _ in range(20):
            assert link.call("any", timeout=LIMIT_S).payload == b"fine"
        counters = link.stat()["connection"]
        assert counters["bad"] + counters["late"] >= 19  # the last one may be on its way
        assert counters["in_flight"] == 0


@remote(1, 5, 9)
def test_random_bytes_for_frames() -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)

    def answer(rings: Rings, frame: Frame) -> None:
        for _ in range(3):
            rings.put(chance.randbytes(1024))
        if chance.random() < 0.5:
            right = bytearray(frame.response(b"payload"))
            right[chance.randrange(len(right))] ^= 1 << chance.randrange(8)
            rings.put(bytes(right))
        honest(rings, frame)

    with answered_by(answer, Geometry(64, 1024)) as (_, link):
        area = link.allocate(4096)
        for _ in range(300):
            try:
                link.call("any", sbe.Out(area[:100]), sbe.In(b"inline"), timeout=LIMIT_S)
            except sbe.Error as error:
                assert not isinstance(error, sbe.Timeout), f"seed {seed}"  # noqa: PT017
        assert area.holds == 0, f"seed {seed}"


INDICES: dict[str, Callable[[Rings], None]] = {
    "head one too far": lambda rings: rings.publish_head(rings.head + rings.slots + 1),
    "head far away": lambda rings: rings.publish_head(rings.head + (1 << 31)),
    "head going back": lambda rings: rings.publish_head(rings.head - 1),
    # Beyond all that may be sent before the tail is looked at: else it is no lie for long.
    "tail before head": lambda rings: rings.publish_tail(rings.tail + 2 * rings.slots),
    "tail far away": lambda rings: rings.publish_tail(rings.tail + (1 << 31)),
    "tail going back": lambda rings: rings.publish_tail(rings.tail - 1000),
}


def call_often(link: sbe.Connection, target: Any) -> None:
    for future in [link.submit("any", sbe.Out(target)) for _ in range(20)]:
        future.result(LIMIT_S)


@pytest.mark.parametrize("what", INDICES)
@remote(3)
def test_an_index_that_cant_be_shuts_the_channel(what: str) -> None:
    lie = INDICES[what]
    seen: list[Rings] = []

    def answer(rings: Rings, frame: Frame) -> None:
        if not seen:
            seen.append(rings)
        if rings is seen[0]:
            rings.silent = True
            lie(rings)
        else:
            honest(rings, frame)

    with answered_by(answer) as (_, link):
        area = link.allocate(4096)
        area[:4] = b"kept"
        # A tail is looked at when the ring seems full: some calls later.
        with pytest.raises(sbe.ProtocolError, match=r"index that can't be; channel 1 is shut"):
            call_often(link, area[10:20])
        assert area.holds == 0
        assert link.call("any", sbe.Out(area[10:20]), timeout=LIMIT_S).payload == b"fine"
        assert bytes(area[:4]) == b"kept"
        assert link.stat()["connection"]["losses"] == 1


@remote(3)
async def test_an_index_that_cant_be_under_asyncio() -> None:
    lies = itertools.chain(
        [lambda rings, frame: rings.publish_head(rings.head + 1000)], itertools.repeat(honest)
    )
    with answered_by(lambda rings, frame: next(lies)(rings, frame)) as (_, link):
        with pytest.raises(sbe.ProtocolError, match="is shut"):
            await link.acall("any", timeout=LIMIT_S)
        assert (await link.acall("any", timeout=LIMIT_S)).payload == b"fine"


@remote(1, 5, 9)
def test_ring_memory_scribbled_over_all_the_time() -> None:
    """Whatever is read changes under the reader: every call ends, with an answer or an error."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    rings_seen: list[Rings] = []
    stop = threading.Event()

    def answer(rings: Rings, frame: Frame) -> None:
        rings_seen[:] = [rings]
        honest(rings, frame)

    def scribble() -> None:
        while not stop.is_set():
            for rings in rings_seen:
                # Frames, sizes and counts under the reader; indices now and then.
                slot = rings.slot(rings.outgoing, chance.randrange(rings.slots))
                at = slot + chance.randrange(HEADER + 64)
                rings.memory[at : at + 1] = chance.randbytes(1)
                if chance.random() < 0.001:
                    word = rings.outgoing + chance.randrange(0, 2 * rings.line, 4)
                    rings.memory[word : word + 4] = chance.randbytes(4)
            time.sleep(0)

    scribbler = threading.Thread(target=scribble)
    with answered_by(answer) as (_, link):
        area = link.allocate(4096)
        scribbler.start()
        try:
            ends = []
            until = time.monotonic() + 2
            while time.monotonic() < until:
                try:
                    link.call("any", sbe.Out(area[:100]), sbe.InOut(bytearray(50)), timeout=0.1)
                    ends.append("answered")
                except sbe.Error as error:
                    ends.append(type(error).__name__)
            assert ends, f"seed {seed}"
        finally:
            stop.set()
            scribbler.join()


@remote(20, 24)
def test_a_flood_of_responses() -> None:
    def answer(rings: Rings, frame: Frame) -> None:
        for _ in range(500):
            rings.put(frame.response(transaction=frame.header["transaction"] + (1 << 40)))
        honest(rings, frame)

    with answered_by(answer) as (_, link):
        for _ in range(10):
            assert link.call("any", timeout=LIMIT_S).payload == b"fine"
        assert link.stat()["connection"]["late"] >= 5000


@remote(20, 24)
def test_a_flood_of_requests_to_a_host_that_serves_nothing() -> None:
    """What is kept is bounded; calls of this end go on."""
    flood = itertools.count()
    replies: list[int] = []

    def answer(rings: Rings, frame: Frame) -> None:
        if frame.header["type"] == _native.FRAME_RESPONSE:
            replies.append(frame.header["status"])
            return
        for _ in range(600):
            rings.put(request(77, 1 << 32 | next(flood)))
        honest(rings, frame)

    with answered_by(answer) as (_, link):
        for _ in range(10):
            assert link.call("any", timeout=LIMIT_S).payload == b"fine"
        counters = link.stat()["connection"]
        assert counters["requests"] <= 4096
        assert counters["refused"] == 6000 - counters["requests"]
    assert set(replies) == {(1 << 32) - 16}  # -EBUSY, to those for which the ring had room


def test_requests_for_services_that_nobody_offers() -> None:
    replies: list[int] = []

    def answer(rings: Rings, frame: Frame) -> None:
        if frame.header["type"] == _native.FRAME_RESPONSE:
            replies.append(frame.header["status"])
            return
        for i in range(5):
            rings.put(request(77, 1 << 32 | i))
        honest(rings, frame)

    with answered_by(answer, Geometry(32, 1024)) as (_, link):
        link.serve("other", lambda payload: payload)
        until = time.monotonic() + LIMIT_S
        link.call("any", timeout=LIMIT_S)
        while len(replies) < 5 and time.monotonic() < until:
            link.call("any", timeout=LIMIT_S)
        assert set(replies) == {(1 << 32) - 2}  # -ENOENT


BAD_REQUESTS: dict[str, dict[str, int]] = {
    "area that is not there": {"area": 0x7FFF0001, "direction": 1, "size": 1},
    "area 0": {"area": 0, "direction": 1, "size": 1},
    "outside the area": {"direction": 2, "offset": 4090, "size": 10},
    "overflow": {"direction": 2, "offset": (1 << 64) - 1, "size": 2},
    "no direction": {"direction": 0, "size": 1},
    "the rings themselves": {"ring": 1, "direction": 2, "size": 8},
    "reserved": {"direction": 1, "size": 1, "reserved": 1},
    "inline with an area": {"direction": 1, "size": 1, "flags": 1},
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
@remote(4, 23)
def test_a_request_with_a_buffer_that_cant_be_never_reaches_a_handler(what: str) -> None:
    statuses: list[int] = []
    ids: dict[str, int] = {}

    def answer(rings: Rings, frame: Frame) -> None:
        if frame.header["type"] == _native.FRAME_RESPONSE:
            statuses.append(frame.header["status"])
            return
        fields = dict(BAD_REQUESTS[what])
        if fields.pop("ring", 0):
            fields["area"] = ids["ring"]
        fields.setdefault("area", frame.buffers[0]["area"])
        rings.put(request(1, 99, buffers=[fields]))
        honest(rings, frame)

    ran: list[object] = []
    with answered_by(answer) as (_, link):
        # Both ends know the rings' area by its id.
        context = link._core.backend._context  # type: ignore[attr-defined]
        ids["ring"] = context._channels[1].ring_area
        link.serve("victim", lambda payload, *buffers: ran.append(buffers))
        area = link.allocate(4096)
        until = time.monotonic() + LIMIT_S
        while not statuses and time.monotonic() < until:
            link.call("any", sbe.Out(area), timeout=LIMIT_S)
        assert not ran
        assert all(status >= 1 << 31 for status in statuses)  # negative: refused
