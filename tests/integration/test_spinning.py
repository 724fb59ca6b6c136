"""Looking before sleeping, with both ends on one CPU: where looking only keeps the peer waiting."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sbe import Connection
from sbe.remotes.process import RemoteProcess
from sbe.sdk.direct import DirectBackend

CALLS = 1000
LIMIT = 5
"""CPU time of spinning over that of sleeping: it was 50. A dozen looks of 0.1 ms make it 2 at most,
however busy the machine is."""


@contextmanager
def this_thread_on(cpu: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def remote_cpu_ns(remote: RemoteProcess) -> int:
    return int(Path(f"/proc/{remote.pid}/schedstat").read_text().split()[0])


def cpu_ns(spin_s: float) -> tuple[int, int]:
    """CPU time of this end and of the remote for some calls; both stay on this thread's CPU."""
    remote = RemoteProcess(arguments=("--spin-us", str(int(spin_s * 1e6))))
    with Connection(DirectBackend(20.0, remote), spin_s=spin_s) as link:
        link.call("echo")
        here, there = time.thread_time_ns(), remote_cpu_ns(remote)
        for _ in range(CALLS):
            link.call("echo")
        return time.thread_time_ns() - here, remote_cpu_ns(remote) - there


def test_ends_on_one_cpu_do_not_keep_each_other_waiting() -> None:
    with this_thread_on(min(os.sched_getaffinity(0))):
        asleep, spinning = cpu_ns(0.0), cpu_ns(1e-4)
    for at_rest, looking in zip(asleep, spinning, strict=True):
        assert looking < LIMIT * at_rest
