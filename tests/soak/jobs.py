"""One call, and what it must come to by zlib and numpy."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

import sbe
from sbe.testing.conformance.services import ref_crc32, ref_fir, ref_sobel

__all__ = ["LARGEST", "Job", "Jobs", "Wrong"]

LARGEST = 16 << 20  # bytes of a buffer
_SLOW = 1 << 18  # bytes where the reference takes its time

_NOISE = np.random.default_rng(1).integers(0, 256, 2 * LARGEST, np.uint8)  # once, for all clients


class Wrong(AssertionError):
    """A result that is not what it must be."""


@dataclass
class Job:
    """Arguments of one call, and its answer."""

    service: str
    buffers: tuple[Any, ...]
    payload: bytes = b""
    reply: bytes = b""
    target: Any = None
    wanted: Any = None
    size: int = 0
    """Bytes of all buffers."""
    since: float = 0.0
    """The client's `well` when it was submitted."""

    def check(self, reply: Any) -> None:
        """Raises Wrong."""
        if bytes(reply.payload) != self.reply:
            raise Wrong(f"{self.service}: {bytes(reply.payload)!r:.80}, not {self.reply!r:.80}")
        self.check_target()

    def check_target(self) -> None:
        if self.target is not None and not np.array_equal(self.target, self.wanted):
            places = np.flatnonzero(self.target != self.wanted)
            raise Wrong(
                f"{self.service} of {self.size} bytes: {places.size} differ, the first at "
                f"{places[0]}: {self.target[places[0]]}, not {self.wanted[places[0]]}"
            )


class Jobs:
    """Makes jobs at random. `memory` is uint8: of an area, or any; the job has it until it ends."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def size(self, most: int) -> int:
        """From 0, all orders of magnitude alike."""
        most = min(most, LARGEST)
        return min(int(2 ** self.chance.uniform(0, most.bit_length())) - 1, most)

    def noise(self, size: int) -> Any:
        start = self.chance.randrange(LARGEST)
        return _NOISE[start : start + size]

    def any(self, memory: Any, payload_max: int) -> Job:
        names = ["crc32", "copy", "fill", "invert", "sobel", "fir", "mulaw", "echo"]
        make = getattr(self, self.chance.choice(names))
        job: Job = make(memory, payload_max)
        return job

    def _halves(self, memory: Any, size: int) -> tuple[Any, Any, Any]:
        """Source, which has noise now, target and the noise."""
        source, target = memory[:size], memory[len(memory) - size :]
        noise = self.noise(size)
        source[:] = noise
        return source, target, noise

    def echo(self, memory: Any, payload_max: int) -> Job:
        payload = self.noise(self.chance.randrange(payload_max)).tobytes()
        return Job("echo", (), payload, payload)

    def crc32(self, memory: Any, payload_max: int) -> Job:
        source, _, noise = self._halves(memory, self.size(len(memory)))
        at = self.chance.randint(0, len(source))
        parts = (sbe.In(source[:at]), sbe.In(source[at:]))
        return Job("crc32", parts, reply=ref_crc32(noise), size=len(source))

    def copy(self, memory: Any, payload_max: int) -> Job:
        source, target, noise = self._halves(memory, self.size(len(memory) // 2))
        target[:] = 0
        buffers = (sbe.In(source), sbe.Out(target))
        return Job("copy", buffers, target=target, wanted=noise, size=2 * len(noise))

    def fill(self, memory: Any, payload_max: int) -> Job:
        target = memory[: self.size(len(memory))]
        value = self.chance.randrange(256)
        target[:] = 255 - value
        wanted = np.full(len(target), value, np.uint8)
        return Job("fill", (sbe.Out(target),), bytes([value]), b"", target, wanted, len(target))

    def invert(self, memory: Any, payload_max: int) -> Job:
        source, _, noise = self._halves(memory, self.size(len(memory)))
        return Job("invert", (sbe.InOut(source),), b"", b"", source, ~noise, len(source))

    def sobel(self, memory: Any, payload_max: int) -> Job:
        size = max(min(self.size(len(memory) // 2), _SLOW), 1)
        width = self.chance.randint(1, size)
        height = size // width
        source, target, noise = self._halves(memory, width * height)
        wanted = ref_sobel(noise.reshape(height, width)).ravel()
        payload = struct.pack("<II", width, height)
        buffers = (sbe.In(source), sbe.Out(target))
        return Job("sobel", buffers, payload, b"", target, wanted, 2 * len(source))

    def fir(self, memory: Any, payload_max: int) -> Job:
        taps = self.noise(2 * self.chance.randint(1, min(1024, payload_max // 2))).tobytes()
        samples = min(self.size(len(memory) // 2), _SLOW) // 2
        source, target, noise = self._halves(memory, 2 * max(samples, 1))
        wanted = ref_fir(noise.copy().view("<i2"), np.frombuffer(taps, "<i2")).view(np.uint8)
        buffers = (sbe.In(source), sbe.Out(target))
        return Job("fir", buffers, taps, b"", target, wanted, 2 * len(source))

    def mulaw(self, memory: Any, payload_max: int) -> Job:
        samples = min(self.size(len(memory) // 3), 4 * _SLOW)
        source, _, noise = self._halves(memory, 2 * samples)
        target = memory[len(memory) - samples :]
        wanted = ref_mulaw(noise.copy().view("<i2"))
        buffers = (sbe.In(source), sbe.Out(target))
        return Job("mulaw", buffers, b"", b"", target, wanted, 3 * samples)


def ref_mulaw(samples: Any) -> Any:
    """G.711: sign, exponent, mantissa of the biased magnitude, all bits turned over."""
    level = np.minimum(np.abs(samples.astype(np.int32)), 32635) + 132
    exponent = np.frexp(level.astype(np.float64))[1] - 8
    mantissa = (level >> (exponent + 3)) & 15
    sign = np.where(samples < 0, 0x80, 0)
    return (~(sign | exponent << 4 | mantissa)).astype(np.uint8)
