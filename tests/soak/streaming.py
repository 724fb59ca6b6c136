"""Clients whose data flows, and the account of each stream."""

from __future__ import annotations

import time

import numpy as np

import sbe
from sbe.testing.conformance.test_streams import wave
from tests.soak.client import PATIENCE_S
from tests.soak.jobs import Wrong
from tests.soak.kinds import Kind

__all__ = ["Streaming"]


class Streaming(Kind):
    """Streams of all lengths: a tone, or noise through the remote and back; every frame is checked.

    What is played or captured fits the buffer, so no xrun depends on how busy the machine is, but
    of who is late on purpose. Each byte of a position was read, is there to be read, or is lost.
    """

    FORMAT = sbe.StreamFormat("int16", 2, 48000)

    def step(self) -> None:
        period = self.chance.choice([48, 240, 480])
        frames = period * self.chance.randint(2, 40)
        with self.client.expecting(PATIENCE_S, *self.busy):
            self.chance.choice([self.tone, self.loop, self.late])(period, frames)
            self.client.tally.add("streams")
            self.client.tally.add("calls", 4)  # at least: it was agreed, opened, started, closed

    def opened(
        self, service: str, direction: str, period: int, frames: int, on_xrun: str = "stop"
    ) -> sbe.Stream:
        return self.link.open_stream(
            service,
            direction,
            self.FORMAT,
            period_frames=period,
            buffer_frames=frames,
            on_xrun=on_xrun,
            timeout=PATIENCE_S,
        )

    def account(self, stream: sbe.Stream, taken: int) -> None:
        """Of a stream that stands still, of which so many bytes were read, or written."""
        size = self.FORMAT.frame_bytes
        there = stream.available() * size
        position = stream.position().position_bytes
        if stream.playback:
            there = there - stream.buffer_frames * size  # what waits to be played was written
        lost = stream.stat()["lost_bytes"] if stream.state != "xrun" else 0
        if position != taken + there + lost:
            raise Wrong(f"{taken} bytes, {there} more and {lost} lost are not {position}: {stream}")
        self.client.tally.add("stream_bytes", position)
        self.client.tally.add("stream_lost", lost)

    def late(self, period: int, frames: int) -> None:
        """Sleeps in between: the oldest frames give way, and what is read is where it is."""
        with self.opened("tone", "capture", period, frames, "go on") as stream:
            stream.start()
            taken = 0
            for _ in range(self.chance.randint(1, 5)):
                time.sleep(self.chance.uniform(0.0, 2.0) * frames / self.FORMAT.rate_hz)
                stream.pause()
                count = stream.available()
                first = stream.position().position_bytes // self.FORMAT.frame_bytes - count
                part = np.frombuffer(stream.read(count, PATIENCE_S), "<i2").reshape(-1, 2)
                if not (part == wave(first, count)[:, None]).all():
                    raise Wrong(f"{count} frames of a tone from {first} on")
                taken += part.nbytes
                stream.resume()
            stand_still(stream)
            self.account(stream, taken)

    def tone(self, period: int, frames: int) -> None:
        with self.opened("tone", "capture", period, frames) as stream:
            taken = np.frombuffer(stream.read(frames, PATIENCE_S), "<i2").reshape(-1, 2)
            if not (taken == wave(0, frames)[:, None]).all():
                raise Wrong(f"{frames} frames of a tone in periods of {period}")
            stand_still(stream)
            self.account(stream, taken.nbytes)

    def loop(self, period: int, frames: int) -> None:
        given = self.jobs.noise(frames * self.FORMAT.frame_bytes)
        with (
            self.opened("loop", "playback", period, frames) as out,
            self.opened("loop", "capture", period, frames) as back,
        ):
            out.write(given, PATIENCE_S)
            out.start(back)
            taken = np.frombuffer(back.read(frames, PATIENCE_S), np.uint8)
            delay = min(back.position().delay_bytes, len(taken))
            if taken[:delay].any() or not (taken[delay:] == given[: len(taken) - delay]).all():
                raise Wrong(f"{frames} frames of noise in periods of {period} came back otherwise")
            stand_still(out)
            self.account(out, len(given))
            stand_still(back)
            self.account(back, len(taken))


def stand_still(stream: sbe.Stream) -> None:
    """Pauses it, unless its buffer's end was sooner."""
    try:
        stream.pause()
    except sbe.StreamError:
        if stream.state != "xrun":
            raise
