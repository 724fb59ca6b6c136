"""What became of a peer whose connection has ended, found out without waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from sbe import errors
from sbe.kernel.timer import Timer

__all__ = ["Ask", "Deathwatch"]

_SOON_S = 0.0005  # until the first look: usually it is enough
_LATER_S = 0.02  # between the last ones

Ask = Callable[[bool], str | None]
"""Says in words how the peer ended, None: it has not yet. Told True when patience is over."""


class Deathwatch:
    """Looks now and then until it is known. Not thread-safe: it belongs to a transport.

    A process's descriptors are closed a little before its end can be seen. A transport that waited
    for that would hold up everyone whom its owner serves, so it is the transport's descriptor
    that says when to look again.
    """

    def __init__(self, ask: Ask, patience_s: float) -> None:
        self._ask = ask
        self._until = monotonic() + patience_s
        self._pause_s = _SOON_S
        self._timer: Timer | None = None

    def look(self) -> str | None:
        """How it ended, None while that is not known: `fileno()` is readable when to look again."""
        words = self._ask(monotonic() >= self._until)
        if words is not None:
            return words
        try:
            self._timer = self._timer or Timer()
        except errors.Error:  # no descriptor left: what is known now has to do
            return self._ask(True) or "the other end is gone"
        self._timer.set(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LATER_S)
        return None

    def fileno(self) -> int:
        """The timer's, -1 before the first look has found nothing, and once closed."""
        return -1 if self._timer is None else self._timer.fileno()

    def close(self) -> None:
        """Stops looking. Closing twice is fine."""
        if self._timer is not None:
            self._timer.close()
