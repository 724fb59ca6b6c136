"""The carrier of doorbells over an endpoint for each channel: bells alone, and frames as messages.

The endpoints are the two ends of a socket pair that keeps messages apart, as rpmsg does.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from sbe import _native, errors
from sbe.link.rings import Geometry, Rings, attach, create_rings
from sbe.transports import PrivateRings
from tests.unit.channel_pair import LIMIT_S, Thread


class End:
    """A channel in memory of its own, whose frames a thread carries to and from a socket."""

    def __init__(self, sock: socket.socket, slots: int, slot_size: int = 448) -> None:
        self.rings: Rings = create_rings(Geometry(slots, slot_size), 64)
        self.carrier = _native.Doorbells()
        rings = self.rings
        private = PrivateRings(
            rings.memory_fd,
            rings.size_bytes,
            rings.send_offset,
            rings.receive_offset,
            slots,
            slot_size,
            rings.line_bytes,
        )
        self.carrier.add(1, rings.ring_fd, rings.wake_fd, sock.fileno(), private)
        self.channel = attach(rings, _native.Table(4), 1, 1)

    def close(self) -> None:
        self.channel.fail(ConnectionError("the test is over"))
        self.carrier.close()
        self.rings.close()


class Pair:
    def __init__(self, slots: int = 8) -> None:
        self.sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in self.sockets:
            sock.setblocking(False)
        self.host, self.remote = (End(sock, slots) for sock in self.sockets)

    def close(self) -> None:
        for end in (self.host, self.remote):
            end.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


@contextlib.contextmanager
def served(*channels: _native.Channel) -> Iterator[None]:
    """Somebody answers with what was sent, and stays: answers may wait for room."""
    over = threading.Event()

    def serve(channel: _native.Channel) -> None:
        while not over.is_set():
            request = channel.next_request(0.02)
            if request is not None:
                request.respond(request.payload)

    threads = [Thread(partial(serve, channel)) for channel in channels]
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.outcome()


@pytest.mark.parametrize("slots", [2, 4, 256])
def test_calls_of_many_rings_full(slots: int):
    pair = Pair(slots)
    host = pair.host.channel
    with served(pair.remote.channel):
        calls = [host.submit(1, (), i.to_bytes(4, "little") * 50, LIMIT_S) for i in range(1000)]
        for i, call in enumerate(calls):
            assert call.result(LIMIT_S).payload == i.to_bytes(4, "little") * 50
    pair.close()


def test_both_ways_at_once(pair: Pair):
    """Each end calls and serves; both rings are full most of the time."""
    ends = (pair.host.channel, pair.remote.channel)

    def call(end: _native.Channel) -> None:
        for i in range(300):
            assert end.call(1, (), bytes([i % 256]), LIMIT_S).payload == bytes([i % 256])

    with served(*ends):
        for thread in [Thread(partial(call, end)) for end in ends]:
            thread.outcome()


def test_an_endpoint_that_is_full_loses_nothing(pair: Pair):
    for sock in pair.sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # a few messages
    test_both_ways_at_once(pair)


def test_slots_come_back_without_an_answer(pair: Pair):
    """Messages that nobody answers: nothing else would tell that their slots are free."""
    for i in range(100):
        pair.host.channel.send(1, (), bytes([i]), LIMIT_S)
        request = pair.remote.channel.next_request(LIMIT_S)
        assert request is not None
        assert request.payload == bytes([i])


@pytest.mark.parametrize("message", [b"", b"abc", b"\5\0\0\0", bytes(40), b"\0\0\0\0\x28\0\0\0"])
def test_what_is_no_message_shuts_the_channel(message: bytes):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for sock in (near, far):
        sock.setblocking(False)
    end = End(near, 8)
    call = end.channel.submit(1, (), b"x", LIMIT_S)
    far.send(message)
    with pytest.raises(errors.ProtocolError):
        call.result(LIMIT_S)
    end.close()
    for sock in (near, far):
        sock.close()


def test_rings_that_cant_be():
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = set(os.listdir("/proc/self/fd"))
    for slots, size in ((8, 512), (16384, 64)):
        rings = create_rings(Geometry(8, 64), 64)
        carrier = _native.Doorbells()
        wrong = PrivateRings(rings.memory_fd, rings.size_bytes, 0, 0, slots, size, 64)
        with pytest.raises(OSError, match=r"Invalid argument|too long"):
            carrier.add(1, rings.ring_fd, rings.wake_fd, near.fileno(), wrong)
        with pytest.raises(errors.BadArgument):  # there is no stream for its tokens
            carrier.add(1, rings.ring_fd, rings.wake_fd)
        carrier.close()
        rings.close()
    assert set(os.listdir("/proc/self/fd")) == before
    for sock in (near, far):
        sock.close()


class Bells:
    """A carrier with some channels, an endpoint each."""

    def __init__(self, count: int) -> None:
        self.carrier = _native.Doorbells()
        self.rings = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
        self.wakes = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
        self.near, self.far = ([pair[end] for pair in pairs] for end in (0, 1))
        for number in range(count):
            self.near[number].setblocking(False)
            self.far[number].settimeout(LIMIT_S)
            self.add(number)

    def add(self, number: int) -> None:
        ring, wake = self.rings[number], self.wakes[number]
        self.carrier.add(1000 * number, ring, wake, self.near[number].fileno())

    def ring(self, number: int) -> bytes:
        """Ring one, and return what arrives for it."""
        os.eventfd_write(self.rings[number], 1)
        return self.far[number].recv(496)

    def silent(self, number: int) -> bool:
        return not select.select([self.far[number]], [], [], 0)[0]

    def close(self) -> None:
        self.carrier.close()
        for sock in (*self.near, *self.far):
            sock.close()
        for fd in (*self.rings, *self.wakes):
            os.close(fd)


def test_a_bell_is_one_message():
    """Turns that others cause send nothing for a channel that owes nothing."""
    bells = Bells(2)
    assert bells.ring(0) == (1).to_bytes(8, "little")
    for _ in range(3):
        bells.ring(1)
    assert bells.silent(0)
    bells.close()


def test_a_bell_that_finds_its_endpoint_full_is_not_lost():
    bells = Bells(2)
    count = 0
    while True:
        try:
            bells.near[0].send(bytes(8))
        except BlockingIOError:
            break
        count += 1
    os.eventfd_write(bells.rings[0], 1)
    bells.ring(1)  # a turn has passed, which tried it
    for _ in range(count):
        assert bells.far[0].recv(496) == bytes(8)
    assert bells.far[0].recv(496) == (1).to_bytes(8, "little")
    bells.ring(1)
    assert bells.silent(0)
    bells.close()


def test_many_channels_come_and_go():
    """Also while they have something to send, and with numbers that are alike."""
    bells = Bells(40)
    for turn in range(3):
        for number in range(40):
            os.eventfd_write(bells.rings[number], 1)
            if number % 3 == turn:
                bells.carrier.remove(1000 * number)
        for number in range(40):
            if number % 3 != turn:
                assert bells.far[number].recv(496) == (1).to_bytes(8, "little")
        for number in range(turn, 40, 3):
            bells.add(number)  # its bell may count anew, and may have been sent before
        for number in range(40):
            bells.far[number].send(b"x")
            assert select.select([bells.wakes[number]], [], [], LIMIT_S)[0]
            os.eventfd_read(bells.wakes[number])
        for number in range(turn, 40, 3):
            while not bells.silent(number):
                bells.far[number].recv(496)
            bells.ring(number)
            while not bells.silent(number):
                bells.far[number].recv(496)
    bells.close()


def test_bells_alone():
    """Each message is a bell, whatever it holds, and each bell a message."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    far.settimeout(LIMIT_S)
    ring, wake = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2))
    carrier = _native.Doorbells()
    carrier.add(7, ring, wake, near.fileno())
    for message in (b"x", bytes(8), bytes(496)):
        far.send(message)
        assert select.select([wake], [], [], LIMIT_S)[0]
        assert os.eventfd_read(wake) == 1
    for _ in range(3):
        os.eventfd_write(ring, 1)
        assert far.recv(496) == (1).to_bytes(8, "little")
    far.close()  # the other end is gone: no busy thread, and no error here
    os.eventfd_write(ring, 1)
    carrier.remove(7)
    carrier.close()
    near.close()
    for fd in (ring, wake):
        os.close(fd)
