"""Streams: what a period costs, how late its event is, and sixty-four of them at once."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import ours, procs
from tests.bench.ends import beats
from tests.bench.flows import AUDIO, BULK, watched
from tests.bench.model import Probe, Result, Settings, require

__all__ = ["PROBES"]

RATE_HZ = 48_000
PERIOD_FRAMES = 240
PERIOD_US = 5_000.0

_CROWD = 64  # what one context may have
_BULK_STREAMS = 32
_BULK_PERIODS = 4
_TURN = 100  # events in a row of one side, where two alternate
_SETTLE_S = 0.5

# Quotas are per user: a channel for each stream beside that of the connection.
_CONFIG = """
[policy.default]
channels = 256
areas = 1_024
"""


def _stereo(sbe: Any) -> Any:
    return sbe.StreamFormat("int16", 2, RATE_HZ)


# -- one stream ---------------------------------------------------------------------------------


def events(settings: Settings) -> Result:
    """Microseconds from the remote's stamp of a period to the application that has its event, and
    from the stamp of another process to the application that has read it from an eventfd, in
    turns. The remote's clock is that of this machine."""
    asked, told = os.eventfd(0), os.eventfd(0)
    arguments = (str(asked), str(told), str(int(PERIOD_US * 1e3)))
    with (
        ours.embedded(settings) as (sbe, link),
        link.open_stream(
            "tone", "capture", _stereo(sbe), period_frames=PERIOD_FRAMES, endless=True
        ) as stream,
        procs.far_end(settings, "stamps", *arguments, pass_fds=(asked, told)),
    ):
        sides = {
            "event": partial(_stream_events, stream),
            "eventfd": partial(_bare_events, asked, told),
        }
        samples: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(2 if settings.quick else 6):
            for name, side in sides.items():
                samples[name] += side(_TURN)
    return Result(samples, "measured in turns, a period of 5 ms")


def _stream_events(stream: Any, count: int) -> list[float]:
    """The first periods of a run do not count: the side before was another."""
    stream.prepare()
    stream.start()
    late: list[float] = []
    while len(late) < count + 2:
        event = stream.event(ours.LIMIT_S)
        now = time.monotonic_ns()
        if event.kind == "period":
            late.append((now - event.clock_ns) / 1e3)
    stream.stop()
    return late[2:]


def _bare_events(asked: int, told: int, count: int) -> list[float]:
    """Two that were read as one are the sum of their stamps, and count as none."""
    late: list[float] = []
    while len(late) < count:
        left = count - len(late)
        os.eventfd_write(asked, left)
        while left > 0:
            stamp = os.eventfd_read(told)
            now = time.monotonic_ns()
            together = max(1, round(stamp / now))
            left -= together
            if together == 1:
                late.append((now - stamp) / 1e3)
    return late


def audio(settings: Settings) -> Result:
    """CPU time of a stream of 48 kHz stereo in periods of 5 ms."""
    with (
        ours.embedded(settings) as (sbe, link),
        link.open_stream(
            "tone", "capture", _stereo(sbe), period_frames=PERIOD_FRAMES, on_xrun="go on"
        ) as stream,
    ):

        def take() -> int:
            with stream.next(ours.LIMIT_S) as frames:
                frames.max()
                size: int = frames.nbytes
            return size

        result = watched(settings, ours.remotes(os.getpid()), take)
        lost = stream.stat()["lost_bytes"]
    return Result(result.series, f"{lost:,} of {AUDIO.size} bytes a period lost" if lost else "")


def bulk(settings: Settings) -> Result:
    """Streams of 48 MB/s, the most that one may be, as many as are too much for an application."""
    with ours.embedded(settings) as (sbe, link), ExitStack() as stack:
        wide = sbe.StreamFormat("int16", 240, 100_000)
        frames = BULK.size // wide.frame_bytes
        streams = [
            stack.enter_context(
                link.open_stream(
                    "tone",
                    "capture",
                    wide,
                    period_frames=frames,
                    buffer_frames=_BULK_PERIODS * frames,
                    on_xrun="go on",
                )
            )
            for _ in range(_BULK_STREAMS)
        ]
        loop = Loop(streams)
        stack.callback(loop.close)
        _start(streams)
        result = watched(settings, ours.remotes(os.getpid()), loop.turn)
        lost = sum(stream.stat()["lost_bytes"] for stream in streams)
        moved = sum(stream.position().position_bytes for stream in streams)
    offered = _BULK_STREAMS * wide.frame_bytes * wide.rate_hz / 1e9
    note = f"{_BULK_STREAMS} streams, {offered:.2f} GB/s offered, {lost / moved:.0%} lost"
    return Result(result.series, note)


def no_periods(settings: Settings) -> Result:
    """Doorbells from the remote while a stream without periods flows."""
    with (
        ours.embedded(settings) as (sbe, link),
        link.open_stream("tone", "capture", _stereo(sbe), period_frames=0, endless=True) as stream,
    ):
        stream.start()
        time.sleep(_SETTLE_S)
        before, position = doorbells(link), stream.position().position_bytes
        time.sleep(settings.flow_s)
        rung = doorbells(link) - before
        moved = stream.position().position_bytes - position
    if moved == 0:
        raise RuntimeError("nothing has moved")
    return Result.of([float(rung)], f"{moved / 4 / RATE_HZ:.1f} s of sound")


def doorbells(link: Any) -> int:
    """Rung so far by the remote, of the channels of this link's streams."""
    found = link.stat()
    own = found["connection"]["channel"]
    return sum(
        row["doorbells_from_remote"]
        for row in found["channels"]
        if row["context"] == found["connection"]["context"] and row["id"] != own
    )


# -- many -----------------------------------------------------------------------------------------


class Loop:
    """One thread that serves many streams: it sleeps in epoll and takes or gives whole periods."""

    def __init__(self, streams: Sequence[Any]) -> None:
        require("numpy")
        self._streams = {stream.fileno(): stream for stream in streams}
        self._epoll = select.epoll()
        self._woken: dict[int, int] = {}
        self.jitter_us: list[float] = []
        """How far from a period the time between two wake-ups for a stream was."""
        for fd in self._streams:
            self._epoll.register(fd, select.EPOLLIN)

    def turn(self) -> int:
        """Waits, serves what is ready; the bytes that moved."""
        moved = 0
        for fd, _ in self._epoll.poll(ours.LIMIT_S):
            now = time.monotonic_ns()
            stream = self._streams[fd]
            told = False
            while (event := stream.event(0)) is not None:
                told = told or event.kind == "period"
            if not told:
                continue
            before = self._woken.get(fd)
            self._woken[fd] = now
            if before is not None:
                self.jitter_us.append(round(abs((now - before) / 1e3 - PERIOD_US), 1))
            for _ in range(stream.available() // stream.period_frames):
                with stream.next(0) as frames:
                    if stream.playback:
                        frames[:] = 0
                    else:
                        frames.max()
                    moved += frames.nbytes
        return moved

    def close(self) -> None:
        self._epoll.close()


def _start(streams: Sequence[Any]) -> None:
    """In groups as large as may be."""
    for at in range(0, len(streams), 17):
        first, *others = streams[at : at + 17]
        first.start(*others)


def _open(stack: ExitStack, sbe: Any, link: Any) -> list[Any]:
    """Half of them played, half captured, with the SDK's usual buffer of twenty periods."""
    streams = []
    for number in range(_CROWD):
        service, direction = ("tone", "capture") if number % 2 else ("meter", "playback")
        stream = link.open_stream(
            service, direction, _stereo(sbe), period_frames=PERIOD_FRAMES, on_xrun="go on"
        )
        streams.append(stack.enter_context(stream))
        if stream.playback:
            while stream.available() > stream.period_frames:  # the last would start it
                with stream.next() as frames:
                    frames[:] = 0
    return streams


def _crowd(settings: Settings, link: Any, pids: dict[str, list[int]], stack: ExitStack) -> Result:
    sbe = ours.require_sbe()
    streams = _open(stack, sbe, link)
    loop = Loop(streams)
    stack.callback(loop.close)
    _start(streams)
    _turns(loop, _SETTLE_S)
    loop.jitter_us.clear()
    before = {name: procs.cpu_ms(of) for name, of in pids.items()}
    rung, periods, begin = doorbells(link), _periods(streams), time.monotonic()
    _turns(loop, settings.crowd_s)
    seconds = time.monotonic() - begin
    used = {name: (procs.cpu_ms(of) - before[name]) / seconds / 10 for name, of in pids.items()}
    rung, periods = doorbells(link) - rung, _periods(streams) - periods
    series = {name: [percent] for name, percent in used.items()}
    series["xruns"] = [float(sum(stream.stat()["xruns"] for stream in streams))]
    series["doorbells"] = [rung / periods]
    series["jitter"] = loop.jitter_us
    said = ", ".join(f"{name} {percent:.0f} %" for name, percent in used.items())
    return Result(
        series,
        f"{_CROWD} streams for {seconds:.0f} s on {_processor()}: CPU of {said}; "
        f"{rung / seconds / _CROWD:.0f} doorbells a second each; "
        f"jitter at most {max(loop.jitter_us):,.0f} us",
    )


def _turns(loop: Loop, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        loop.turn()


def _periods(streams: Sequence[Any]) -> int:
    return sum(
        stream.position().position_bytes // (PERIOD_FRAMES * stream.format.frame_bytes)
        for stream in streams
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "a processor without a name"


def crowd(settings: Settings) -> Result:
    """64 streams of 48 kHz stereo, 5 ms a period, by one thread of one application."""
    with ours.embedded(settings) as (_, link), ExitStack() as stack:
        pids = {"client": [os.getpid()], "remote": ours.remotes(os.getpid())}
        return _crowd(settings, link, pids, stack)


def crowd_daemon(settings: Settings) -> Result:
    """The same through the daemon."""
    sbe = ours.require_sbe()
    with (
        ours.daemon(settings, config=_CONFIG) as (address, daemon),
        sbe.connect(address) as link,
        ExitStack() as stack,
    ):
        far = ours.remotes(daemon)
        procs.place(settings, [daemon, *far])
        pids = {"client": [os.getpid()], "remote": far, "daemon": [daemon]}
        return _crowd(settings, link, pids, stack)


def timer(settings: Settings) -> Result:
    """How far from 5 ms two wake-ups of a thread that only sleeps are apart, in microseconds."""
    procs.place(settings, [])
    jitter, before = [], 0
    end = time.monotonic() + min(settings.crowd_s, 10.0)
    for _ in beats(int(PERIOD_US * 1e3)):
        now = time.monotonic_ns()
        if before:
            jitter.append(abs((now - before) / 1e3 - PERIOD_US))
        before = now
        if time.monotonic() > end:
            break
    return Result.of(jitter)


PROBES = {
    "stream_events": Probe(events),
    "stream_audio": Probe(audio),
    "stream_bulk": Probe(bulk),
    "stream_no_periods": Probe(no_periods, once=True),
    "stream_crowd": Probe(crowd, limit_s=120.0, once=True),
    "stream_crowd_daemon": Probe(crowd_daemon, limit_s=120.0, once=True),
    "timer": Probe(timer, once=True),
}
