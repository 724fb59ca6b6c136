"""Ring memory and frames as bytes: for an end that keeps to no rule.

Either end of a channel: a hostile remote takes requests from one ring and puts answers into the
other, a hostile application the other way round.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from sbe import _native

__all__ = ["DESCRIPTOR", "HEADER", "PATIENCE_S", "Frame", "Rings", "pack", "request", "unpack"]

_LAYOUT = _native.layout()
PATIENCE_S = 5.0  # for room in a ring
HEADER = sum(_LAYOUT["sbe_wire_frame"]["handled_ns"])
DESCRIPTOR = sum(_LAYOUT["sbe_wire_buffer"]["size"])


def pack(name: str, /, **values: int) -> bytes:
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


def request(
    service: int,
    transaction: int,
    payload: bytes = b"",
    buffers: list[dict[str, int]] | None = None,
    **changed: int,
) -> bytes:
    """A right request, but for what is given."""
    described = b"".join(pack("sbe_wire_buffer", **item) for item in buffers or [])
    header = {
        "size": HEADER + len(described) + len(payload),
        "type": _native.FRAME_REQUEST,
        "service": service,
        "transaction": transaction,
        "buffer_count": len(buffers or []),
        "payload_size": len(payload),
    }
    return pack("sbe_wire_frame", **{**header, **changed}) + described + payload


class Frame:
    """A frame as it came, and responses to it, right ones or with anything changed."""

    def __init__(self, data: bytes) -> None:
        self.header = unpack("sbe_wire_frame", data)
        # No more than there are: the other end may lie as well.
        count = min(self.header["buffer_count"], (len(data) - HEADER) // DESCRIPTOR)
        behind = HEADER + DESCRIPTOR * count
        self.buffers = [
            unpack("sbe_wire_buffer", data[at : at + DESCRIPTOR])
            for at in range(HEADER, behind, DESCRIPTOR)
        ]
        self.payload = data[behind : behind + self.header["payload_size"]]

    @property
    def status(self) -> int:
        """Zero or a negative errno."""
        value = self.header["status"]
        return value - (1 << 32) if value >> 31 else value

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
    """Both rings of a channel, as bytes: what comes in, and what goes out."""

    def __init__(
        self,
        memory: memoryview,
        slots: int,
        slot_size: int,
        line: int,
        incoming: int,
        outgoing: int,
    ) -> None:
        self.memory, self.slots, self.slot_size, self.line = memory, slots, slot_size, line
        self.incoming, self.outgoing = incoming, outgoing
        self.tail = self.head = 0
        self.peer_doorbell = -1
        self.silent = False  # nothing is taken any more

    def word(self, ring: int, end: str, field: str) -> int:
        """Where in the memory it is."""
        start = ring if end == "sbe_ring_producer" else ring + self.line
        return start + _LAYOUT[end][field][0]

    def load(self, ring: int, end: str, field: str) -> int:
        at = self.word(ring, end, field)
        return int.from_bytes(self.memory[at : at + 4], "little")

    def store(self, ring: int, end: str, field: str, value: int) -> None:
        at = self.word(ring, end, field)
        self.memory[at : at + 4] = (value % (1 << 32)).to_bytes(4, "little")

    def slot(self, ring: int, index: int) -> int:
        """Where in the memory it is."""
        return ring + 2 * self.line + index % self.slots * self.slot_size

    def take(self) -> Frame | None:
        """The next frame."""
        if self.silent:
            return None
        self.store(self.incoming, "sbe_ring_consumer", "data_wake", self.tail)
        if self.load(self.incoming, "sbe_ring_producer", "head") == self.tail % (1 << 32):
            return None
        at = self.slot(self.incoming, self.tail)
        frame = Frame(bytes(self.memory[at : at + self.slot_size]))
        self.tail += 1
        self.publish_tail(self.tail)
        return frame

    def put(self, data: bytes) -> None:
        """A frame for the peer, whatever it is, once there is room."""
        until = time.monotonic() + PATIENCE_S
        while self.room() == 0 and time.monotonic() < until:
            self.knock()
            time.sleep(0)  # the peer is another thread
        at, data = self.slot(self.outgoing, self.head), data[: self.slot_size]
        self.memory[at : at + len(data)] = data
        self.head += 1
        self.publish_head(self.head)

    def room(self) -> int:
        """Slots the peer has taken, or never had."""
        tail = self.load(self.outgoing, "sbe_ring_consumer", "tail")
        return self.slots - (self.head - tail) % (1 << 32)

    def publish_head(self, value: int) -> None:
        self.store(self.outgoing, "sbe_ring_producer", "head", value)
        self.knock()

    def publish_tail(self, value: int) -> None:
        self.store(self.incoming, "sbe_ring_consumer", "tail", value)
        self.knock()

    def knock(self) -> None:
        """Rings the peer, needed or not."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self.peer_doorbell, 1)
