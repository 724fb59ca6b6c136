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
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import sbe
from sbe import _native, remotes
from sbe.link.rings import DEFAULT_GEOMETRY, Geometry
from sbe.sdk.connection import Connection
from sbe.sdk.direct import DirectBackend
from sbe.transports.seqpacket import SeqpacketTransport

_LAYOUT = _native.layout()
_PATIENCE_S = 5.0
HEADER = sum(_LAYOUT["sbe_wire_frame"]["handled_ns"])
DESCRIPTOR = sum(_LAYOUT["sbe_wire_buffer"]["size"])


def pack(name: str, **values: int) -> bytes:
    """A wire structure; what is not named is zero."""
    fields = _LAYOUT[name]
    made = bytearray(max(offset + size for offset, size in fields.values()))
    for field, value in values.items():
        offset, size = fields[field]
        made[offset : offset + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(made)


def unpack(name: str, data: bytes) -> dict[str, int]:
    """A wire structure's fields."""
    return {
        field: int.from_bytes(data[offset : offset + size], "little")
        for field, (offset, size) in _LAYOUT[name].items()
    }


class Frame:
    """A request as it came, and responses to it, right ones or with anything changed."""

    def __init__(self, data: bytes) -> None:
        self.header = unpack("sbe_wire_frame", data)
        self.buffers = [
            unpack("sbe_wire_buffer", data[at : at + DESCRIPTOR])
            for at in range(HEADER, HEADER + DESCRIPTOR * self.header["buffer_count"], DESCRIPTOR)
        ]

    def outputs(self) -> list[dict[str, int]]:
        """What a right response describes."""
        return [dict(item) for item in self.buffers if item["direction"] != _native.DIR_IN]

    def response(
        self, payload: bytes = b"", buffers: list[dict[str, int]] | None = None, **changed: Any
    ) -> bytes:
        """A right response, but for what is given."""
        chosen = self.outputs() if buffers is None else buffers
        described = b"".join(pack("sbe_wire_buffer", **item) for item in chosen)
        header = {
            "size": HEADER + len(described) + len(payload),
            "type": _native.FRAME_RESPONSE,
            "transaction": self.header["transaction"],
            "buffer_count": len(chosen),
            "payload_size": len(payload),
        }
        return pack("sbe_wire_frame", **{**header, **changed}) + described + payload


class Rings:
    """Both rings of a channel, as bytes."""

    def __init__(
        self, memory: memoryview, slots: int, slot_size: int, line: int, send: int, receive: int
    ) -> None:
        self.memory, self.slots, self.slot_size, self.line = memory, slots, slot_size, line
        self.requests, self.responses = send, receive  # as the host sees them: it sends requests
        self.tail = self.head = 0
        self.host_doorbell = -1
        self.silent = False  # nothing is taken any more

    def _word(self, ring: int, end: str, field: str) -> int:
        start = ring if end == "sbe_ring_producer" else ring + self.line
        return start + _LAYOUT[end][field][0]

    def load(self, ring: int, end: str, field: str) -> int:
        at = self._word(ring, end, field)
        return int.from_bytes(self.memory[at : at + 4], "little")

    def store(self, ring: int, end: str, field: str, value: int) -> None:
        at = self._word(ring, end, field)
        self.memory[at : at + 4] = (value % (1 << 32)).to_bytes(4, "little")

    def _slot(self, ring: int, index: int) -> int:
        return ring + 2 * self.line + index % self.slots * self.slot_size

    def take(self) -> Frame | None:
        """The next request."""
        if self.silent:
            return None
        self.store(self.requests, "sbe_ring_consumer", "data_wake", self.tail)
        if self.load(self.requests, "sbe_ring_producer", "head") == self.tail % (1 << 32):
            return None
        at = self._slot(self.requests, self.tail)
        frame = Frame(bytes(self.memory[at : at + self.slot_size]))
        self.tail += 1
        self.publish_tail(self.tail)
        return frame

    def put(self, data: bytes) -> None:
        """A frame for the host, whatever it is, once there is room."""
        until = time.monotonic() + _PATIENCE_S
        while self.room() == 0 and time.monotonic() < until:
            self.knock()
            time.sleep(0)  # the host is another thread
        at, data = self._slot(self.responses, self.head), data[: self.slot_size]
        self.memory[at : at + len(data)] = data
        self.head += 1
        self.publish_head(self.head)

    def room(self) -> int:
        """Slots the host has taken, or never had."""
        tail = self.load(self.responses, "sbe_ring_consumer", "tail")
        return self.slots - (self.head - tail) % (1 << 32)

    def publish_head(self, value: int) -> None:
        self.store(self.responses, "sbe_ring_producer", "head", value)
        self.knock()

    def publish_tail(self, value: int) -> None:
        self.store(self.requests, "sbe_ring_consumer", "tail", value)
        self.knock()

    def knock(self) -> None:
        """Rings the host, needed or not."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self.host_doorbell, 1)


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
        return self.heard.get(timeout=_PATIENCE_S)

    def ask(self, event: int, value: int = 0) -> int:
        """A request about power: the errno of the host's answer."""
        self.say(event, value)
        kind, answer = self.next()
        assert kind == _native.EVENT_ANSWERED
        assert answer >> _native.ANSWERED_SHIFT == event
        return answer & 0xFFFF


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

    def area_attach(self, area: int, context: int, flags: int, size: int, handles: int) -> int:
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
        ours, rings.host_doorbell = (os.dup(fd) for fd in self.fds)
        self.rings[channel], self.doorbells[channel] = rings, ours
        self.poll.register(ours, select.POLLIN)

    def channel_close(self, channel: int) -> None:
        rings, doorbell = self.rings.pop(channel), self.doorbells.pop(channel)
        self.poll.unregister(doorbell)
        os.close(rings.host_doorbell)
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
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(doorbell)
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
        life = Life(far, stop_fd, lambda rings, frame: self.answer(rings, frame), self.events)
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
