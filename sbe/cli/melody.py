"""`sbe demo-stream`: a melody through the remote and back, each sample checked, and a plot."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

import sbe
from sbe import extras
from sbe.cli import exit_codes
from sbe.cli.figures import duration, percentile
from sbe.cli.session import Session, common_options, describe_link

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sbe.sdk.stream_times import StreamStat

__all__ = ["demo_stream"]

_RATE: Final = 48000
_FORMAT: Final = sbe.StreamFormat("int16", 2, _RATE)
_PERIOD: Final = _RATE // 100
_NOTE_S: Final = 0.2
# Beethoven's last symphony, in half tones above middle C.
_MELODY: Final = (4, 4, 5, 7, 7, 5, 4, 2, 0, 0, 2, 4, 4, 2, 2)
_WIDE: Final = 1600, 600


@dataclass
class _Heard:
    """What came back, and when."""

    frames: list[NDArray[Any]] = field(default_factory=list)
    count: int = 0
    woken_ns: list[int] = field(default_factory=list)
    """By this end's clock, for each event of a period."""
    clock_ns: list[int] = field(default_factory=list)
    """By the remote's."""
    position: list[int] = field(default_factory=list)
    """Frames."""


def _melody() -> NDArray[Any]:
    import numpy as np

    t = np.arange(int(_RATE * _NOTE_S)) / _RATE
    fade = np.exp(-4 * t / _NOTE_S)
    notes = [np.sin(2 * np.pi * 261.63 * 2 ** (step / 12) * t) * fade for step in _MELODY]
    mono = (np.concatenate(notes) * 20000).astype(np.int16)
    return np.stack([mono, np.roll(mono, _RATE // 200)], axis=1)


def _through(link: sbe.Connection, given: NDArray[Any]) -> tuple[_Heard, int, StreamStat]:
    """Plays all of it; what was heard, the delay in frames, and counters."""

    def opened(direction: str, on_xrun: str) -> sbe.Stream:
        return link.open_stream(
            "loop",
            direction,
            _FORMAT,
            period_frames=_PERIOD,
            buffer_frames=_PERIOD * 50,
            on_xrun=on_xrun,
        )

    with opened("playback", "go on") as out, opened("capture", "stop") as back:
        first = out.buffer_frames
        out.write(given[:first])
        if out.state == "prepared":
            out.start(back)
        player = threading.Thread(target=lambda: out.write(given[first:]), daemon=True)
        player.start()
        delay = back.position().delay_bytes // _FORMAT.frame_bytes
        heard = _listen(back, len(given) + delay)
        player.join()
        return heard, delay, out.stat()


def _listen(back: sbe.Stream, wanted: int) -> _Heard:
    heard = _Heard()
    while heard.count < wanted:
        event = back.event(10.0)
        if event is None:
            raise sbe.Timeout(f"no event for 10 s; it is {back.state}")
        if event.kind == "period":
            heard.woken_ns.append(time.monotonic_ns())
            heard.clock_ns.append(event.clock_ns)
            heard.position.append(event.position_bytes // _FORMAT.frame_bytes)
        # A whole period: for the rest of one next() waits, and takes the event of it.
        while heard.count < wanted and back.available() >= back.period_frames:
            block = back.next()
            taken = block.array()[: wanted - heard.count].copy()
            heard.frames.append(taken)
            heard.count += len(taken)
            back.give(block)
    return heard


def _plot(path: Path, heard: _Heard, jitter_us: NDArray[Any], title: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(_WIDE[0] / 100, _WIDE[1] / 100))
    begun = heard.clock_ns[0]
    seconds = [(clock - begun) / 1e9 for clock in heard.clock_ns]
    left.plot(seconds, [each / 1000 for each in heard.position], lw=0.8, color="C0")
    left.plot(
        seconds, [each / 1000 for each in heard.position], ".", ms=3, color="C1", label="period"
    )
    left.set(xlabel="remote's clock, s", ylabel="position, thousand frames", title="Position")
    left.legend()
    most = max(float(jitter_us.max()), 10.0)
    right.hist(jitter_us.clip(1), bins=[most ** (i / 60) for i in range(61)], color="C0")
    right.set(
        xlabel="wake-up after the remote's stamp, above the fastest, us",
        ylabel="periods",
        title="Jitter of wake-ups",
        xscale="log",
    )
    figure.suptitle(title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


@click.command("demo-stream")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build/stream.png"),
    show_default=True,
    help="Where the plot goes.",
)
@common_options
@click.pass_obj
def demo_stream(session: Session, output: Path) -> int:
    """Play a melody through the remote's service loop and check each sample that comes back.

    The last line begins with PASS or FAIL.
    """
    try:
        import matplotlib  # noqa: F401
        import numpy as np
    except ImportError as error:
        words = extras.missing("sbe demo-stream", error, "demo")
        raise sbe.OutOfResources(words or str(error)) from error
    screen = session.screen()
    given = _melody()
    with session.connect() as link:
        where = describe_link(link)
        seconds = len(given) / _RATE
        screen.line(f"{len(_MELODY)} notes, {seconds:.1f} s, through loop at {where}")
        heard, delay, stat = _through(link, given)
    taken = np.concatenate(heard.frames)
    wrong = int((taken[delay:] != given).any(axis=1).sum()) + int(taken[:delay].any(axis=1).sum())
    late = np.array(heard.woken_ns) - np.array(heard.clock_ns)
    jitter_us = (late - late.min()) / 1000
    missing = sum(1 for a, b in zip(heard.position, heard.position[1:], strict=False) if b <= a)
    _plot(output, heard, jitter_us, f"A melody through {where}")
    ok = wrong == 0 and stat["xruns"] <= 1 and missing == 0  # silence after the end is one
    worst = sorted(float(each) for each in jitter_us)
    screen.line(
        f"{len(worst)} events of periods, wake-ups within {duration(percentile(worst, 0.5))} "
        f"(median) and {duration(worst[-1])} (most) of the fastest; the plot is {output}"
    )
    screen.result(
        ok,
        frames=len(taken),
        wrong=wrong,
        delay_frames=delay,
        periods=len(worst),
        jitter_us={"median": percentile(worst, 0.5), "max": worst[-1]},
        output=str(output),
    )
    screen.verdict(ok, f"{len(given) - wrong:,} of {len(given):,} frames came back as they went")
    return exit_codes.OK if ok else exit_codes.FAILED
