"""An operation under way, for owners who bring their own way of waiting."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from sbe import errors

__all__ = ["Pending"]

T = TypeVar("T")

_log = logging.getLogger("sbe.link")


class Pending(Generic[T]):
    """The answer to come of one operation. It ends exactly once, with a value or an error.

    Not thread-safe: it belongs to the owner of the link that made it.
    """

    __slots__ = ("_callbacks", "_error", "_value", "done", "operation")

    def __init__(self, operation: str) -> None:
        self.operation = operation
        """What is waited for, in words for error messages."""
        self.done = False
        """It has ended."""
        self._value: T | None = None
        self._error: errors.Error | None = None
        self._callbacks: list[Callable[[Pending[T]], object]] = []

    @property
    def error(self) -> errors.Error | None:
        """The error it ended with, None while under way and after success."""
        return self._error

    def result(self) -> T:
        """Returns the value or raises the error. Raises WouldBlock while it is under way."""
        if not self.done:
            raise errors.WouldBlock(f"{self.operation} has not ended yet")
        if self._error is not None:
            raise errors.fresh_copy(self._error)
        return self._value  # type: ignore[return-value]  # set by resolve()

    def add_done_callback(self, callback: Callable[[Pending[T]], object]) -> None:
        """Calls `callback(self)` at the end, at once when that was before.

        What a callback raises is logged, for there is nobody to raise it to.
        """
        if self.done:
            self._call(callback)
        else:
            self._callbacks.append(callback)

    def resolve(self, value: T) -> None:
        """Ends it with a value. Only the operation's maker calls this; later ends are ignored."""
        self._end(value, None)

    def fail(self, error: errors.Error) -> None:
        """Ends it with an error. Only the operation's maker calls this; later ends are ignored."""
        self._end(None, error)

    def _end(self, value: T | None, error: errors.Error | None) -> None:
        if self.done:
            return
        self.done, self._value, self._error = True, value, error
        callbacks, self._callbacks = self._callbacks, []
        self._call_all(callbacks)

    def _call_all(self, callbacks: list[Callable[[Pending[T]], object]]) -> None:
        """Each one, even if Ctrl-C or a callback's SystemExit ends another."""
        for i, callback in enumerate(callbacks):
            try:
                self._call(callback)
            except BaseException:
                self._call_all(callbacks[i + 1 :])
                raise

    def _call(self, callback: Callable[[Pending[T]], object]) -> None:
        try:
            callback(self)
        except Exception:
            _log.exception("a callback on the end of %s failed", self.operation)
