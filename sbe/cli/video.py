"""Frames as a video would send them, and what they cost: by reference, and through a pipe."""

from __future__ import annotations

import struct
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sbe
from sbe.cli.far_end import far_end
from sbe.cli.picture import Picture, numpy_sobel

if TYPE_CHECKING:
    from sbe.cli.picture import Pixels

__all__ = ["Alone", "Stage", "Video", "compare", "play"]

_IN_FLIGHT: Final = 4
_AREA_BYTES: Final = 256 << 20  # large pictures get fewer buffers
_CHECKS: Final = 20  # of a video's frames, about
_COMPARE_S: Final = 1.5
_TIMEOUT_S: Final = 30.0


class _Pair(NamedTuple):
    """Memory of one frame: where it lies, and where its edges go."""

    source: Pixels
    edges: Pixels


class Stage:
    """An area with room for the frames in flight, and the services that take them."""

    def __init__(self, link: sbe.Connection, picture: Picture) -> None:
        import numpy as np

        self.link = link
        self.picture = picture
        self.flat = picture.pixels.reshape(-1)
        self.size = int(self.flat.size)
        self.geometry = struct.pack("<II", picture.width, picture.height)
        self.sobel, self.crc32 = link.find("sobel"), link.find("crc32")
        stride = -(-self.size // 4096) * 4096
        self.in_flight = max(1, min(_IN_FLIGHT, _AREA_BYTES // (2 * stride)))
        self.area = link.allocate(2 * stride * self.in_flight)
        memory = np.frombuffer(memoryview(self.area), np.uint8)
        memory[:] = 0  # the pages are there before anything is timed
        places = [memory[at : at + self.size] for at in range(0, memory.size, stride)]
        self.pairs = [_Pair(*places[at : at + 2]) for at in range(0, len(places), 2)]

    def paint(self, number: int, target: Pixels) -> None:
        """Puts frame `number` into memory: the picture, moved on by a row and a pixel each."""
        shift = number * (self.picture.width + 1) % self.size
        target[:shift] = self.flat[self.size - shift :]
        target[shift:] = self.flat[: self.size - shift]

    def submit_sobel(self, pair: _Pair) -> Any:
        """Starts the edges of a frame."""
        return self.link.submit(
            self.sobel,
            sbe.In(pair.source),
            sbe.Out(pair.edges),
            payload=self.geometry,
            timeout=_TIMEOUT_S,
        )

    def call_sobel(self, pair: _Pair) -> sbe.Reply:
        """The edges of a frame, waited for."""
        return self.link.call(
            self.sobel,
            sbe.In(pair.source),
            sbe.Out(pair.edges),
            payload=self.geometry,
            timeout=_TIMEOUT_S,
        )

    def call_crc32(self, pair: _Pair) -> tuple[sbe.Reply, bool]:
        """The remote's checksum of a frame, and whether zlib finds the same."""
        reply = self.link.call(self.crc32, sbe.In(pair.source), timeout=_TIMEOUT_S)
        return reply, reply.payload == zlib.crc32(pair.source.data).to_bytes(4, "little")

    def edges_are_right(self, pair: _Pair) -> bool:
        """The remote's edges are those that numpy computes."""
        shape = self.picture.pixels.shape
        expected = numpy_sobel(pair.source.reshape(shape))
        return bool((pair.edges.reshape(shape) == expected).all())


@dataclass
class Video:
    """What a run of frames came to."""

    seconds: float = 0.0
    costs: list[sbe.Cost] = field(default_factory=list)  # of sobel, one a frame
    checks: int = 0
    wrong: list[int] = field(default_factory=list)


@dataclass
class _Flight:
    number: int
    pair: _Pair
    sobel: Any
    crc32: Any


def play(stage: Stage, frames: int, advance: Callable[[int], None]) -> Video:
    """Sends the frames, several in flight, each different; some are checked by crc32."""
    video = Video()
    every = max(1, frames // _CHECKS)
    flying: deque[_Flight] = deque()
    start = time.perf_counter()
    for number in range(frames):
        if len(flying) == stage.in_flight:
            _land(stage, video, flying.popleft(), advance)
        pair = stage.pairs[number % stage.in_flight]
        stage.paint(number, pair.source)
        sobel = stage.submit_sobel(pair)
        checked = number % every == every - 1
        crc32 = stage.link.submit(stage.crc32, sbe.In(pair.source)) if checked else None
        flying.append(_Flight(number, pair, sobel, crc32))
    while flying:
        _land(stage, video, flying.popleft(), advance)
    video.seconds = time.perf_counter() - start
    if frames:
        video.checks += 1
        if not stage.edges_are_right(stage.pairs[(frames - 1) % stage.in_flight]):
            video.wrong.append(frames - 1)
    return video


def _land(stage: Stage, video: Video, flight: _Flight, advance: Callable[[int], None]) -> None:
    video.costs.append(flight.sobel.result().cost)
    if flight.crc32 is not None:
        video.checks += 1
        expected = zlib.crc32(flight.pair.source.data).to_bytes(4, "little")
        if flight.crc32.result().payload != expected:
            video.wrong.append(flight.number)
    advance(1)


@dataclass
class Alone:
    """One frame at a time, in both ways."""

    costs: list[sbe.Cost] = field(default_factory=list)
    pipe_ns: list[int] = field(default_factory=list)


def compare(stage: Stage, frames: int, advance: Callable[[int], None]) -> Alone:
    """The same frames by reference and through a pipe, ten of each in turn.

    The pipe's far end computes nothing: it returns as many bytes as it got. So its time is that of
    the copying alone.
    """
    alone = Alone()
    pair = stage.pairs[0]
    returned = bytearray(stage.size)
    with far_end("echo", stage.size) as pipe:
        until = time.perf_counter() + _COMPARE_S
        for start in range(0, frames, 10):
            numbers = range(start, min(start + 10, frames))
            for number in numbers:
                stage.paint(number, pair.source)
                alone.costs.append(stage.call_sobel(pair).cost)
            for number in numbers:
                stage.paint(number, pair.source)
                before = time.perf_counter_ns()
                pipe.send_bytes(pair.source.data)
                pipe.recv_bytes_into(returned)
                alone.pipe_ns.append(time.perf_counter_ns() - before)
            advance(len(numbers))
            if time.perf_counter() > until:
                break
    if returned != pair.source.tobytes():
        raise RuntimeError("the pipe returned another frame")
    return alone
