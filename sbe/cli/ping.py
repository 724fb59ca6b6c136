"""`sbe ping`: is there somebody, and how far away."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import click

import sbe
from sbe.cli import exit_codes
from sbe.cli.figures import duration, summary_us
from sbe.cli.screen import Screen
from sbe.cli.session import Session, common_options, describe_link

__all__ = ["ping"]


_ANSWER_S = 2.0


@dataclass
class _Tally:
    """Calls by how they ended; one that Ctrl-C ends is none of them."""

    answers: list[tuple[int, sbe.Cost]] = field(default_factory=list)  # round trip in ns, cost
    lost: int = 0
    wrong: int = 0

    @property
    def sent(self) -> int:
        return len(self.answers) + self.lost + self.wrong

    @property
    def ok(self) -> bool:
        return len(self.answers) == self.sent > 0


def _message(sequence: int, size: int) -> bytes:
    """A sequence number, then bytes that no other call of this command has."""
    pattern = bytes((sequence + index) & 0xFF for index in range(size))
    return (sequence.to_bytes(8, "little") + pattern)[:size]


@click.command()
@click.option("-c", "--count", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "-i",
    "--interval",
    type=click.FloatRange(min=0),
    default=0.2,
    show_default=True,
    help="Seconds between two calls.",
)
@click.option(
    "-s",
    "--size",
    type=click.IntRange(min=0),
    default=56,
    show_default=True,
    help="Bytes of each message, as many as one frame holds.",
)
@click.option(
    "-W",
    "--timeout",
    type=click.FloatRange(min=0.001),
    show_default="2, and 10 to connect",
    help="Seconds to connect, and to wait for each answer.",
)
@click.option("-q", "--quiet", is_flag=True, help="Only the summary.")
@common_options
@click.pass_obj
def ping(
    session: Session, count: int, interval: float, size: int, timeout: float | None, quiet: bool
) -> int:
    """Call the service echo and check what comes back.

    The last line begins with PASS or FAIL.
    """
    screen = session.screen()
    tally = _Tally()
    wait = _ANSWER_S if timeout is None else timeout
    with session.connect() if timeout is None else session.connect(timeout) as link:
        where = describe_link(link)
        echo = link.find("echo")  # now, so that the look-up is not part of the first time
        screen.line(f"echo of {size} bytes at {where}")
        try:
            for sequence in range(1, count + 1):
                if sequence > 1:
                    time.sleep(interval)
                line = _once(link, echo, tally, sequence, _message(sequence, size), wait)
                if not quiet:
                    screen.line(line)
        except (KeyboardInterrupt, sbe.LinkError):
            if not screen.as_json:  # there the error is the one object
                _finish(screen, tally, size)
            raise
    _finish(screen, tally, size)
    if tally.ok:
        return exit_codes.OK
    return exit_codes.TIMEOUT if tally.lost and not tally.wrong else exit_codes.FAILED


def _once(
    link: sbe.Connection,
    echo: sbe.Service,
    tally: _Tally,
    sequence: int,
    message: bytes,
    wait: float,
) -> str:
    """One call; a line about how it ended."""
    start = time.perf_counter_ns()
    try:
        reply = link.call(echo, payload=message, timeout=wait)
    except sbe.MessageTooLarge as error:
        raise sbe.BadArgument(
            f"-s {len(message)}: that does not fit one frame of {link.slot_size} bytes with header"
        ) from error
    except sbe.Timeout:
        tally.lost += 1
        return f"seq={sequence} no answer within {duration(wait * 1e6)}"
    except sbe.LinkError:
        tally.lost += 1
        raise
    elapsed = time.perf_counter_ns() - start
    if reply.payload != message:
        tally.wrong += 1
        return f"seq={sequence} {len(reply.payload)} bytes came back, not those that were sent"
    tally.answers.append((elapsed, reply.cost))
    return (
        f"seq={sequence} time={duration(elapsed / 1000)} "
        f"(queue {duration(reply.cost.queue_ns / 1000)}, "
        f"remote {duration(reply.cost.remote_ns / 1000)})"
    )


def _finish(screen: Screen, tally: _Tally, size: int) -> None:
    answers = tally.answers
    values: dict[str, Any] = {
        "size": size,
        "sent": tally.sent,
        "answered": len(answers),
        "lost": tally.lost,
        "wrong": tally.wrong,
        "time_us": summary_us([time for time, _ in answers]) if answers else None,
        "queue_us": summary_us([cost.queue_ns for _, cost in answers]) if answers else None,
        "remote_us": summary_us([cost.remote_ns for _, cost in answers]) if answers else None,
    }
    screen.result(tally.ok, **values)
    if answers:
        times = values["time_us"]
        keys = ("min", "median", "p99", "max")
        shown = ", ".join(f"{key} {duration(times[key])}" for key in keys)
        screen.line(f"round trip: {shown}")
    faults = f", {tally.lost} lost, {tally.wrong} wrong"
    screen.verdict(tally.ok, f"{len(answers)} of {tally.sent} answered{faults}")
