"""Timeouts: seconds from a caller, the moment when they are over, what is left of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sbe.errors import BadArgument, Timeout

__all__ = ["DEFAULT_TIMEOUT_S", "ends_at", "in_thread", "seconds", "time_left"]

_T = TypeVar("_T")

DEFAULT_TIMEOUT_S = 30.0
"""A call without a deadline of its own ends after this: never a hang. None waits for ever."""


def seconds(timeout: float) -> float:
    """A timeout that is none of the extension's. TypeError or BadArgument, which name it."""
    try:
        given = float(timeout) if not isinstance(timeout, str | bytes) else None
    except (TypeError, ValueError):
        given = None
    except OverflowError:  # a very large integer
        given = math.copysign(math.inf, timeout > 0 or -1)
    if given is None:
        raise TypeError(f"timeout: a number of seconds, not {timeout!r}")
    if not given >= 0:
        raise BadArgument(f"a timeout of {timeout!r} seconds")
    return given


def ends_at(timeout: float | None) -> float:
    """When a timeout that begins now is over, `time.monotonic()`; never for None."""
    return math.inf if timeout is None else time.monotonic() + seconds(timeout)


def time_left(until: float) -> float | None:
    """What is left of a timeout that is over then, `time.monotonic()`; None for never."""
    return None if until == math.inf else max(until - time.monotonic(), 0.0)


async def in_thread(until: float, function: Callable[..., _T], *arguments: Any) -> _T:
    """Runs it in another thread; Timeout when there is none to spare before `until`, which is
    `time.monotonic()`. Once it runs it has to mind the time itself.
    """
    import asyncio

    begun = False

    def run() -> _T:
        nonlocal begun
        begun = True
        return function(*arguments)

    task = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        done, _ = await asyncio.wait({task}, timeout=time_left(until))
        if not done and not begun:
            raise Timeout("no thread of the loop's executor had the time for this call")
        return await task
    finally:
        task.cancel()  # nothing to do if it has ended
