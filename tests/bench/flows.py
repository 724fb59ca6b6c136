"""Blocks that flow one way: CPU time and bytes a second of what people use instead of streams.

Two flows, the same for every way: `audio`, a period of 48 kHz stereo each 5 ms, where the CPU time
of both ends counts; `bulk`, blocks of 10 ms of the fastest stream there may be, as fast as they go.
The application reads every byte once, where it lies.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from tests.bench import procs
from tests.bench.ends import iceoryx2_flow
from tests.bench.model import Probe, Result, Settings, require

__all__ = ["AUDIO", "BULK", "PROBES", "Flow", "watched"]

Take = Callable[[], int]
"""Waits for the next bytes, reads them, and says how many they were."""


@dataclass(frozen=True)
class Flow:
    """Blocks of so many bytes, one each `period_ns`; 0: as fast as they go."""

    size: int
    period_ns: int


AUDIO = Flow(960, 5_000_000)
BULK = Flow(480_000, 0)


def watched(settings: Settings, pids: Sequence[int], take: Take) -> Result:
    """What a flow costs at this end and at `pids`: milliseconds of CPU a second, and GB/s.

    `per_cpu`: GB for a second of CPU time of both ends.
    """
    end = time.monotonic() + settings.flow_s / 10
    while time.monotonic() < end:
        take()
    near, far = procs.cpu_ms([os.getpid()]), procs.cpu_ms(pids)
    begin, taken = time.monotonic(), 0
    while (seconds := time.monotonic() - begin) < settings.flow_s:
        taken += take()
    near, far = procs.cpu_ms([os.getpid()]) - near, procs.cpu_ms(pids) - far
    figures = {
        "here": near / seconds,
        "both": (near + far) / seconds,
        "gbps": taken / seconds / 1e9,
        "per_cpu": taken / (near + far) / 1e6,
    }
    return Result({name: [figure] for name, figure in figures.items()})


def _reader(block: bytearray) -> Callable[[], int]:
    """Reads a block once, every byte."""
    numpy = require("numpy")
    samples = numpy.frombuffer(block, numpy.int16)

    def read() -> int:
        samples.max()
        return len(block)

    return read


@contextmanager
def _pipe(settings: Settings, flow: Flow) -> Iterator[tuple[int, Take]]:
    block = bytearray(flow.size)
    read = _reader(block)
    near, far = Pipe(duplex=False)
    arguments = (str(far.fileno()), str(flow.size), str(flow.period_ns))
    with near, procs.far_end(settings, "flow_pipe", *arguments, pass_fds=[far.fileno()]) as end:
        far.close()

        def take() -> int:
            near.recv_bytes_into(block)
            return read()

        yield end.pid, take


@contextmanager
def _unix(settings: Settings, flow: Flow) -> Iterator[tuple[int, Take]]:
    """AF_UNIX SOCK_STREAM: a block of the bulk flow is larger than a datagram may be."""
    block = bytearray(flow.size)
    read = _reader(block)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    arguments = (str(far.fileno()), str(flow.size), str(flow.period_ns))
    with near, procs.far_end(settings, "flow_unix", *arguments, pass_fds=[far.fileno()]) as end:
        far.close()

        def take() -> int:
            near.recv_into(block, flow.size, socket.MSG_WAITALL)
            return read()

        yield end.pid, take


@contextmanager
def _iceoryx2(settings: Settings, flow: Flow) -> Iterator[tuple[int, Take]]:
    """Publish-subscribe by loan, write in place and send; its event service wakes the reader."""
    require("iceoryx2")
    numpy = require("numpy")
    name = f"bench{Path(settings.work).name.replace('-', '')}"
    arguments = (settings.work, name, str(flow.size), str(flow.period_ns))
    try:
        blocks, events, patience = iceoryx2_flow(settings.work, name, flow.size)
        subscriber = blocks.subscriber_builder().create()
        listener = events.listener_builder().create()
        with procs.far_end(settings, "flow_iceoryx2", *arguments) as end:
            yield end.pid, partial(_received, numpy, subscriber, listener, patience)
    finally:
        for rest in Path("/dev/shm").glob(f"{name}_*"):  # the far end is ended, not asked
            rest.unlink(missing_ok=True)


def _received(numpy: Any, subscriber: Any, listener: Any, patience: Any) -> int:
    while (sample := subscriber.receive()) is None:
        listener.timed_wait(patience)
    data = numpy.frombuffer(sample.payload().contents.data, numpy.int16)
    data.max()
    size: int = data.nbytes
    sample.delete()
    return size


_WAYS = {"pipe": _pipe, "unix": _unix, "iceoryx2": _iceoryx2}


def _probe(way: str, flow: Flow, settings: Settings) -> Result:
    with _WAYS[way](settings, flow) as (pid, take):
        return watched(settings, [pid], take)


PROBES = {
    f"{said}_{way}": Probe(partial(_probe, way, flow))
    for way in _WAYS
    for said, flow in (("audio", AUDIO), ("bulk", BULK))
}
