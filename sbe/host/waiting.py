"""Waiting inside an operation that holds the handlers of signals back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sbe._native import SignalsLet

__all__ = ["wait_ready"]

_T = TypeVar("_T")

_SHORT_S = 0.1
"""Nobody notices a Ctrl-C that is late by so much; an answer comes in a thousandth of it."""


def wait_ready(poll: Callable[[float | None], _T], seconds: float | None) -> _T:
    """What poll(seconds) returns. Handlers of signals run, and may raise, once it takes long.

    A handler that may run at the end of an operation can use the link; one in the middle can't
    (docs/adr/0019, 0020).
    """
    short = _SHORT_S if seconds is None else min(seconds, _SHORT_S)
    ready = poll(short)
    if ready:
        return ready
    with SignalsLet():
        return poll(None if seconds is None else seconds - short)
