"""What the machine itself costs: no exchange of buffers between two ends can beat these."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.bench import procs, programs
from tests.bench.model import BLOCK_BYTES, Probe, Result, Settings, UnavailableError, require

PACE_S = 0.0005
"""Pause between the calls of the paced probes: long enough for both ends and both cores to idle."""

_COPY_BYTES = 64 << 20
_PRINT_RSS = "print(next(row for row in open('/proc/self/smaps_rollup') if row[:4] == 'Rss:'))"


@contextmanager
def eventfd_step(settings: Settings) -> Iterator[Callable[[], object]]:
    """Two Python processes wake each other through eventfds, and do nothing else."""
    ring, answer = os.eventfd(0), os.eventfd(0)
    fds = (ring, answer)
    try:
        with procs.far_end(settings, "eventfd", str(ring), str(answer), pass_fds=fds):

            def step() -> None:
                os.eventfd_write(ring, 1)
                os.eventfd_read(answer)

            yield step
    finally:
        os.close(ring)
        os.close(answer)


def eventfd(settings: Settings, pause_s: float = 0.0) -> Result:
    with eventfd_step(settings) as step:
        calls = settings.calls // 5 if pause_s else settings.calls
        samples = procs.timed(step, calls, pause_s)
    return Result({"": samples, "rate": [1e6 / sample for sample in samples]})


def eventfd_paced(settings: Settings) -> Result:
    return eventfd(settings, PACE_S)


def cache_line(settings: Settings) -> Result:
    """One cache line to the other core and back, in C: the price of shared memory itself."""
    cores = procs.two_cores()
    if cores is None:
        raise UnavailableError("needs two CPUs")
    batches = 200 if settings.quick else 1000
    lines = programs.run(settings, "bounce", *map(str, cores), str(batches), "1000")
    return Result.of([line[0] for line in lines])


def memcpy(settings: Settings) -> Result:
    """One copy of memory too large for the caches; bytes copied per second."""
    source, target = bytearray(b"\x5a") * _COPY_BYTES, bytearray(_COPY_BYTES)
    view = memoryview(target)

    def step() -> None:
        view[:] = source

    samples = procs.timed(step, settings.blocks)
    return Result.of(procs.gigabytes_per_second(_COPY_BYTES, samples))


def invert(settings: Settings) -> Result:
    """The pass of the bulk rows over a block of our own, with nobody to exchange it with."""
    numpy = require("numpy")
    block = numpy.ones(BLOCK_BYTES, numpy.uint8)
    samples = procs.timed(lambda: numpy.invert(block, out=block), settings.blocks)
    return Result.of(procs.gigabytes_per_second(BLOCK_BYTES, samples))


def import_rss_mb(module: str) -> float:
    """Resident memory of a fresh interpreter that imported `module` and nothing else."""
    return int(procs.run_python(f"import {module}; {_PRINT_RSS}").split()[1]) * 1024 / 1e6


def import_ms(module: str) -> float:
    """How long `import module` takes in a fresh interpreter, the interpreter's start left out."""
    code = "import time; begin = time.perf_counter(); "
    return (
        float(procs.run_python(f"{code}import {module}; print(time.perf_counter() - begin)")) * 1e3
    )


def rss_bare(settings: Settings) -> Result:
    """`import sys` is free: the interpreter has done it already."""
    return Result.of([import_rss_mb("sys") for _ in range(settings.starts)])


PROBES = {
    "eventfd": Probe(eventfd),
    "eventfd_paced": Probe(eventfd_paced),
    "cache_line": Probe(cache_line),
    "memcpy": Probe(memcpy),
    "invert": Probe(invert),
    "rss_bare": Probe(rss_bare),
}
