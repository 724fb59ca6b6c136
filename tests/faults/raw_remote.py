"""A remote with its hands on the ring memory: the control protocol by the book, frames as it likes.

It takes area, ring and doorbell descriptors as any remote does, then reads requests from the ring
as raw bytes and writes whatever a test wants anywhere into the rings.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import sbe
from sbe import _native, remotes
from sbe.link.rings import DEFAULT_GEOMETRY, Geometry
from sbe.sdk.connection import Connection
from sbe.sdk.direct import DirectBackend
from sbe.transports.seqpacket import SeqpacketTransport
from tests.faults.raw_rings import PATIENCE_S, Frame, Rings


class Events:
    """Control events in both directions. Thread-safe."""

    def __init__(self) -> None:
        self.to_send: deque[tuple[int, int]] = deque()
        self.heard: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()

    def say(self, event: int, value: int = 0) -> None:
        """Tells the host, once it is connected."""
        self.to_send.append((event, value))

    def next(self) -> tuple[int, int]:
        """What the host tells."""
        return self.heard.get(timeout=PATIENCE_S)

    def ask(self, event: int, value: int = 0) -> int:
        """A request about power: the errno of the host's answer."""
        self.say(event, value)
        kind, answer = self.next()
        assert kind == _native.EVENT_ANSWERED
        assert answer >> _native.ANSWERED_SHIFT == event
        return answer & 0xFFFF


def quiet(doorbell: int) -> None:
    """Takes what it has rung: an eventfd, or a listener over one."""
    try:
        os.eventfd_read(doorbell)
    except BlockingIOError:
        pass
    except OSError:
        with select.epoll.fromfd(os.dup(doorbell)) as listener:
            listener.poll(0)


class Life:
    """One life of the remote, in its thread."""

    def __init__(
        self, sock: socket.socket, stop_fd: int, answer: Answer, events: Events | None = None
    ) -> None:
        self.events = events or Events()
        self.transport = SeqpacketTransport(sock)
        self.answer = answer
        self.stop_fd = stop_fd
        self.fds: list[int] = []
        self.areas: dict[int, _native.Memory] = {}
        self.rings: dict[int, Rings] = {}
        self.doorbells: dict[int, int] = {}
        self.poll = select.poll()
        self.poll.register(stop_fd, select.POLLIN)
        self.poll.register(self.transport.fileno(), select.POLLIN)
        self.session = _native.Session(self, role=_native.ROLE_REMOTE, name="raw", areas=64)

    def send(self, message: bytes) -> None:
        self.transport.send(message)

    def area_attach(self, area: int, context: int, flags: int, size: int, *_: object) -> int:
        self.areas[area] = _native.Memory(self.fds[0], size)
        return self.areas[area].address

    def area_detach(self, area: int) -> None:
        del self.areas[area]

    def channel_open(
        self,
        channel: int,
        context: int,
        ring_area: int,
        slots: int,
        slot_size: int,
        line: int,
        send_offset: int,
        receive_offset: int,
        priority: int,
        handles: int,
    ) -> None:
        memory = memoryview(self.areas[ring_area])
        rings = Rings(memory, slots, slot_size, line, send_offset, receive_offset)
        ours, rings.peer_doorbell = (os.dup(fd) for fd in self.fds)
        self.rings[channel], self.doorbells[channel] = rings, ours
        self.poll.register(ours, select.POLLIN)

    def channel_close(self, channel: int) -> None:
        rings, doorbell = self.rings.pop(channel), self.doorbells.pop(channel)
        self.poll.unregister(doorbell)
        os.close(rings.peer_doorbell)
        os.close(doorbell)

    def service(self, context: int, name: str | None, index: int) -> tuple[int, int, str] | None:
        return None if name is None else (1, 1, name)

    def state_changed(self, state: int) -> None:
        pass

    def refused(self, why: int, theirs: bool, peer_min: int, peer_max: int) -> None:
        pass

    def replied(self, token: object, status: int, reply: object) -> None:
        pass

    def event(self, event: int, value: int) -> None:
        self.events.heard.put((event, value))

    def run(self) -> None:
        try:
            self.session.start(secrets.randbits(31) + 1)
            while self.turn():
                pass
        except sbe.LinkError:
            pass  # the host hung up
        finally:
            for channel in list(self.rings):
                self.channel_close(channel)
            self.transport.close()
            os.close(self.stop_fd)

    def turn(self) -> bool:
        # The short wait stands in for the memory barrier that Python has not.
        ready = {fd for fd, _ in self.poll.poll(10)}
        if self.stop_fd in ready:
            return False
        for doorbell in ready & set(self.doorbells.values()):
            quiet(doorbell)
        while (received := self.transport.receive()) is not None:
            message, self.fds = received
            with contextlib.suppress(sbe.ProtocolError):
                self.session.receive(message, len(self.fds))
            for fd in self.fds:
                os.close(fd)
        self.transport.flush()
        while (
            self.events.to_send
            and self.session.state == _native.SESSION_CONNECTED
            and not self.transport.wants_write
        ):
            self.session.send_event(*self.events.to_send.popleft())
        for rings in list(self.rings.values()):
            while (frame := rings.take()) is not None:
                self.answer(rings, frame)
        return True


Answer = Callable[[Rings, Frame], Any]


class RawRemote(remotes.Remote):
    """Answers each request by `answer(rings, frame)`, which may do what it likes there."""

    name = "raw"
    uri = "raw:"
    transport = "testing"
    life: type[Life] = Life

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.events = Events()
        self._thread: threading.Thread | None = None
        self._stop_fd = -1

    def connect(self) -> SeqpacketTransport:
        """A transport to a new life."""
        self.close()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._stop_fd = os.dup(stop_fd)
        life = self.life(far, stop_fd, lambda rings, frame: self.answer(rings, frame), self.events)
        self._thread = threading.Thread(target=life.run, name="raw-remote", daemon=True)
        self._thread.start()
        return SeqpacketTransport(near)

    def close(self) -> None:
        """Ends the present life."""
        if self._thread is not None:
            os.eventfd_write(self._stop_fd, 1)
            self._thread.join()
            os.close(self._stop_fd)
            self._thread = None

    def link(self, geometry: Geometry = DEFAULT_GEOMETRY) -> Connection:
        """A connection to it."""
        return Connection(DirectBackend(10.0, self), geometry=geometry)
