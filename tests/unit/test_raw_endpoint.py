"""Raw messages at the link floor: caches by direction, memory that is held, hostile numbers."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbe import _native, errors
from sbe.heaps import Allocation
from sbe.link.fixups import Field, Fixup
from sbe.link.raw import ANSWER, IN_FLIGHT_MAX, RawBuffer, RawEndpoint, RawMatch
from tests.unit.model_settings import SETTINGS

LINE = 64
IN, OUT, INOUT, SHARED = (
    _native.DIR_IN,
    _native.DIR_OUT,
    _native.DIR_INOUT,
    _native.DIR_SHARED,
)
BY_ID = RawMatch("id", Field(0, 32), Field(0, 32))


@dataclass
class Scene:
    """An endpoint, the areas of its context, and everything that happens, in order."""

    events: list[tuple[object, ...]] = field(default_factory=list)
    came: list[bytes] = field(default_factory=list)
    holds: dict[int, int] = field(default_factory=dict)
    room: bool = True
    alive: bool = True
    memories: dict[int, Allocation] = field(default_factory=dict)
    name = "scene"
    address = 7

    def fileno(self) -> int:
        return 0

    def send(self, message: bytes) -> bool:
        if not self.alive:
            raise errors.LinkError("gone")
        if self.room:
            self.events.append(("sent", message))
        return self.room

    def receive(self) -> bytes | None:
        if not self.alive:
            raise errors.LinkError("gone")
        return self.came.pop(0) if self.came else None

    def close(self) -> None:
        self.events.append(("closed",))

    def sync_for_device(self, offset: int, size_bytes: int) -> None:
        self.events.append(("clean", offset, size_bytes))

    def sync_for_cpu(self, offset: int, size_bytes: int) -> None:
        self.events.append(("invalidate", offset, size_bytes))

    def hold(self, area: int) -> Allocation:
        if area not in self.memories:
            raise errors.AreaFreed(f"no area {area}")
        self.holds[area] = self.holds.get(area, 0) + 1
        return self.memories[area]

    def let_go(self, area: int) -> None:
        self.holds[area] -= 1

    @property
    def held(self) -> bool:
        return any(self.holds.values())


@contextlib.contextmanager
def opened(match: RawMatch = BY_ID) -> Iterator[tuple[Scene, RawEndpoint, socket.socket]]:
    scene = Scene()
    for area, coherent in ((1, True), (2, False)):
        scene.memories[area] = Allocation(
            -1, 4096, coherent, segments=((area << 16, 4096),), attachment=scene
        )
    scene.memories[3] = Allocation(-1, 4096, True, segments=((3 << 16, 4096),), readonly=True)
    scene.memories[4] = Allocation(-1, 4096, True)
    raw = RawEndpoint(scene, scene, match, LINE)
    with socket.socket(fileno=raw.hand_over()) as told:
        told.setblocking(False)
        yield scene, raw, told
        raw.release()
        assert scene.events[-1] == ("closed",)


TEMPLATE = bytes(16)
ADDRESS = [Fixup("address", 8, 64)]


@pytest.mark.parametrize(
    ("direction", "after"), [(IN, []), (OUT, ["invalidate"]), (INOUT, ["invalidate"])]
)
def test_caches_by_direction(direction: int, after: list[str]):
    """Cleaned before it is sent, whatever the direction; looked at afresh before it is told."""
    with opened() as (scene, raw, told):
        buffers = [RawBuffer(2, 128, 64, direction), RawBuffer(1, 1, 1, direction)]
        raw.send(7, TEMPLATE, ADDRESS, buffers)
        [clean, sent] = scene.events
        assert clean == ("clean", 128, 64)
        message = sent[1]
        assert isinstance(message, bytes)
        assert int.from_bytes(message[8:], "little") == (2 << 16) + 128
        scene.events.clear()
        scene.came.append(message[:4] + b"done")
        raw.process()
        assert scene.events == [(kind, 128, 64) for kind in after]
        assert told.recv(100) == ANSWER.pack(7, 0) + message[:4] + b"done"
        assert not scene.held


def test_nothing_is_held_for_what_was_not_sent():
    with opened() as (scene, raw, _):
        scene.room = False
        with pytest.raises(errors.WouldBlock):
            raw.send(1, TEMPLATE, ADDRESS, [RawBuffer(2, 0, 64, OUT)])
        assert not scene.held
        scene.alive = False
        with pytest.raises(errors.LinkError):
            raw.send(1, TEMPLATE, ADDRESS, [RawBuffer(2, 0, 64, OUT)])
        assert not scene.held
        raw.process()
        with pytest.raises(errors.LinkError, match="gone"):
            raw.send(1, TEMPLATE, (), ())


@pytest.mark.parametrize(
    ("buffer", "kind", "words"),
    [
        (RawBuffer(9, 0, 1, IN), errors.AreaFreed, "no area 9"),
        (RawBuffer(1, 0, 4097, IN), errors.OutOfRange, "leave its 4096"),
        (RawBuffer(1, 1 << 64, 1, IN), errors.OutOfRange, "leave its 4096"),
        (RawBuffer(1, (1 << 64) - 1, 2, IN), errors.OutOfRange, "leave its 4096"),
        (RawBuffer(1, -1, 1, IN), errors.OutOfRange, "leave its 4096"),
        (RawBuffer(1, 0, 0, IN), errors.OutOfRange, "leave its 4096"),
        (RawBuffer(1, 0, 1, 9), errors.BadArgument, "9 is no direction"),
        (RawBuffer(3, 0, 1, OUT), errors.BadArgument, "read-only"),
        (RawBuffer(4, 0, 1, IN), errors.BadArgument, "no device address"),
        (RawBuffer(2, 32, 64, OUT), errors.BadArgument, "cache line, 64 bytes"),
        (RawBuffer(2, 0, 32, INOUT), errors.BadArgument, "cache line, 64 bytes"),
        (RawBuffer(2, 0, 64, SHARED), errors.BadArgument, "not coherent"),
    ],
)
def test_buffers_are_checked(buffer: RawBuffer, kind: type[errors.Error], words: str):
    with opened() as (scene, raw, _):
        with pytest.raises(kind, match=words):
            raw.send(1, TEMPLATE, ADDRESS, [buffer])
        assert not scene.held
        assert not scene.events


def test_numbers_are_checked():
    with opened() as (_, raw, _told):
        for number in (-1, 1 << 32):
            with pytest.raises(errors.BadArgument, match="no number of a new message"):
                raw.send(number, TEMPLATE, (), ())
        raw.send(5, TEMPLATE, (), ())
        with pytest.raises(errors.BadArgument, match="no number of a new message"):
            raw.send(5, TEMPLATE, (), ())
        with pytest.raises(errors.BadArgument, match="has no buffers"):
            raw.send(0, TEMPLATE, ADDRESS, [RawBuffer(1, 0, 1, IN)])
        raw.send(0, TEMPLATE, (), ())
        for number in range(6, 5 + IN_FLIGHT_MAX):
            raw.send(number, TEMPLATE, (), ())
        with pytest.raises(errors.Busy, match="64 messages"):
            raw.send(99, TEMPLATE, (), ())
        raw.settle(1234)
        raw.settle(5)
        raw.send(99, TEMPLATE, (), ())


@pytest.mark.parametrize(
    "match",
    [
        RawMatch("luck"),
        RawMatch("id"),
        RawMatch("id", Field(0, 32)),
        RawMatch("id", Field(0, 32), Field(0, 16)),
        RawMatch("id", Field(-1, 32), Field(0, 32)),
        RawMatch("id", Field(0, 33), Field(0, 33)),
        RawMatch("order", Field(0, 32), Field(0, 32)),
    ],
)
def test_matches_are_checked(match: RawMatch):
    with pytest.raises(errors.BadArgument), opened(match):
        pass


def test_ids_of_16_bits_come_round():
    """Those in flight are not given out again."""
    with opened(RawMatch("id", Field(0, 16), Field(0, 16))) as (scene, raw, told):
        raw.send(1, TEMPLATE, (), ())
        first = scene.events[-1][1]
        seen = set()
        for number in range(2, 70_000):
            raw.send(number, TEMPLATE, (), ())
            message = scene.events.pop()[1]
            assert isinstance(message, bytes)
            seen.add(message[:2])
            scene.came.append(message)
            raw.process()
            told.recv(100)
        assert isinstance(first, bytes)
        assert first[:2] not in seen
        assert len(seen) == (1 << 16) - 2  # all but that, and 0


def test_who_reads_nothing_costs_little_and_loses_no_answer():
    with opened() as (scene, raw, told):
        for number in range(1, IN_FLIGHT_MAX + 1):
            raw.send(number, TEMPLATE, (), ())
        messages = [event[1] for event in scene.events]
        scene.came += [b"\xff" * 496] * 1000
        scene.came += [message + bytes(480) for message in messages if isinstance(message, bytes)]
        while scene.came:
            raw.process()
        assert raw.unmatched == 1000
        assert raw.dropped > 500
        numbers = []
        with contextlib.suppress(BlockingIOError):
            while True:
                numbers.append(ANSWER.unpack_from(told.recv(1000))[0])
        assert [number for number in numbers if number] == [*range(1, IN_FLIGHT_MAX + 1)]


def test_what_is_in_flight_outlives_its_owner():
    with opened() as (scene, raw, told):
        raw.send(1, TEMPLATE, ADDRESS, [RawBuffer(1, 0, 64, OUT)])
        message = scene.events[-1][1]
        assert isinstance(message, bytes)
        told.close()
        raw.abandon()
        assert scene.held
        assert not raw.ended
        scene.came.append(b"foreign")
        raw.process()
        assert scene.held
        scene.came.append(message)
        raw.process()
        assert not scene.held
        assert raw.ended
        assert (raw.sent, raw.answered, raw.late, raw.unmatched, raw.in_flight) == (1, 1, 1, 1, 0)


def test_the_end_of_the_firmware_lets_go_of_all():
    with opened() as (scene, raw, told):
        for number in range(1, 9):
            raw.send(number, TEMPLATE, ADDRESS, [RawBuffer(1, 0, 64, OUT)])
        scene.alive = False
        raw.process()
        assert not scene.held
        assert raw.ended
        assert told.recv(100) == b""


TEXT_ID = RawMatch("id", Field(1, 16, "hex"), Field(1, 16, "hex"))
NEAR = st.sampled_from(
    [b"", b"\1", b"\1\0\0\0", b"\1\0\0\0\0", b"B0001", b"B000g", b"B00 1", b"B+001"]
)


@SETTINGS
@given(
    st.lists(st.one_of(NEAR, st.binary(max_size=496)), max_size=20),
    st.sampled_from([BY_ID, TEXT_ID, RawMatch("caller")]),
)
def test_whatever_comes(messages: list[bytes], match: RawMatch):
    """Memory is let go of by its own answer only, and every message is told, in order."""
    with opened(match) as (scene, raw, told):
        raw.send(9, TEMPLATE, ADDRESS, [RawBuffer(1, 0, 64, OUT)])
        sent = scene.events[-1][1]
        assert isinstance(sent, bytes)
        expected = []
        for message in messages:
            ours = scene.held and is_answer(sent, message, match)
            scene.came.append(message)
            raw.process()
            expected.append(ANSWER.pack(9 if ours else 0, 0) + message)
            assert scene.held != (ours or any(each[:4] == b"\x09\0\0\0" for each in expected))
        assert [told.recv(1000) for _ in messages] == expected


def is_answer(sent: bytes, came: bytes, match: RawMatch) -> bool:
    if match is BY_ID:
        return came[:4] == sent[:4]
    return match is TEXT_ID and came[1:5].lower() == sent[1:5]
