"""A link whose answers are written in advance: what this end of a call costs, and nothing else.

One thread, no remote, no sleep: the response lies in the ring before the request is sent, so that
the call finds it at its first look. Everything above the ring is the SDK's own.
"""

from __future__ import annotations

import os
from typing import Any

from tests.bench.model import UnavailableError

SLOTS = 1024
SLOT_SIZE = 128
_LINE = 64


class Script:
    """The control side and the remote's half of one channel. One thread uses it."""

    uri = "scripted:"
    context = 1

    def __init__(self) -> None:
        try:
            from sbe import _native
            from sbe.link import grants, rings
            from sbe.sdk import backend, connection
        except ImportError as error:
            raise UnavailableError(f"SBE is not built here ({error})") from error
        self._native, self._backend, self._grants = _native, backend, grants
        self.limits = {"areas": 64, "buffers": 16}
        self.control_fd = os.eventfd(0, os.EFD_CLOEXEC)
        geometry = rings.Geometry(SLOTS, SLOT_SIZE)
        self._rings = rings.create_rings(geometry, _LINE)
        memory = memoryview(_native.Memory(self._rings.memory_fd, self._rings.size_bytes))
        self._answers = memory[self._rings.receive_offset :]
        layout = _native.layout()
        head = layout["sbe_ring_producer"]["head"][0]
        self.head = self._answers[head : head + 4].cast("I")
        """Answers that are published; the caller counts it up before each call."""
        self._fields = layout["sbe_wire_frame"]
        self.link: Any = connection.Connection(self, geometry=geometry)

    def write(self, count: int, *, together: bool) -> None:
        """Answers to the first `count` calls: in flight together, or one after the other."""
        for number in range(count):
            # Calls in flight together take one place each; one after the other always the first.
            index, generation = (number, 1) if together else (0, number + 1)
            start = 2 * _LINE + (number % SLOTS) * SLOT_SIZE
            self._put(start, "size", sum(self._fields["handled_ns"]))
            self._put(start, "type", self._native.FRAME_RESPONSE)
            self._put(start, "transaction", generation << 32 | index)

    def _put(self, start: int, field: str, value: int) -> None:
        offset, size = self._fields[field]
        place = start + offset
        self._answers[place : place + size] = value.to_bytes(size, "little")

    # -- what the connection asks of its backend ------------------------------------------------

    def open_channel(self, geometry: Any, priority: int) -> Any:
        return self._grants.ChannelGrant(1, 1, priority, self._rings.duplicate())

    def find_service(self, name: str, version: int) -> Any:
        return self._backend.Service(1, name, 1)

    def process_control(self) -> None:
        return None

    def close(self) -> None:
        self._rings.close()
        os.close(self.control_fd)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a scripted link has no {name}")
