"""An application that takes and holds all it can, answers nothing, or dies in the middle."""

from __future__ import annotations

import contextlib
import errno
import random
import signal
from collections.abc import Callable

import pytest

import sbe
from sbe import _native
from tests.faults.arena import Arena, Attacker, Channel
from tests.faults.attacks import application
from tests.faults.raw_rings import Frame, request
from tests.integration.varlink_client import Refused, readable

IN, OUT = _native.DIR_IN, _native.DIR_OUT
LIMIT_S = 60.0
LARGE = 8 << 20
CHANNELS = 24


def newcomer(arena: Arena) -> None:
    """Somebody who connects meanwhile is served by every service, those that keep places too."""
    with sbe.connect(f"unix:{arena.daemon.socket}", timeout=LIMIT_S) as link:
        link.serve("own", lambda payload: payload)
        assert link.call("relay", payload=b"own\0here", timeout=LIMIT_S).payload == b"here"
        area = link.allocate(4096)
        assert link.call("mulaw", sbe.In(area[:64]), sbe.Out(area[64:96]), timeout=LIMIT_S)
        assert link.call("echo", payload=b"x", timeout=LIMIT_S).payload == b"x"


def fill(channel: Channel, make: Callable[[], bytes]) -> None:
    """As many as the ring holds."""
    while channel.room() > 0:
        channel.put(make())


def heavy(evil: Attacker, name: str) -> Callable[[], bytes]:
    """A request that takes as long as one of this service can."""
    area, _ = evil.area(LARGE)
    service, half = evil.service(name), {"area": area, "size": LARGE // 2}
    halves = [{**half, "direction": IN}, {**half, "direction": OUT, "offset": LARGE // 2}]
    payload, buffers = b"", halves
    if name == "fir":
        payload = b"\1\0" * 400
    elif name == "crc32":
        buffers = [halves[0]] * 16
    numbers = iter(range(1 << 32, 1 << 33))
    return lambda: request(service, next(numbers), payload, buffers)


@pytest.mark.parametrize("name", ["crc32", "fir", "mulaw", "copy"])
@application(7, 18, 26)
def test_every_slot_of_many_channels_is_full_of_long_work(arena: Arena, name: str) -> None:
    evil = arena.attacker()
    make = heavy(evil, name)
    for _ in range(CHANNELS):
        fill(evil.channel(slots=16, slot_size=1024, priority=3), make)
    arena.bystander.goes_on()
    newcomer(arena)
    for row in arena.daemon.stat()["channels"]:  # more of it is there than was done
        assert row["context"] != evil.context or row["in_flight"] > 0


@application(7, 18)
def test_a_flood_of_small_requests(arena: Arena) -> None:
    """As many as can be made, on many channels, while the bystander does its rounds."""
    evil = arena.attacker()
    echo = evil.service("echo")
    channels = [evil.channel(slots=64, slot_size=64, priority=3) for _ in range(CHANNELS)]
    goal, sent = arena.bystander.rounds + 10, 0
    while arena.bystander.rounds < goal:
        for channel in channels:
            while channel.take() is not None:
                pass
            for _ in range(channel.room()):
                channel.force(request(echo, channel.next_transaction()))
                sent += 1
    assert sent > 100 * CHANNELS
    newcomer(arena)


@application(18, 29)
def test_answers_that_are_never_collected(arena: Arena) -> None:
    """The remote waits for room there, and nowhere else; then it goes on where it stopped."""
    evil = arena.attacker()
    echo = evil.service("echo")
    channels = [evil.channel(slots=8, slot_size=64) for _ in range(CHANNELS)]
    for channel in channels:
        fill(channel, lambda channel=channel: request(echo, channel.next_transaction()))  # type: ignore[misc]
    arena.bystander.goes_on()
    for channel in channels:
        fill(channel, lambda channel=channel: request(echo, channel.next_transaction()))  # type: ignore[misc]
    arena.bystander.goes_on()
    newcomer(arena)
    for channel in channels:
        assert channel.served == 8  # the second eight wait for room for their answers
        seen = [channel.next().header["transaction"] & 0xFFFF for _ in range(16)]
        assert seen == list(range(1, 17))


def relay(channel: Channel, service: int, name: bytes = b"never") -> bytes:
    return request(service, channel.next_transaction(), name + b"\0")


@application(18, 26)
def test_calls_of_the_remote_that_are_never_answered(arena: Arena) -> None:
    """Each holds a place of a service; beyond its share it is told that the service is busy."""
    evil = arena.attacker()
    evil.client.call("Serve", name="never", version=1)
    service = evil.service("relay")
    channels = [evil.channel(slots=64, slot_size=256) for _ in range(4)]
    asked, statuses = 0, []
    for channel in channels:
        for _ in range(16):
            channel.put(relay(channel, service))
            asked += 1
    called = 0
    for channel in channels:
        for _ in range(16):
            frame = channel.next()
            if frame.header["type"] == _native.FRAME_REQUEST:
                called += 1
            else:
                statuses.append(frame.status)
    assert called + len(statuses) == asked
    assert called >= 1
    assert {*statuses} == {-errno.EBUSY}
    newcomer(arena)


@pytest.mark.parametrize("contexts", [2, 3, 8])
@application(7, 26)
def test_places_of_services_held_by_many_contexts(arena: Arena, contexts: int) -> None:
    for _ in range(contexts):
        evil = arena.attacker()
        evil.client.call("Serve", name="never", version=1)
        channel, service = evil.channel(slots=64, slot_size=256), evil.service("relay")
        fill(channel, lambda: relay(channel, service))  # noqa: B023
        fill(evil.channel(slots=32), heavy(evil, "mulaw"))
    newcomer(arena)


@application(6, 7)
def test_calls_in_a_circle(arena: Arena) -> None:
    """The remote calls a service of the application, which calls the remote, which calls it ..."""
    evil = arena.attacker()
    evil.client.call("Serve", name="round", version=1)
    service, channel = evil.service("relay"), evil.channel(slots=64, slot_size=256)
    for _ in range(4):
        channel.put(relay(channel, service, b"round"))
    goal, turns = arena.bystander.rounds + 10, 0
    while arena.bystander.rounds < goal:
        frame = channel.next()
        if frame.header["type"] == _native.FRAME_REQUEST:
            channel.put(relay(channel, service, b"round"))
            channel.put(frame.response())
            turns += 1
    assert turns > 10


ANSWERS: dict[str, Callable[[Frame], list[bytes]]] = {
    "twice": lambda frame: [frame.response(b"yes")] * 2,
    "to the next one": lambda frame: [
        frame.response(transaction=frame.header["transaction"] + 1),
        frame.response(transaction=frame.header["transaction"] + (1 << 32)),
    ],
    "to all that there could be": lambda frame: [
        frame.response(b"no", transaction=(1 << 32) + index) for index in range(40)
    ],
    "with buffers": lambda frame: [
        frame.response(buffers=[{"area": 1 << 16, "direction": OUT, "size": 4096}])
    ],
    "of a size that is a lie": lambda frame: [frame.response(b"yes", payload_size=0xFFFF_FFFF)],
    "with a status above zero": lambda frame: [frame.response(status=1)],
    "with no bytes at all": lambda frame: [frame.response(size=0)],
}


@pytest.mark.parametrize("what", ANSWERS)
@application(9, 24, 28)
def test_answers_to_the_remote_that_are_wrong(arena: Arena, what: str) -> None:
    evil = arena.attacker()
    evil.client.call("Serve", name="wrong", version=1)
    service, channel = evil.service("relay"), evil.channel(slots=64, slot_size=256)
    for _ in range(12):
        number = channel.next_transaction()
        channel.put(request(service, number, b"wrong\0x"))
        while (frame := channel.next()).header["type"] != _native.FRAME_REQUEST:
            assert frame.header["transaction"] != number
        for answer in ANSWERS[what](frame):
            channel.put(answer)
        if what.startswith("to"):
            channel.put(frame.response(b"yes"))
        reply = channel.answer(number)
        assert reply.status in (0, -errno.EBADMSG)
        assert reply.payload in (b"yes", b"no", b"")  # its own word, if it guesses right
    newcomer(arena)


@application(24, 28)
def test_cancels_of_everything(arena: Arena) -> None:
    """Of its own requests, which are kept; of those of others, which it can't name; of nothing."""
    evil = arena.attacker()
    evil.client.call("Serve", name="never", version=1)
    make = heavy(evil, "mulaw")
    channel, service = evil.channel(slots=64, slot_size=256), evil.service("relay")
    channel.put(make())
    kept = channel.next_transaction()
    channel.put(request(service, kept, b"never\0"))
    numbers = [*range(1 << 32, (1 << 32) + 8), *range(1, 8), (1 << 64) - 1]
    random.Random(3).shuffle(numbers)
    for number in numbers * 3:
        channel.put(request(0, number, type=_native.FRAME_CANCEL))
        while channel.take() is not None:
            pass
    assert channel.works(evil.service("echo"))
    newcomer(arena)


@application(3, 18, 29)
def test_both_rings_full_and_broken_and_closed(arena: Arena) -> None:
    """What is done about one attack stands in the way of what is done about the next."""
    evil = arena.attacker()
    evil.client.call("Serve", name="never", version=1)
    service, make = evil.service("relay"), heavy(evil, "mulaw")
    for turn in range(12):
        channel = evil.channel(slots=8, slot_size=256)
        for _ in range(3):
            channel.put(relay(channel, service))
        channel.put(make())
        fill(channel, lambda channel=channel: relay(channel, service))  # type: ignore[misc]
        if turn % 2:
            channel.publish_head(channel.head + 99)
        if turn % 3:
            evil.client.send("CloseChannel", channel=channel.id)
            evil.client.send("CloseChannel", channel=channel.id)
            evil.client.receive()
            with pytest.raises(Refused):
                evil.client.receive()
    arena.bystander.goes_on()
    newcomer(arena)


@application(20)
def test_events_without_end_that_nobody_reads(arena: Arena) -> None:
    """Each channel that it ruins is worth a byte and a line, up to a bound."""
    evil = arena.attacker()
    for _ in range(150):
        channel = evil.channel(slots=2, slot_size=64)
        channel.publish_head(channel.head + 99)
        evil.client.call("CloseChannel", channel=channel.id)
    arena.bystander.goes_on()
    assert arena.log().count("held an index that can't be") <= 2 * 100


@application(19, 21)
def test_an_honest_end_that_pauses_under_load_is_not_cut_off(arena: Arena) -> None:
    """It is stopped for seconds with calls in flight while another one floods, and goes on."""
    evil = arena.attacker()
    echo, channel = evil.service("echo"), evil.channel(slots=256, slot_size=64)
    paused = arena.bystander.process
    paused.send_signal(signal.SIGSTOP)
    try:
        for _ in range(100):
            for _ in range(50):
                channel.ask(echo)
            for _ in range(50):
                channel.next()
            readable(evil.events_fd, 0.05)  # it never is
    finally:
        paused.send_signal(signal.SIGCONT)
    arena.bystander.goes_on()


# -- death in the middle ---------------------------------------------------------------------------


def kept(evil: Attacker) -> None:
    channel, make = evil.channel(), heavy(evil, "mulaw")
    fill(channel, make)


def called(evil: Attacker) -> None:
    evil.client.call("Serve", name="never", version=1)
    channel, service = evil.channel(), evil.service("relay")
    channel.put(relay(channel, service))
    while channel.next().header["type"] != _native.FRAME_REQUEST:
        pass


def found(evil: Attacker) -> None:
    """The remote asks the daemon for a service of who has gone."""
    channel, service = evil.channel(), evil.service("relay")
    fill(channel, lambda: relay(channel, service))


def in_pieces(evil: Attacker) -> None:
    make = heavy(evil, "fir")
    for _ in range(8):
        fill(evil.channel(slots=4), make)


def half_a_frame(evil: Attacker) -> None:
    channel = evil.channel()
    at = channel.slot(channel.outgoing, 0)
    channel.memory[at : at + 16] = request(1, 1)[:16]
    channel.publish_head(1)


def broken(evil: Attacker) -> None:
    channel = evil.channel()
    channel.publish_head(99)


def half_a_call(evil: Attacker) -> None:
    evil.client.send_bytes(b'{"method":"org.sbe.Control.Alloc')


def many_calls(evil: Attacker) -> None:
    for _ in range(20):
        evil.client.send("Allocate", size=1 << 20)
        evil.client.send("OpenChannel")


def freeing(evil: Attacker) -> None:
    kept(evil)
    for row in evil.client.call("List")["areas"]:
        evil.client.send("Free", area=row["id"])


def closing(evil: Attacker) -> None:
    for channel in [evil.channel() for _ in range(8)]:
        evil.client.send("CloseChannel", channel=channel.id)


STEPS = [
    kept,
    called,
    found,
    in_pieces,
    half_a_frame,
    broken,
    half_a_call,
    many_calls,
    freeing,
    closing,
]


@pytest.mark.parametrize("step", STEPS)
@application(13, 16, 25, 26)
def test_it_dies_in_the_middle(arena: Arena, step: Callable[[Attacker], None]) -> None:
    """Ten times: what it held is accounted for after each attack."""
    for _ in range(10):
        evil = arena.attacker()
        with contextlib.suppress(Refused):
            step(evil)
        evil.leave()
    newcomer(arena)
