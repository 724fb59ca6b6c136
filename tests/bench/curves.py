"""Costs over a size and over the number of calls in flight: SBE beside multiprocessing.Pipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing import Pipe
from typing import Any

from tests.bench import ours, procs
from tests.bench.model import MESSAGE, Curve, Probe, Result, Settings, require

SIZES = tuple(64 << 2 * power for power in range(12))  # 64 B to 256 MiB
IN_FLIGHT = (1, 2, 4, 8, 16, 32, 64)
_SMALLEST_RUN = 3

CURVES = [
    Curve(
        "sizes",
        "curve_sizes",
        "one call with a buffer, by its size",
        "us",
        "bytes",
        SIZES,
        {
            "alone": "SBE, the service leaves the buffer alone (echo)",
            "touch": "SBE, the service reads it (crc32)",
            "pipe": "multiprocessing.Pipe, the other end reads it (zlib.crc32)",
        },
    ),
    Curve(
        "in_flight",
        "curve_in_flight",
        "one call, by how many are in flight together",
        "us",
        "calls in flight",
        IN_FLIGHT,
        {
            "pipe": "multiprocessing.Pipe, 32 bytes",
            "sleep": "SBE submit, both ends sleep",
            "spin": "SBE submit, both ends spin",
            "batch": "SBE batch",
        },
    ),
]


def _within(step: Callable[[], object], budget_s: float, most: int) -> list[float]:
    """Microseconds of a step, as often as the time allows."""
    step()
    samples: list[float] = []
    end = time.monotonic() + budget_s
    while len(samples) < most and (len(samples) < _SMALLEST_RUN or time.monotonic() < end):
        samples += procs.timed(step, 1)
    return samples


def sizes(settings: Settings) -> Result:
    """The same bytes for everybody, each read once at the other end or not at all."""
    series: dict[str, list[float]] = {}
    budget_s = 0.1 if settings.quick else 0.4
    block = bytearray(b"\x5a") * SIZES[-1]
    with ours.embedded(settings) as (sbe, link):
        area = link.allocate(SIZES[-1])
        area[:] = block
        for size in SIZES:
            buffer = sbe.In(area[:size])
            for line, service in (("alone", "echo"), ("touch", "crc32")):
                step = ours.caller(link, service, buffer)
                series[f"{line}/{size}"] = _within(step, budget_s, settings.calls)
    near, far = Pipe()
    end = procs.far_end(settings, "pipe_crc", str(far.fileno()), pass_fds=[far.fileno()])
    with near, far, end, memoryview(block) as view:

        def through_pipe(size: int) -> Callable[[], object]:
            def step() -> None:
                near.send_bytes(view[:size])
                near.recv_bytes()

            return step

        for size in SIZES:
            series[f"pipe/{size}"] = _within(through_pipe(size), budget_s, settings.calls)
    return Result(series)


def in_flight(settings: Settings) -> Result:
    """Submitted together, collected together; the time of one is its share."""
    series: dict[str, list[float]] = {}
    rounds = max(settings.calls // 20, 20)

    def measure(line: str, count: int, step: Callable[[], object]) -> None:
        series[f"{line}/{count}"] = [us / count for us in procs.timed(step, rounds)]

    for line, spin_s in (("sleep", 0.0), ("spin", ours.SPIN_S)):
        with ours.embedded(settings, spin_s) as (_, link):
            for count in IN_FLIGHT:
                measure(line, count, _together(link, count))
    require("numpy")
    with ours.embedded(settings) as (sbe, link):
        area = link.allocate(4096)
        for count in IN_FLIGHT:
            given = area.descriptors(sbe.In, [0] * count, 64)
            measure("batch", count, lambda given=given: link.batch("echo", given))  # type: ignore[misc]
    near, far = Pipe()
    with near, far, procs.far_end(settings, "pipe", str(far.fileno()), pass_fds=[far.fileno()]):
        for count in IN_FLIGHT:
            measure("pipe", count, _piped(near, count))
    return Result(series)


def _together(link: Any, count: int) -> Callable[[], object]:
    def step() -> None:
        for future in [link.submit("echo") for _ in range(count)]:
            future.result(ours.LIMIT_S)

    return step


def _piped(near: Any, count: int) -> Callable[[], object]:
    def step() -> None:
        for _ in range(count):
            near.send_bytes(MESSAGE)
        for _ in range(count):
            near.recv_bytes()

    return step


PROBES = {
    "curve_sizes": Probe(sizes, limit_s=180.0, once=True),
    "curve_in_flight": Probe(in_flight, limit_s=120.0, once=True),
}
