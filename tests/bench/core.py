"""The C core without Python: how fast the rings are, and the original library beside them."""

from __future__ import annotations

import os
import statistics

from tests.bench import programs
from tests.bench.model import Probe, Result, Settings, UnavailableError

PEER = "ASG_PEER"
"""Environment: a benchmark of the original library, built elsewhere, which is run as ring_bench is.

PROGRAM NEAR FAR ROUNDS: the producer goes on the CPU NEAR, the consumer on FAR (-1: anywhere).
Each of ROUNDS times it passes the packets on and compares every byte, then prints a line: GB/s,
then, if it likes, packets a second and packets a doorbell. A status other than 0 says that bytes
were wrong.
"""

_COLUMNS = {
    "packets": ("gbps", "rate", "per_doorbell"),
    "copied": ("gbps", "rate", "per_doorbell"),
    "stream": ("gbps", "rate", "per_doorbell"),
    "calls": ("",),
    "call": ("",),
    "trip": ("", "write"),
    "alone": ("host", "remote"),
}
_PER_DOORBELL = _COLUMNS["packets"].index("per_doorbell")


def _ring_bench(settings: Settings, mode: str, rounds: int) -> Result:
    lines = programs.run(settings, "ring_bench", mode, *programs.cores(settings), str(rounds))
    columns = zip(*lines, strict=True)
    return Result(
        {name: list(column) for name, column in zip(_COLUMNS[mode], columns, strict=True)}
    )


def packets(settings: Settings) -> Result:
    """51,200 packets of 384 B through 16 KiB in steps of 4 KiB, every byte compared."""
    return _ring_bench(settings, "packets", 5 * settings.blocks)


def copied(settings: Settings) -> Result:
    """The same, each packet copied out before it is compared, as the original library does."""
    return _ring_bench(settings, "copied", 5 * settings.blocks)


def stream(settings: Settings) -> Result:
    """The same packets as bytes of an ASG stream between our two ends of it."""
    result = _ring_bench(settings, "stream", 5 * settings.blocks)
    return Result(
        result.series, f"{statistics.median(result.series['per_doorbell']):,.0f} packets a doorbell"
    )


def calls(settings: Settings) -> Result:
    """Calls a second with two buffers each, as many in flight as the ring takes."""
    return _ring_bench(settings, "calls", settings.starts)


def call(settings: Settings) -> Result:
    """Microseconds of an empty call, both ends asleep between."""
    return _microseconds(_ring_bench(settings, "call", settings.calls))


def trip(settings: Settings) -> Result:
    """Microseconds of an eventfd there and back, and of the write that begins it."""
    return _microseconds(_ring_bench(settings, "trip", settings.calls))


def alone(settings: Settings) -> Result:
    """Microseconds of the core's own work on an empty call, host's part and remote's."""
    return _microseconds(_ring_bench(settings, "alone", settings.starts * 20))


def _microseconds(result: Result) -> Result:
    return Result({name: [ns / 1e3 for ns in series] for name, series in result.series.items()})


def asg(settings: Settings) -> Result:
    """The same packets through the original library, where somebody has built it."""
    path = os.environ.get(PEER)
    if not path:
        raise UnavailableError(
            f"no benchmark of the original library: {PEER} names none (tests/bench/core.py says "
            "what it has to print)"
        )
    rounds = 5 * settings.blocks
    lines = programs.numbers([path, *programs.cores(settings), str(rounds)], 60.0)
    figures = [line[0] for line in lines if line]
    if not figures:
        raise UnavailableError(f"{path} printed no GB/s")
    per_doorbell = [line[_PER_DOORBELL] for line in lines if len(line) > _PER_DOORBELL]
    if not per_doorbell:
        return Result.of(figures)
    note = f"original library: {statistics.median(per_doorbell):,.0f} packets a doorbell"
    return Result.of(figures, note)


PROBES = {
    "packets": Probe(packets),
    "copied": Probe(copied),
    "asg_stream": Probe(stream),
    "core_calls": Probe(calls),
    "core_call": Probe(call),
    "core_trip": Probe(trip),
    "core_alone": Probe(alone),
    "asg": Probe(asg, limit_s=90.0),
}
