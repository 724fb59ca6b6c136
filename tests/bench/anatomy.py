"""Parts of one sleeping call: what its pieces cost alone, and how often it asks the kernel."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import ours, procs
from tests.bench.model import Probe, Result, Settings, UnavailableError
from tests.bench.scripted import SLOTS, Script

_COUNTED = 1_000  # calls under strace, which slows each down


def call_alone(settings: Settings) -> Result:
    """Microseconds of `link.call` whose answer lies there already: no remote, no sleep."""
    samples = []
    for _ in range(settings.starts * 3):
        script = Script()
        script.write(SLOTS - 1, together=False)
        script.link.find("echo")
        counting = _timed_loop(script.head, str, "echo")
        script.head[0] = 0
        samples.append(_timed_loop(script.head, script.link.call, "echo") - counting)
        script.link.close()
    return Result.of(samples)


def _timed_loop(head: memoryview, step: Callable[[str], object], argument: str) -> float:
    """Microseconds of one of SLOTS - 1 steps, with the publishing of its answer."""
    begin = time.perf_counter_ns()
    for number in range(1, SLOTS):
        head[0] = number
        step(argument)
    return (time.perf_counter_ns() - begin) / 1e3 / (SLOTS - 1)


def syscalls(settings: Settings) -> Result:
    """System calls of one sleeping call, at this end and at the remote, as strace counts them."""
    strace = shutil.which("strace")
    if strace is None:
        raise UnavailableError("strace is not installed (apt install strace)")
    series: dict[str, list[float]] = {}
    with ours.embedded(settings) as (_, link):
        for line, pid in (("host", os.getpid()), ("remote", ours.remotes(os.getpid())[0])):
            counts = _count(strace, pid, link, Path(settings.work, f"{line}.strace"))
            series |= {f"{line}/{name}": [count / _COUNTED] for name, count in counts.items()}
            series[line] = [sum(counts.values()) / _COUNTED]
    kinds = ", ".join(f"{name} {figures[0]:.2f}" for name, figures in series.items() if "/" in name)
    return Result(series, f"a call: {kinds}")


def _count(strace: str, pid: int, link: object, target: Path) -> dict[str, int]:
    command = [strace, "-c", "-f", "-p", str(pid), "-o", str(target)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        if "attached" not in said:
            raise UnavailableError(f"strace may not trace here: {said.strip()}")
        for _ in range(_COUNTED):
            link.call("echo", timeout=ours.LIMIT_S)  # type: ignore[attr-defined]
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(procs.READY_S)
    counts = {}
    for line in target.read_text().splitlines():
        # % time, seconds, usecs/call, calls, errors if any, name
        found = re.fullmatch(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)", line)
        if found and found[2] != "total" and int(found[1]) >= _COUNTED // 10:
            counts[found[2]] = int(found[1])
    return counts


PROBES = {"call_alone": Probe(call_alone), "syscalls": Probe(syscalls, once=True)}
