"""`sbe record` and `sbe play`: sound from and to a stream of the remote, as WAV files."""

from __future__ import annotations

import contextlib
import math
import signal
import wave
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import click

import sbe
from sbe.cli import exit_codes, signals
from sbe.cli.screen import Screen
from sbe.cli.session import Session, common_options, describe_link

if TYPE_CHECKING:
    from sbe.sdk.stream_queue import QueuedBlock

__all__ = ["play", "record"]

_WIDTHS = {1: "uint8", 2: "int16", 4: "int32"}
_BAR = 24
_PERIOD_MS = 10.0
_BLOCK_MS = 100.0  # there are few of them, and a terminal may be slow
_PATIENCE_S = 10.0  # beyond what the frames take

_period = click.option(
    "--period",
    "period_ms",
    type=click.FloatRange(min=0.5, max=10_000),
    default=None,
    show_default=f"{_PERIOD_MS:g}, of blocks {_BLOCK_MS:g}",
    help="Milliseconds from one event of the remote to the next; of a block.",
)
_blocks = click.option(
    "--blocks",
    type=click.IntRange(min=1),
    help="Queue so many blocks of memory, each of a period, in the place of one ring.",
)


class _End:
    """Signals that end a recording do so while it waits for frames, never in the middle of a write:
    the file's header says what there is. One that the caller ignores still is."""

    def __init__(self) -> None:
        self._asked = self._waits = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for each in signals.ending():
            self._before[each] = signal.signal(each, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if self._waits:
            self._waits = False  # the next one does not disturb what this one ends
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Where it may end, with KeyboardInterrupt."""
        self._waits = True
        try:
            if self._asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._waits = False


class _Meter:
    """A line that changes: position, level, xruns in red. For people at a terminal."""

    def __init__(self, stream: sbe.Stream, show: Callable[[str, bool], None]) -> None:
        self._stream = stream
        self._show = show
        self._full = {"int16": 1 << 15, "int32": 1 << 31}.get(stream.format.dtype, 0)

    def take(self, data: memoryview) -> None:
        status = self._stream.position()
        frames = status.position_bytes // self._stream.format.frame_bytes
        at = f"{frames / self._stream.format.rate_hz:8.2f} s"
        bar = ""
        if self._full and len(data):
            samples = data.cast("B").cast("h" if self._full == 1 << 15 else "i")
            level = max(max(samples), -min(samples)) / self._full
            bar = " [" + ("#" * round(level * _BAR)).ljust(_BAR) + "]"
        xruns = f"  {status.xruns} xruns, {status.lost_bytes} bytes lost" if status.xruns else ""
        self._show(f"{at}{bar}{xruns}", bool(status.xruns))


def _finish(screen: Screen, stream: sbe.Stream, frames: int, path: Path) -> int:
    stat = stream.stat()
    ok = stat["xruns"] == 0
    screen.result(
        ok,
        file=str(path),
        frames=frames,
        rate_hz=stream.format.rate_hz,
        channels=stream.format.channels,
        **stat,
    )
    seconds = frames / stream.format.rate_hz
    late = f", {stat['xruns']} xruns, {stat['lost_bytes']} bytes lost" if not ok else ", no xrun"
    screen.verdict(ok, f"{frames:,} frames, {seconds:.2f} s{late}")
    return exit_codes.OK if ok else exit_codes.FAILED


def _open(
    link: sbe.Connection,
    service: str,
    direction: str,
    form: sbe.StreamFormat,
    period_ms: float | None,
    blocks: int | None,
) -> sbe.Stream:
    if period_ms is None:
        period_ms = _PERIOD_MS if blocks is None else _BLOCK_MS
    period = max(1, round(form.rate_hz * period_ms / 1000))
    if blocks is not None:
        return link.open_queue(
            service, direction, form, block_frames=period, blocks=blocks, on_xrun="go on"
        )
    # Half a second of buffer, for the same reason.
    buffer = max(4, -(-form.rate_hz // 2 // period)) * period
    return link.open_stream(
        service, direction, form, period_frames=period, buffer_frames=buffer, on_xrun="go on"
    )


def _patience(stream: sbe.Stream) -> float:
    """How long frames may take: all of a buffer, and more."""
    return stream.buffer_frames / stream.format.rate_hz + _PATIENCE_S


def _areas(link: sbe.Connection, stream: sbe.StreamQueue) -> list[sbe.Area]:
    size = stream.block_frames * stream.format.frame_bytes
    return [link.allocate(size) for _ in range(stream.blocks)]


@click.command()
@click.argument("service")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-d",
    "--duration",
    type=click.FloatRange(0.01, 1e9),
    help="Seconds; else until ^C or SIGTERM.",
)
@click.option("-r", "--rate", type=click.IntRange(min=1), default=48000, show_default=True)
@click.option("-c", "--channels", type=click.IntRange(1, 256), default=2, show_default=True)
@_period
@_blocks
@common_options
@click.pass_obj
def record(
    session: Session,
    service: str,
    file: Path,
    duration: float | None,
    rate: int,
    channels: int,
    period_ms: float | None,
    blocks: int | None,
) -> int:
    """Record 16-bit sound from the stream SERVICE of the remote to the WAV file FILE.

    The last line begins with PASS, or with FAIL if frames are missing.
    """
    if duration is not None and math.isnan(duration):
        raise click.BadParameter("nan is not a number of seconds", param_hint="'-d'")
    screen = session.screen()
    form = sbe.StreamFormat("int16", channels, rate)
    with (
        session.connect() as link,
        _open(link, service, "capture", form, period_ms, blocks) as stream,
        _End() as end,
        _wav(file, "wb") as out,
        screen.live() as show,
    ):
        screen.line(f"recording {service} at {describe_link(link)}: ^C ends it")
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        meter = _Meter(stream, show)
        left = None if duration is None else round(duration * rate)
        frames = _copy(_captured(link, stream, end), out, left, meter)
        stream.pause()
        return _finish(screen, stream, frames, file)


def _captured(link: sbe.Connection, stream: sbe.Stream, end: _End) -> Iterator[memoryview]:
    """What comes, piece by piece; a piece is valid until the next one is asked for."""
    wait = _patience(stream)
    if not isinstance(stream, sbe.StreamQueue):
        while True:
            with end.waiting():
                block = stream.next(wait)
            data = bytes(block.data)
            if stream.give(block):  # else it was overwritten meanwhile, and is among the lost
                yield memoryview(data)
    queued = deque((area, stream.queue(area)) for area in _areas(link, stream))
    while True:
        area, given = queued.popleft()
        with end.waiting():
            done = given.result(wait)
        yield memoryview(area)[: done.used_bytes]
        queued.append((area, stream.queue(area)))


def _copy(pieces: Iterator[memoryview], out: Any, left: int | None, meter: _Meter) -> int:
    frames = 0
    frame_bytes = out.getnchannels() * out.getsampwidth()
    try:
        while left is None or frames < left:
            data = next(pieces)
            count = len(data) // frame_bytes
            if left is not None:
                count = min(count, left - frames)
            data = data[: count * frame_bytes]
            out.writeframesraw(data)
            meter.take(data)
            frames += count
    except KeyboardInterrupt:
        if left is not None:
            raise
    return frames


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("service")
@_period
@_blocks
@common_options
@click.pass_obj
def play(
    session: Session, file: Path, service: str, period_ms: float | None, blocks: int | None
) -> int:
    """Play the WAV file FILE to the stream SERVICE of the remote.

    The last line begins with PASS, or with FAIL if frames were late.
    """
    screen = session.screen()
    with _wav(file, "rb") as source:
        width = source.getsampwidth()
        if width not in _WIDTHS:
            raise sbe.BadArgument(f"{file}: samples of {width} bytes: 1, 2 or 4 can be played")
        form = sbe.StreamFormat(_WIDTHS[width], source.getnchannels(), source.getframerate())
        with (
            session.connect() as link,
            _open(link, service, "playback", form, period_ms, blocks) as stream,
            screen.live() as show,
        ):
            screen.line(f"playing {file} to {service} at {describe_link(link)}")
            meter = _Meter(stream, show)
            hand_over = _player(link, stream)
            frames = 0
            while data := source.readframes(stream.period_frames):
                data = data[: len(data) - len(data) % form.frame_bytes]  # the file was cut off
                hand_over(data)
                meter.take(memoryview(data))
                frames += len(data) // form.frame_bytes
            stream.drain(_patience(stream))
            return _finish(screen, stream, frames, file)


def _player(link: sbe.Connection, stream: sbe.Stream) -> Callable[[bytes], None]:
    """What takes a period of frames at most; it waits for room."""
    wait = _patience(stream)
    if not isinstance(stream, sbe.StreamQueue):
        return lambda data: stream.write(data, wait)
    free = deque(_areas(link, stream))
    queued: deque[tuple[sbe.Area, QueuedBlock]] = deque()

    def hand_over(data: bytes) -> None:
        if not data:
            return
        if not free:
            area, played = queued.popleft()
            played.result(wait)
            free.append(area)
        area = free.popleft()
        memoryview(area)[: len(data)] = data
        queued.append((area, stream.queue(area[: len(data)])))

    return hand_over


@contextlib.contextmanager
def _wav(path: Path, mode: str) -> Iterator[Any]:
    """Opened here: what `wave` opens by a name and then refuses, it complains of at its end."""
    with open(path, mode) as file:
        try:
            opened = wave.open(file, mode)  # noqa: SIM115 - closed below
        except (wave.Error, EOFError) as error:
            raise sbe.BadArgument(f"{path}: not a WAV file that can be read: {error}") from None
        with opened:
            yield opened
