"""`sbe record` and `sbe play`: sound from and to a stream of the remote, as WAV files."""

from __future__ import annotations

import contextlib
import math
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import sbe
from sbe.cli import exit_codes
from sbe.cli.screen import Screen
from sbe.cli.session import Session, common_options, describe_link

__all__ = ["play", "record"]

_WIDTHS = {1: "uint8", 2: "int16", 4: "int32"}
_BAR = 24

_period = click.option(
    "--period",
    "period_ms",
    type=click.FloatRange(min=0.5, max=10_000),
    default=10.0,
    show_default=True,
    help="Milliseconds from one event of the remote to the next.",
)


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
    link: sbe.Connection, service: str, direction: str, form: sbe.StreamFormat, period_ms: float
) -> sbe.Stream:
    period = max(1, round(form.rate_hz * period_ms / 1000))
    # Half a second of buffer: a terminal may be slow.
    buffer = max(4, -(-form.rate_hz // 2 // period)) * period
    return link.open_stream(
        service, direction, form, period_frames=period, buffer_frames=buffer, on_xrun="go on"
    )


@click.command()
@click.argument("service")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-d", "--duration", type=click.FloatRange(0.01, 1e9), help="Seconds; else until ^C.")
@click.option("-r", "--rate", type=click.IntRange(min=1), default=48000, show_default=True)
@click.option("-c", "--channels", type=click.IntRange(1, 256), default=2, show_default=True)
@_period
@common_options
@click.pass_obj
def record(
    session: Session,
    service: str,
    file: Path,
    duration: float | None,
    rate: int,
    channels: int,
    period_ms: float,
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
        _open(link, service, "capture", form, period_ms) as stream,
        _wav(file, "wb") as out,
        screen.live() as show,
    ):
        screen.line(f"recording {service} at {describe_link(link)}: ^C ends it")
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        meter = _Meter(stream, show)
        left = None if duration is None else round(duration * rate)
        frames = _copy(stream, out, left, meter)
        stream.pause()
        return _finish(screen, stream, frames, file)


def _copy(stream: sbe.Stream, out: Any, left: int | None, meter: _Meter) -> int:
    frames = 0
    try:
        while left is None or frames < left:
            block = stream.next()
            count = block.frames if left is None else min(block.frames, left - frames)
            data = block.data[: count * stream.format.frame_bytes]
            out.writeframesraw(data)
            meter.take(data)
            frames += count
            stream.give(block)
    except KeyboardInterrupt:
        if left is not None:
            raise
    return frames


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("service")
@_period
@common_options
@click.pass_obj
def play(session: Session, file: Path, service: str, period_ms: float) -> int:
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
            _open(link, service, "playback", form, period_ms) as stream,
            screen.live() as show,
        ):
            screen.line(f"playing {file} to {service} at {describe_link(link)}")
            meter = _Meter(stream, show)
            frames = 0
            while data := source.readframes(stream.period_frames):
                data = data[: len(data) - len(data) % form.frame_bytes]  # the file was cut off
                stream.write(data)
                meter.take(memoryview(data))
                frames += len(data) // form.frame_bytes
            stream.drain()
            return _finish(screen, stream, frames, file)


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
