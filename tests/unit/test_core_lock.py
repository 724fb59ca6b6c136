"""A handler of a signal may raise anywhere while control messages are taken: the lock is free."""

from __future__ import annotations

import contextlib
import linecache
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

import sbe
from sbe.sdk import core


class Came(Exception):
    """What the handler raises."""


def come(number: int, frame: FrameType | None) -> None:
    raise Came


def raising_at(number: int, work: Callable[[], object]) -> bool:
    """Runs work; a signal comes before so many lines of core.py. True: it ran so many."""
    left = number
    seen: set[tuple[int, int]] = set()

    def look(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != core.__file__:
            return None
        # A `with` is traced once more before its end; Python runs no handler there.
        place = id(frame), frame.f_lineno
        line = linecache.getline(core.__file__, frame.f_lineno).lstrip()
        if event == "line" and not (place in seen and line.startswith("with ")):
            seen.add(place)
            left -= 1
            if left == 0:
                signal.raise_signal(signal.SIGUSR1)
        return look

    handler = signal.signal(signal.SIGUSR1, come)
    former = sys.gettrace()
    sys.settrace(look)
    try:
        with contextlib.suppress(Came):
            work()
    finally:
        sys.settrace(former)
        signal.signal(signal.SIGUSR1, handler)
    return left <= 0


def is_free(lock: Any) -> bool:
    """Another thread could take it."""
    taken: list[bool] = []

    def take() -> None:
        if lock.acquire(blocking=False):
            lock.release()
            taken.append(True)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(60)
    return bool(taken)


@pytest.mark.parametrize(
    "work",
    [
        lambda link: link._core.process_control(),
        lambda link: link._core.process_control(wait=False),
    ],
    ids=["waiting for others", "in a loop, which does not"],
)
def test_the_lock_is_free_wherever_a_handler_raises(
    work: Callable[[sbe.Connection], object],
) -> None:
    with sbe.connect("loopback:") as link:
        line = 1
        while raising_at(line, lambda: work(link)):
            assert is_free(link._core.turn.lock), f"line {line} of those that are run"
            line += 1
        assert line > 4  # it came to an end by itself
        assert link.call("echo", payload=b"on").payload == b"on"
