"""An application that writes whatever it likes into its ring memory, at any time."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from sbe import _native
from tests.faults.arena import Arena, Channel
from tests.faults.attacks import application
from tests.faults.raw_rings import HEADER, request
from tests.integration.varlink_client import readable

OUT = _native.DIR_OUT
ALL = 1 << 32
SHUT = "held an index that can't be; the remote has shut it"


# -- indices ---------------------------------------------------------------------------------------


class Lie(NamedTuple):
    """About which index, how far it is moved, and the classes of the attack."""

    of: str
    move: int
    classes: tuple[int, ...]


INDICES = {
    "head one too far": Lie("head", 65, (3,)),
    "head far away": Lie("head", 1 << 31, (3, 4)),
    "head going back": Lie("head", -1, (3, 24)),
    "head before the first": Lie("head", -7, (3, 4)),
    "tail before what was sent": Lie("tail", 65, (3, 24)),
    "tail far away": Lie("tail", 1 << 31, (3, 4)),
    "tail going back": Lie("tail", -1000, (3, 24)),
}


@pytest.mark.parametrize(
    "lie",
    [pytest.param(lie, id=what, marks=application(*lie.classes)) for what, lie in INDICES.items()],
)
def test_an_index_that_cant_be(arena: Arena, lie: Lie) -> None:
    """Only that channel ends, with words in the log; its owner is told and may open another."""
    evil = arena.attacker()
    echo, channel = evil.service("echo"), evil.channel()
    for _ in range(3):
        assert channel.works(echo)
    if lie.of == "head":
        channel.publish_head(channel.head + lie.move)
    else:
        channel.publish_tail(channel.tail + lie.move)

    def shut() -> bool:
        if lie.of == "tail" and channel.room() > 0:  # it is looked at when the ring seems full
            channel.put(request(echo, channel.next_transaction()))
        return SHUT in arena.log()

    arena.daemon.wait_until(shut)
    assert readable(evil.events_fd)
    assert os.read(evil.events_fd, 16) == b"\1%d\0" % channel.id
    assert evil.channel().works(echo)


@application(5)
def test_an_index_that_is_published_in_pieces(arena: Arena) -> None:
    """Byte by byte: what lies between may be an index that can't be, and that is its own fault."""
    evil = arena.attacker()
    echo, channel = evil.service("echo"), evil.channel(slots=512, slot_size=64)
    word = channel.word(channel.outgoing, "sbe_ring_producer", "head")
    for turn in range(1, 300):
        if SHUT in arena.log():
            break
        at = channel.slot(channel.outgoing, channel.head)
        data = request(echo, 1 << 32 | turn)
        channel.memory[at : at + len(data)] = data
        channel.head += 1
        for place, byte in enumerate(channel.head.to_bytes(4, "little")):
            channel.memory[word + place] = byte
            channel.knock()
        while channel.take() is not None:
            pass
    arena.bystander.goes_on()


@application(24, 28)
def test_slots_that_are_published_again_and_again(arena: Arena) -> None:
    """Frames of long ago: executed as often as they are published, and answered to who did."""
    evil = arena.attacker()
    echo, channel = evil.service("echo"), evil.channel(slots=16, slot_size=64)
    for turn in range(16):
        channel.ask(echo, bytes([turn]))
        channel.next()
    for turn in range(160):
        channel.head += 1
        channel.publish_head(channel.head)
        assert channel.next().payload == bytes([turn % 16])


# -- everything ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@application(1, 2, 3, 8, 9)
def test_scribbles_anywhere_in_the_rings(arena: Arena, seed: int) -> None:
    chance = random.Random(seed)
    evil = arena.attacker()
    services = [row["id"] for row in evil.client.call("ListServices")["services"]]
    area, memory = evil.area(4096)
    channel = evil.channel(slots=8, slot_size=256)
    for turn in range(3000):
        if turn % 250 == 0:
            evil.client.call("CloseChannel", channel=channel.id)
            channel = evil.channel(slots=8, slot_size=256)
        buffers = [{"area": area, "direction": chance.randrange(6), "size": 2048}] * 2
        data = request(chance.choice(services), 1 << 32 | turn, b"p" * 8, buffers)
        channel.force(data)
        for _ in range(4):
            channel.scribble(chance)
        channel.knock()
        channel.take()
        memory[turn % 4096] = turn & 0xFF


FLIPS = """
import mmap, sys, threading
fd, size, place, low, high = map(int, sys.argv[1:])
threading.Thread(target=lambda: (sys.stdin.read(), __import__("os")._exit(0)), daemon=True).start()
memory = memoryview(mmap.mmap(fd, size)).cast("Q")
print("flips", flush=True)
while True:
    for _ in range(1000):
        memory[place] = high
        memory[place] = low
"""


@contextlib.contextmanager
def flipped(channel: Channel, place: int, low: int, high: int) -> Iterator[None]:
    """Another process of the attacker's writes two values there in turn, as fast as it can."""
    fd, size = channel.opened["memory_fd"], channel.opened["size"]
    assert place % 8 == 0
    arguments = [str(number) for number in (fd, size, place // 8, low, high)]
    with subprocess.Popen(
        [sys.executable, "-ISc", FLIPS, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[fd],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"flips\n"
        try:
            yield
        finally:
            process.kill()


REFUSED = {0, -errno.EBADMSG, -errno.EFAULT, -errno.EACCES, -errno.ERANGE}
BUFFER = _native.layout()["sbe_wire_buffer"]
FIELDS: dict[str, tuple[int, int]] = {
    # Where in the frame, and the bits that are other ones half of the time.
    "the area, to one of somebody else": (HEADER, 0),
    "the area, to its rings": (HEADER, 1),
    "the area, to one of another life": (HEADER, 3 << 16),
    "the offset": (HEADER + BUFFER["offset"][0], ALL * ALL - 128),
    "the size": (HEADER + BUFFER["size"][0], ALL * ALL - 1),
    "the size, beyond the area": (HEADER + BUFFER["size"][0], 1 << 20),
    "the frame's size": (0, 0xFFFF_FF00),
    "the buffers' count": (16, 0xFFF0 << 32),
    "the payload's size": (24, 0xFFFF_FF00),
}


@pytest.mark.parametrize("what", FIELDS)
@application(1, 2)
def test_a_descriptor_that_changes_between_check_and_use(arena: Arena, what: str) -> None:
    """What was checked is what is used: else it writes to others' memory, or the remote dies."""
    evil = arena.attacker()
    fill, channel = evil.service("fill"), evil.channel(slots=2, slot_size=128)
    area, memory = evil.area(4096)
    place, bits = FIELDS[what]
    if bits == 1:
        bits = area ^ area - 1  # they were made before it
    if bits == 0:
        bits = area ^ next(row["id"] for row in arena.daemon.list()["areas"] if row["id"] != area)
    buffers = [{"area": area, "direction": OUT, "offset": 64, "size": 64}]
    frame = request(fill, 1 << 32 | 1, b"!", buffers)
    value = int.from_bytes(frame[place : place + 8], "little")
    for index in range(2):
        at = channel.slot(channel.outgoing, index)
        channel.memory[at : at + len(frame)] = frame
    with flipped(channel, channel.slot(channel.outgoing, 0) + place, value, value ^ bits):
        for _ in range(400):  # both slots in turn; the second one is as it should be
            channel.head += 2
            channel.publish_head(channel.head)
            assert {channel.next().status, channel.next().status} <= REFUSED
    assert not any(memory[:64])
    assert memory[64:128] == b"!" * 64
    assert not any(memory[128:])


# -- doorbells and wishes --------------------------------------------------------------------------


@application(22)
def test_wishes_for_doorbells_that_are_lies(arena: Arena) -> None:
    """Who says that it needs no ringing is not rung; its answers are there all the same."""
    evil = arena.attacker()
    chance = random.Random(22)
    echo, channel = evil.service("echo"), evil.channel(slots=8, slot_size=64)
    for turn in range(300):
        channel.put(request(echo, 1 << 32 | turn))
        for ring, end, field in (
            (channel.incoming, "sbe_ring_consumer", "data_wake"),
            (channel.outgoing, "sbe_ring_producer", "space_wake"),
            (channel.incoming, "sbe_ring_consumer", "doorbells"),
            (channel.outgoing, "sbe_ring_consumer", "at_work"),
            (channel.incoming, "sbe_ring_producer", "doorbells"),
        ):
            channel.store(ring, end, field, chance.choice([0, ALL - 1, 1 << 31, turn + 500]))
        assert channel.next().header["transaction"] == 1 << 32 | turn


STORM = """
import os, sys
fd = int(sys.argv[1])
print("storm", flush=True)
while True:
    try:
        os.eventfd_write(fd, 1)
    except BlockingIOError:
        pass
"""


@application(21)
def test_a_storm_of_doorbells(arena: Arena) -> None:
    """Two processes ring without a pause for frames that are not there."""
    evil = arena.attacker()
    channel = evil.channel()
    fd = channel.peer_doorbell
    storms = [
        subprocess.Popen([sys.executable, "-ISc", STORM, str(fd)], stdout=-1, pass_fds=[fd])
        for _ in range(2)
    ]
    try:
        for storm in storms:
            assert storm.stdout is not None
            assert storm.stdout.readline() == b"storm\n"
        arena.bystander.goes_on(20)
        assert channel.works(evil.service("echo"))
        assert all(storm.poll() is None for storm in storms)
    finally:
        for storm in storms:
            storm.kill()
            storm.communicate()


@application(21, 25)
def test_doorbells_of_a_channel_that_was_closed(arena: Arena) -> None:
    evil = arena.attacker()
    old = [evil.channel(slots=2, slot_size=64) for _ in range(8)]
    for channel in old:
        channel.put(request(1, 1 << 32 | 1))
        evil.client.call("CloseChannel", channel=channel.id)
    channel = evil.channel()
    for turn in range(200):
        gone = old[turn % len(old)]
        gone.force(request(1, 1 << 32 | turn))
        gone.knock()
    assert channel.works(evil.service("echo"))
