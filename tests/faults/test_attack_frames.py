"""An application whose frames are wrong: each is refused with its reason, and harms nobody."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from sbe import _native
from tests.faults.arena import Arena, Attacker, Channel
from tests.faults.attacks import application
from tests.faults.raw_rings import DESCRIPTOR, HEADER, request

IN, OUT, INOUT, SHARED = (
    getattr(_native, f"DIR_{name}") for name in ("IN", "OUT", "INOUT", "SHARED")
)
AREA = 65536  # bytes
NUMBER = 1 << 32 | 0xBAD


class Refused(NamedTuple):
    """Classes of the attack, the errno of the answer (0: none comes), and what is wrong."""

    classes: tuple[int, ...]
    code: int
    changed: Mapping[str, int] = {}
    buffers: Sequence[dict[str, int]] = ()
    payload: bytes = b""


def short(size: int, **changed: int) -> Refused:
    return Refused((9,), errno.EBADMSG, {"size": size, **changed})


def buffer(code: int, *classes: int, **fields: int) -> Refused:
    return Refused(classes or (4,), code, {}, [{"direction": IN, "size": 1, **fields}])


def silent(**changed: int) -> Refused:
    return Refused((28,), 0, changed)


FRAMES: dict[str, Refused] = {
    "no length": short(0),
    "shorter than its header": short(HEADER - 1),
    "longer than it is": short(HEADER + 8),
    "longer than a slot": short(1025),
    "as long as can be": short(0xFFFFFFFF),
    "a payload beyond it": short(HEADER, payload_size=1),
    "a payload that wraps": short(HEADER, payload_size=(1 << 32) - HEADER),
    "a payload of 4 GiB": short(HEADER, payload_size=0xFFFFFFFF),
    "half a buffer": short(HEADER + DESCRIPTOR - 1, buffer_count=1),
    "a buffer that is not there": short(HEADER, buffer_count=1),
    "17 buffers": Refused(
        (8,), errno.EBADMSG, {"buffer_count": 17}, [{"direction": IN, "flags": 1, "area": 0}] * 17
    ),
    "65,535 buffers": Refused((8,), errno.EBADMSG, {"buffer_count": 65535}),
    "16 buffers, one of them there": Refused(
        (8,), errno.EBADMSG, {"buffer_count": 16}, [{"direction": IN, "flags": 1, "area": 0}]
    ),
    # Where a buffer lies: the area has AREA bytes.
    "one byte behind the end": buffer(errno.ERANGE, offset=AREA),
    "one byte too many": buffer(errno.ERANGE, size=AREA + 1),
    "offset and size wrap to 1": buffer(errno.ERANGE, offset=(1 << 64) - 1, size=2),
    "offset and size wrap to 0": buffer(errno.ERANGE, offset=4096, size=(1 << 64) - 4096),
    "two halves of all there is": buffer(errno.ERANGE, offset=1 << 63, size=1 << 63),
    "offset of 4 GiB": buffer(errno.ERANGE, offset=1 << 32),
    "size of 4 GiB": buffer(errno.ERANGE, size=1 << 32),
    "size of 4 GiB and one": buffer(errno.ERANGE, size=(1 << 32) + 1),
    "ends at 4 GiB": buffer(errno.ERANGE, offset=(1 << 32) - 1, size=1),
    "as large as can be": buffer(errno.ERANGE, size=(1 << 64) - 1),
    "nothing at the end of all": buffer(errno.ERANGE, offset=(1 << 64) - 1, size=0),
    "the second of two": Refused(
        (4,), errno.ERANGE, {}, [{"direction": IN, "size": 1}, {"direction": OUT, "size": 1 << 40}]
    ),
    # What rides in the frame.
    "inline bytes that are not there": buffer(errno.EBADMSG, 4, 9, flags=1, area=0),
    "inline bytes whose size is cut": buffer(errno.EBADMSG, flags=1, area=0, size=1 << 32),
    "inline bytes without end": buffer(errno.EBADMSG, flags=1, area=0, size=(1 << 64) - 1),
    "inline results beyond a slot": buffer(
        errno.EMSGSIZE, 4, 7, flags=1, area=0, direction=OUT, size=1025
    ),
    "inline results without end": buffer(
        errno.EMSGSIZE, 4, 7, flags=1, area=0, direction=OUT, size=(1 << 64) - 1
    ),
    "inline results that wrap": Refused(
        (4, 7),
        errno.EMSGSIZE,
        {},
        [
            {"direction": OUT, "flags": 1, "area": 0, "size": 64},
            {"direction": OUT, "flags": 1, "area": 0, "size": (1 << 64) - 64},
        ],
    ),
    "inline, and of an area": buffer(errno.EBADMSG, 28, flags=1),
    "inline and shared": buffer(errno.EBADMSG, 28, flags=1, area=0, direction=SHARED),
    "no direction": buffer(errno.EBADMSG, 28, direction=0),
    "a direction beyond all": buffer(errno.EBADMSG, 28, direction=255),
    "flags that mean nothing": buffer(errno.EBADMSG, 28, flags=2),
    "what is reserved in a buffer": buffer(errno.EBADMSG, 28, reserved=1),
    # Areas by their ids: the others' are below.
    "area 0": buffer(errno.EFAULT, 23, area=0),
    "an index beyond the table": buffer(errno.EFAULT, 3, 23, area=0x1FFFF),
    # Frames that are no requests, or requests that can't be.
    "flags": Refused((28,), errno.EBADMSG, {"flags": 1}),
    "what is reserved": Refused((28,), errno.EBADMSG, {"reserved": 1}),
    "a request that was refused before": Refused((28,), errno.EBADMSG, {"status": -1}),
    "a SYNC with a payload": Refused(
        (28,), errno.EBADMSG, {"type": _native.FRAME_SYNC}, payload=b"x"
    ),
    "a service 0": Refused((28,), errno.ENOENT, {"service": 0}),
    "a service beyond all": Refused((3, 28), errno.ENOENT, {"service": 65535}),
    "a request of no transaction": silent(transaction=0),
    "a message with a transaction": silent(type=_native.FRAME_MESSAGE),
    "an event of the application": silent(type=_native.FRAME_EVENT, transaction=0),
    "a cancel of what is not there": silent(type=_native.FRAME_CANCEL),
    "an answer to nothing": silent(type=_native.FRAME_RESPONSE),
    "a type 0": silent(type=0),
    "a type beyond all": silent(type=200),
}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(wrong, id=what, marks=application(*wrong.classes))
        for what, wrong in FRAMES.items()
    ],
)
def test_a_wrong_frame(arena: Arena, wrong: Refused) -> None:
    evil = arena.attacker()
    echo, channel = evil.service("echo"), evil.channel()
    area, memory = evil.area(AREA)
    memory[:] = b"m" * AREA
    buffers = [{"area": area, **fields} for fields in wrong.buffers]
    changed = {"service": echo, "transaction": NUMBER, **wrong.changed}
    channel.put(request(payload=wrong.payload, buffers=buffers, **changed))
    after = channel.ask(echo, b"after")
    frame = channel.next()
    if wrong.code:
        assert frame.header["transaction"] == NUMBER
        assert frame.status == -wrong.code
        assert frame.header["size"] == HEADER + DESCRIPTOR * frame.header["buffer_count"]
        frame = channel.next()
    assert (frame.header["transaction"], frame.payload) == (after, b"after")
    assert memory[:] == b"m" * AREA


# -- areas that are not its own --------------------------------------------------------------------


def written(area: int) -> list[dict[str, int]]:
    return [{"area": area, "direction": OUT, "size": 64}]


def status_of(channel: Channel, fill: int, area: int) -> int:
    """Of an attempt to write there."""
    return channel.answer(channel.ask(fill, b"!", buffers=written(area))).status


def batched(items: list[int], count: int) -> Iterator[list[int]]:
    """So many at a time, until itertools has it in every Python."""
    for start in range(0, len(items), count):
        yield items[start : start + count]


@application(1, 15, 23)
def test_areas_of_others_by_every_id_there_could_be(arena: Arena) -> None:
    evil = arena.attacker()
    fill, channel = evil.service("fill"), evil.channel()
    own, _ = evil.area()
    theirs = {row["id"] for row in arena.daemon.list()["areas"]} - {own}
    assert theirs
    last = own & 0xFFFF  # fresh indexes come first
    ids = {index | generation << 16 for index in range(last + 8) for generation in (1, 2)}
    seen = {}
    for some in batched(sorted(ids | theirs), 32):
        asked = {channel.ask(fill, b"!", buffers=written(area)): area for area in some}
        for _ in asked:
            frame = channel.next()
            seen[asked[frame.header["transaction"]]] = frame.status
    assert [area for area, status in seen.items() if status == 0] == [own]
    assert {-errno.EFAULT, -errno.EACCES} == {*seen.values()} - {0}
    # That of the bystander which is always there, and rings, the attacker's own among them.
    assert sum(status == -errno.EACCES for status in seen.values()) >= 3


@application(23, 24)
def test_an_area_that_was_freed(arena: Arena) -> None:
    evil = arena.attacker()
    fill, channel = evil.service("fill"), evil.channel()
    area, memory = evil.area()
    assert status_of(channel, fill, area) == 0
    evil.client.call("Free", area=area)
    assert status_of(channel, fill, area) == -errno.EFAULT
    memory[:4] = b"mine"  # it may write there, where nobody looks any more
    for _ in range(20):
        later, _ = evil.area()
        assert later != area
        assert status_of(channel, fill, area) == -errno.EFAULT
        assert status_of(channel, fill, later) == 0
        evil.client.call("Free", area=later)


@application(23, 25)
def test_areas_that_are_freed_under_their_requests(arena: Arena) -> None:
    evil = arena.attacker()
    mulaw, crc32, channel = evil.service("mulaw"), evil.service("crc32"), evil.channel()
    for _ in range(10):
        area, _ = evil.area(1 << 20)
        half = {"area": area, "size": 1 << 19}
        asked = [
            channel.ask(mulaw, buffers=[{**half, "direction": IN}, {**half, "direction": OUT,
                                                                    "offset": 1 << 19}]),
            channel.ask(crc32, buffers=[{**half, "direction": IN}]),
        ]  # fmt: skip
        evil.client.call("Free", area=area)  # answered when no request holds it
        assert {channel.next().status for _ in asked} <= {0, -errno.EFAULT}


# -- what others' requests left behind -------------------------------------------------------------


SERVICES: dict[str, Callable[[int], list[dict[str, int]]]] = {
    "echo": lambda size: [{"direction": OUT, "size": size}],
    "copy": lambda size: [{"direction": IN, "size": 1}, {"direction": OUT, "size": size}],
    "fir": lambda size: [{"direction": IN, "size": 2}, {"direction": OUT, "size": size}],
    "mulaw": lambda size: [{"direction": IN, "size": 2}, {"direction": OUT, "size": size}],
    "crc32": lambda size: [{"direction": INOUT, "size": 1}, {"direction": OUT, "size": size}],
    "fill": lambda size: [{"direction": OUT, "size": size}],
}


@pytest.mark.parametrize("service", SERVICES)
@application(27)
def test_room_for_results_shows_nothing_of_others(arena: Arena, service: str) -> None:
    """The remote lays results out where those of the bystander were. What is seen is checked after
    each attack: none of its bytes is in any memory of the attacker's.
    """
    evil = arena.attacker()
    number, channel = evil.service(service), evil.channel()
    for size in (1, 7, 19, 64, 333, 800):
        for payload in (b"", b"\0", b"\1\0"):
            buffers = [{"flags": 1, "area": 0, **fields} for fields in SERVICES[service](size)]
            carried = sum(b["size"] for b in buffers if b["direction"] & IN)
            frame = request(number, channel.next_transaction(), payload, buffers)
            channel.put(frame.replace(frame[:4], (len(frame) + carried).to_bytes(4, "little"), 1)
                        + bytes(carried))  # fmt: skip
            arena.bystander.goes_on(1)
            answer = channel.next()
            assert answer.header["reserved"] == answer.header["flags"] == 0


@application(1, 28)
def test_requests_of_all_services_with_every_direction(arena: Arena) -> None:
    """Legal frames that make no sense: each is answered."""
    evil = arena.attacker()
    services = [row["id"] for row in evil.client.call("ListServices")["services"]]
    channel = evil.channel(slots=256)
    area, _ = evil.area()
    for service in services:
        asked: list[int] = []
        for first in (IN, OUT, INOUT, SHARED):
            for second in (IN, OUT, INOUT, SHARED):
                both: list[dict[str, Any]] = [
                    {"area": area, "direction": first, "offset": 3, "size": 33},
                    {"area": area, "direction": second, "offset": 17, "size": 31},
                ]
                for payload in (b"", b"\0" * 8, b"\xff" * 9):
                    asked.append(channel.ask(service, payload, buffers=both))
        answered = {channel.next().header["transaction"] for _ in asked}
        assert answered == set(asked)


def test_the_cases_leave_the_channel_alive(arena: Arena) -> None:
    """An attacker that behaves is served: what is refused above is refused for what it is."""
    evil: Attacker = arena.attacker()
    channel = evil.channel()
    assert channel.works(evil.service("echo"))
