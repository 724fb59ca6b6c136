"""`sbe bench`: a few figures of this machine, each beside multiprocessing.Pipe in the same run."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import click

import sbe
from sbe import extras
from sbe.cli.figures import amount, duration, ratio, summary_us
from sbe.cli.session import Session, common_options, describe_link

__all__ = ["bench"]

_MESSAGE = bytes(range(64))
_BLOCK = 16 << 20


@dataclass
class _Row:
    """A task done in two ways. Rounds alternate, so that a slow spell of the machine hits both."""

    name: str
    label: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    calls: int
    ours_ns: list[int] = field(default_factory=list)
    theirs_ns: list[int] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def round(self) -> None:
        pair = []
        for step, samples in ((self.ours, self.ours_ns), (self.theirs, self.theirs_ns)):
            for _ in range(max(1, self.calls // 10)):
                step()
            found = [_timed(step) for _ in range(self.calls)]
            samples += found
            pair.append(statistics.median(found))
        self.ratios.append(pair[1] / pair[0])


def _timed(step: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    step()
    return time.perf_counter_ns() - start


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rounds: about a second.")
@common_options
@click.pass_obj
def bench(session: Session, quick: bool) -> int:
    """Measure calls and large buffers, beside a pipe that copies them.

    Two rows only: a call of 64 bytes, and 16 MiB inverted at the other end. A busy machine shows
    in them. The project's own `make bench` has more rows, floors and rounds.
    """
    try:
        import numpy  # noqa: F401 - the pipe's far end inverts with it, at its best
    except ImportError as error:
        raise click.ClickException(
            extras.missing("sbe bench", error, "cli") or str(error)
        ) from None
    screen = session.screen()
    rounds = 2 if quick else 7
    with contextlib.ExitStack() as stack:
        link = stack.enter_context(session.connect())
        where = describe_link(link)
        rows = _rows(stack, link, quick)
        with screen.progress("bench", rounds * len(rows)) as advance:
            for _ in range(rounds):
                for row in rows:
                    row.round()
                    advance(1)
    measured = {
        row.name: {
            "samples": len(row.ours_ns),
            "by_reference_us": summary_us(row.ours_ns),
            "pipe_us": summary_us(row.theirs_ns),
            "ratio": round(statistics.median(row.ratios), 3),
        }
        for row in rows
    }
    screen.result(True, rounds=rounds, rows=measured)
    screen.line(f"{where}, {rounds} rounds")
    screen.line()
    screen.table(("", ">", ">by reference", ">through a pipe", "median"), _cells(rows, measured))
    return 0


def _rows(stack: contextlib.ExitStack, link: sbe.Connection, quick: bool) -> list[_Row]:
    from sbe.cli.far_end import far_end

    area = link.allocate(_BLOCK)
    block = bytearray(_BLOCK)
    small = stack.enter_context(far_end("echo", len(_MESSAGE)))
    large = stack.enter_context(far_end("invert", _BLOCK))
    echo, invert = link.find("echo"), link.find("invert")
    whole = sbe.InOut(area)

    def small_pipe() -> bytes:
        small.send_bytes(_MESSAGE)
        return small.recv_bytes()

    def large_pipe() -> None:
        large.send_bytes(block)
        large.recv_bytes_into(block)

    # Pages that nobody touched yet, and one answer looked at.
    link.call(invert, whole)
    large_pipe()
    if bytes(area[:64]) != b"\xff" * 64 or block[:64] != b"\xff" * 64:
        raise sbe.RemoteError("the block did not come back inverted")
    calls = 500 if quick else 2000
    return [
        _Row(
            "call_64_bytes",
            f"call, {len(_MESSAGE)} bytes there and back",
            lambda: link.call(echo, payload=_MESSAGE),
            small_pipe,
            calls,
        ),
        _Row(
            "invert_16_mib",
            f"{amount(_BLOCK)} inverted",
            lambda: link.call(invert, whole),
            large_pipe,
            3 if quick else 5,
        ),
    ]


def _cells(rows: list[_Row], measured: dict[str, Any]) -> list[tuple[object, ...]]:
    cells: list[tuple[object, ...]] = []
    for row in rows:
        found = measured[row.name]
        ours, theirs = found["by_reference_us"], found["pipe_us"]
        for key, name in (("median", "p50"), ("p99", "p99")):
            first = key == "median"
            cells.append(
                (
                    row.label if first else "",
                    name,
                    duration(ours[key]),
                    duration(theirs[key]),
                    ratio(1.0, found["ratio"]) if first else "",
                )
            )
    return cells
