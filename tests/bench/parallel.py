"""Several callers at once: by one channel, by a channel for each thread, for each process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from tests.bench import ours, procs
from tests.bench.ends import IN_FLIGHT, calls
from tests.bench.model import Probe, Result, Settings

__all__ = ["PROBES"]

_CALLERS = 4
_CALLS = 512  # of each, in a turn


def _in_threads(links: Sequence[Any]) -> None:
    threads = [threading.Thread(target=calls, args=(link, _CALLS)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _in_processes(ends: Sequence[Any]) -> None:
    for end in ends:
        end.stdin.write(b"go\n")
        end.stdin.flush()
    for end in ends:
        procs.await_line(end, ours.LIMIT_S)


def parallel(settings: Settings) -> Result:
    """Calls a second of four callers together, through a daemon to one remote, in turns. The
    scheduler places all of them."""
    settings = replace(settings, placement="none")
    with ExitStack() as stack:
        address, _ = stack.enter_context(ours.daemon(settings, "parallel"))
        sbe = ours.require_sbe()
        links = [stack.enter_context(sbe.connect(address)) for _ in range(_CALLERS)]
        ends = [
            stack.enter_context(procs.far_end(settings, "caller", address, str(_CALLS)))
            for _ in range(_CALLERS)
        ]
        sides: dict[str, Callable[[], None]] = {
            "shared": lambda: _in_threads([links[0]] * _CALLERS),
            "threads": lambda: _in_threads(links),
            "processes": lambda: _in_processes(ends),
        }
        samples: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(settings.blocks + 1):
            for name, side in sides.items():
                begun = time.monotonic()
                side()
                if turn:  # the first one warms up
                    samples[name].append(_CALLERS * _CALLS / (time.monotonic() - begun))
    return Result(samples, f"{_CALLERS} callers with {IN_FLIGHT} calls in flight each, in turns")


PROBES = {"parallel": Probe(parallel)}
