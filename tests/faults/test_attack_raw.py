"""Raw messages under attack: applications that name what is not theirs, and firmware that lies.

Contexts of one link in this process, used as the daemon uses those of its clients.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

import sbe
from sbe import _native
from sbe.link.context import HostContext, run_sync
from sbe.link.fixups import Field, Fixup
from sbe.link.link import Link
from sbe.link.raw import ANSWER, IN_FLIGHT_MAX, RawBuffer, RawEndpoint, RawMatch
from sbe.testing.dumb import Bus, DumbFirmware
from tests.faults.attacks import application, remote

LIMIT_S = 10.0
BY_ID = RawMatch("id", Field(4, 32), Field(4, 32))
FIXUPS = (Fixup("address", 8, 32), Fixup("size", 12, 32))
TEMPLATE = bytes(16)


class Firmware:
    """Notes what comes; says what it is told to, else that it is done."""

    def __init__(self) -> None:
        self.came: list[tuple[int, int]] = []
        self.lies: Callable[[bytes], list[bytes]] = lambda message: [message[:8]]

    def __call__(self, message: bytes, bus: Bus) -> list[bytes]:
        self.came.append(struct.unpack("<2I", message[8:16]))
        return self.lies(message)


@dataclass
class Client:
    """A context with an area of its own and an endpoint, as the daemon has them for a client."""

    link: Link
    context: HostContext
    area: int
    raw: RawEndpoint
    number: int
    told: socket.socket

    def send(self, number: int = 1, *buffers: RawBuffer) -> None:
        self.raw.send(number, TEMPLATE, FIXUPS, buffers or (self.buffer(),))

    def buffer(self, **changed: int) -> RawBuffer:
        own = RawBuffer(self.area, 0, 64, _native.DIR_INOUT)
        return dataclasses.replace(own, **changed)

    def hears(self) -> tuple[int, bytes]:
        """The next answer; the link runs meanwhile."""
        for _ in range(100_000):
            self.link.process()
            with contextlib.suppress(BlockingIOError):
                data = self.told.recv(1000)
                return ANSWER.unpack_from(data)[0], data[ANSWER.size :]
        raise AssertionError("nothing came")

    def free(self) -> None:
        run_sync(self.link, self.context.free(self.area), LIMIT_S)


@dataclass
class Two:
    """An attacker and a bystander, and what answers each of them."""

    firmware: Firmware
    honest: Firmware
    attacker: Client
    bystander: Client


@pytest.fixture
def two() -> Iterator[Two]:
    each = {"attacked": Firmware(), "honest": Firmware()}
    with DumbFirmware(each) as dumb, Link(dumb.connect) as link:
        link.wait(link.start(), LIMIT_S)
        clients = []
        for name in each:
            context = HostContext(link, dumb.memory, apart=True)
            run_sync(link, context.open(), LIMIT_S)
            area = run_sync(link, context.allocate(4096), LIMIT_S).id
            grant = context.open_raw(dumb.open_endpoint(name), BY_ID)
            told = socket.socket(fileno=grant.fd)
            told.setblocking(False)
            raw = context.raw(grant.id)
            clients.append(Client(link, context, area, raw, grant.id, told))
        yield Two(each["attacked"], each["honest"], *clients)
        each["honest"].lies = lambda message: [message[:8]]
        clients[1].send(77)
        while clients[1].hears()[0] != 77:
            pass
        clients[1].free()
        for client in clients:
            client.told.close()
        assert all(size == 64 for one in each.values() for _, size in one.came), (
            "what no client may say was sent"
        )


@application(23, 24)
def test_areas_of_others(two: Two):
    """By another's id, one that is freed, and ids that were never given out."""
    attacker, freed = two.attacker, two.attacker.area
    spare = run_sync(attacker.link, attacker.context.allocate(4096), LIMIT_S).id
    attacker.free()
    for area in (two.bystander.area, freed, spare ^ 1 << 16, 0, -1, 1 << 70):
        with pytest.raises(sbe.AreaFreed):
            attacker.send(1, attacker.buffer(area=area))
    assert two.firmware.came == []
    attacker.send(1, attacker.buffer(area=spare))
    assert attacker.hears()[0] == 1


@application(4, 8)
def test_ranges_and_counts(two: Two):
    attacker = two.attacker
    wrong = [
        *({"offset": offset} for offset in (-1, 4033, 1 << 32, (1 << 64) - 32, 1 << 70)),
        *({"size": size} for size in (0, -64, 4097, 1 << 32, (1 << 64) + 64)),
        *({"direction": direction} for direction in (0, -1, 5, 1 << 40)),
    ]
    for change in wrong:
        with pytest.raises((sbe.BadArgument, sbe.OutOfRange)):
            attacker.send(1, attacker.buffer(**change))
    with pytest.raises(sbe.BadArgument, match="buffers"):
        attacker.send(1, *[attacker.buffer()] * 300)
    assert (two.firmware.came, attacker.raw.sent, attacker.raw.in_flight) == ([], 0, 0)
    attacker.free()  # nothing is held for what was refused


@application(4, 8, 9)
def test_fixups_that_leave_the_message_or_lie_on_each_other(two: Two):
    attacker = two.attacker
    good = FIXUPS[0]
    for change in (
        *({"position": position} for position in (-1, 13, 16, 1 << 32, (1 << 64) - 4, 4, 6)),
        *({"width": width} for width in (0, 8, 24, 128, -32)),
        *({"buffer": buffer} for buffer in (1, -1, 1 << 32)),
        *({"shift": shift} for shift in (-1, 64, 1 << 32)),
        *({"kind": "segments", "entries": entries} for entries in (0, 2, 1 << 30, -1)),
    ):
        changed = dataclasses.replace(good, **change)  # type: ignore[arg-type]
        with pytest.raises((sbe.BadArgument, sbe.OutOfRange)):
            attacker.raw.send(1, TEMPLATE, [changed], [attacker.buffer()])
    with pytest.raises(sbe.BadArgument, match="write the same bytes"):
        attacker.raw.send(1, TEMPLATE, [good] * 100, [attacker.buffer()])
    assert two.firmware.came == []


@application(28)
def test_numbers_and_orders_that_are_none(two: Two):
    """One that is in flight, or none; settled twice, or never sent; after the endpoint's end."""
    attacker, bystander = two.attacker, two.bystander
    two.firmware.lies = two.honest.lies = lambda message: []
    attacker.send(1)
    bystander.send(1)
    for number in (1, -1, 1 << 32):
        with pytest.raises(sbe.BadArgument, match="no number of a new message"):
            attacker.send(number)
    with pytest.raises(sbe.BadArgument, match="without an answer has no buffers"):
        attacker.send(0)
    for number in (2, 0, -1, 1 << 70):
        attacker.raw.settle(number)
    assert attacker.raw.in_flight == 1
    attacker.raw.settle(1)
    attacker.raw.settle(1)
    attacker.free()
    with pytest.raises(sbe.Busy):
        bystander.free()
    attacker.context.close_raw(attacker.number)
    attacker.context.close_raw(attacker.number)
    with pytest.raises(sbe.LinkError, match="the endpoint is gone"):
        attacker.context.raw(attacker.number)
    bystander.raw.settle(1)


@application(7, 18, 20)
def test_a_flood_that_nobody_answers_and_nobody_reads(two: Two):
    """It ends at a limit; what comes is not kept beyond one, and the other hears its own."""
    attacker, bystander = two.attacker, two.bystander
    two.firmware.lies = lambda message: [b"nobody's" * 60] * 200
    sent = 0
    with contextlib.suppress(sbe.WouldBlock, sbe.Busy):
        for number in range(1, 1000):
            attacker.send(number)
            sent = number
            attacker.link.process()
    assert 0 < sent <= IN_FLIGHT_MAX
    bystander.send(1)
    assert bystander.hears()[0] == 1
    while attacker.raw.unmatched < 200:
        attacker.link.process()
    assert attacker.raw.in_flight == sent
    assert attacker.raw.dropped > 0
    for number in range(1, sent + 1):
        attacker.raw.settle(number)


@application(26, 25)
def test_a_context_that_ends_with_messages_in_flight(two: Two):
    """Its memory is nobody's until the answer; the heap gives it to others only then."""
    attacker, bystander = two.attacker, two.bystander
    over = threading.Event()

    def late(message: bytes) -> list[bytes]:
        assert over.wait(LIMIT_S)
        return [message[:8]]

    two.firmware.lies = late
    attacker.send()
    freed: list[bool] = []
    attacker.context.when_let_go(attacker.area, lambda: freed.append(True))
    run_sync(attacker.link, attacker.context.close(), LIMIT_S)
    assert attacker.context.when_let_go(attacker.area, lambda: freed.append(True))
    others = [run_sync(bystander.link, bystander.context.allocate(4096), LIMIT_S) for _ in range(4)]
    theirs = {segment for each in others for segment in _places(bystander.context, each.id)}
    over.set()
    while not freed:
        bystander.link.process()
    [(address, _)] = two.firmware.came
    assert address not in theirs
    assert [raw for raw in bystander.link.raws if raw is attacker.raw] == []


def _places(context: HostContext, area: int) -> list[int]:
    memory = context.hold(area)
    context.let_go(area)
    return [address for address, _ in memory.segments]


@remote(9, 24, 28)
def test_answers_that_are_none(two: Two):
    """Short ones, ids of nobody or of another client, doubled ones, and one before it was asked."""
    attacker, bystander = two.attacker, two.bystander
    two.honest.lies = lambda message: []
    bystander.send(5)

    def lie(message: bytes) -> list[bytes]:
        own = struct.unpack_from("<I", message, 4)[0]
        ids = [own + 1, own - 1, 0, 0xFFFFFFFF, own, own]
        lies = [bytes(4) + struct.pack("<I", each % (1 << 32)) for each in ids]
        return [b"\1", message[:7], *lies, b"x" * 496]

    two.firmware.lies = lie
    attacker.send(3)
    heard = [attacker.hears()[0] for _ in range(9)]
    assert heard == [0, 0, 0, 0, 0, 0, 3, 0, 0]
    assert attacker.raw.in_flight == 0
    assert bystander.raw.in_flight == 1
    attacker.free()
    with pytest.raises(sbe.Busy):
        bystander.free()
    bystander.raw.settle(5)
