"""Suspend, resume and frequency, asked by either end of a link (docs/spec/control.md, 5.1)."""

from __future__ import annotations

import enum
import errno
import logging
import os
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from sbe import _native, errors
from sbe.link.pending import Pending

__all__ = ["Answer", "OnPower", "Power", "PowerRequest"]

_log = logging.getLogger("sbe.link")

_ASKED_MAX = 8  # in each direction: who asks one thing at a time never sees it
_ERRNO_MASK = (1 << _native.ANSWERED_SHIFT) - 1

Answer: TypeAlias = Callable[[int], None]
"""Called once with a positive errno, 0 done."""


class PowerRequest(enum.IntEnum):
    """What one end may ask of the other."""

    SUSPEND = _native.EVENT_SUSPEND
    RESUME = _native.EVENT_RESUME
    FREQUENCY = _native.EVENT_FREQUENCY

    @property
    def word(self) -> str:
        """As people and programs are told."""
        return self.name.lower()


OnPower: TypeAlias = Callable[[PowerRequest, int, Answer], object]
"""Told what the remote asks: (request, kHz, answer). The next one comes after the answer."""


class Power:
    """Both directions for one link. Not thread-safe: it belongs to the link.

    Answers come in the order of the requests, so each ends the oldest one of its kind; older ones
    of other kinds have lost theirs. What has timed out stays in this order until then.
    """

    def __init__(self, send: Callable[[int, int], None], on_power: OnPower | None) -> None:
        self.suspended = False
        """The remote runs no handler: it has answered SUSPEND, and no RESUME since."""
        self.on_power = on_power
        """Who decides on what the remote asks; None: everything is ENOTSUP."""
        self._send = send
        self._asked: deque[tuple[PowerRequest, Pending[None]]] = deque()
        self._wanted: deque[tuple[PowerRequest, int]] = deque()  # the first is being carried out
        self._life = 0

    # -- what this end asks --------------------------------------------------------------------

    def ask(self, request: PowerRequest, khz: int) -> Pending[None]:
        """Asks the remote. Raises Busy when it has left too many requests unanswered."""
        words = f"{khz} kHz" if request is PowerRequest.FREQUENCY else request.word
        pending: Pending[None] = Pending(f"the request for {words}")
        if len(self._asked) >= _ASKED_MAX:
            raise errors.Busy(
                f"{pending.operation}: {_ASKED_MAX} earlier ones have no answer; the firmware may "
                "not know this event"
            )
        self._asked.append((request, pending))  # first: the link may be lost within the call
        try:
            self._send(request, khz)
        except BaseException:
            self._asked = deque(entry for entry in self._asked if entry[1] is not pending)
            raise
        return pending

    def _answered(self, value: int) -> bool:
        """An answer of the remote. False: to nothing that was asked."""
        kind, code = value >> _native.ANSWERED_SHIFT, value & _ERRNO_MASK
        if all(request != kind for request, _ in self._asked):
            return False
        while True:
            request, pending = self._asked.popleft()
            if request == kind:
                break
            pending.fail(errors.Error(f"{pending.operation}: its answer was lost"))
        if code == 0 and request is not PowerRequest.FREQUENCY:
            self.suspended = request is PowerRequest.SUSPEND
        if code == 0:
            pending.resolve(None)
        else:
            pending.fail(_refusal(pending.operation, code))
        return True

    # -- what the remote asks ------------------------------------------------------------------

    def take(self, event: int, value: int) -> bool | None:
        """An event of the remote. None: not ours; False: it broke a rule."""
        if event == _native.EVENT_ANSWERED:
            return self._answered(value)
        try:
            request = PowerRequest(event)
        except ValueError:
            return None
        if len(self._wanted) >= _ASKED_MAX:
            return False  # it does not wait for answers: this one gets none
        self._wanted.append((request, value))
        if len(self._wanted) == 1:
            self._next()
        return True

    def _next(self) -> None:
        while self._wanted and self._carry_out(*self._wanted[0]):
            pass

    def _carry_out(self, request: PowerRequest, khz: int) -> bool:
        """Has the first one carried out. True: it is answered already."""
        answered, returned, life = False, False, self._life

        def answer(code: int) -> None:
            nonlocal answered
            if answered or life != self._life:
                return  # twice, or the remote that asked has gone
            answered = True
            self._wanted.popleft()
            value = request << _native.ANSWERED_SHIFT | min(abs(code), _ERRNO_MASK)
            try:
                self._send(_native.EVENT_ANSWERED, value)
            except errors.Error as error:
                _log.debug("the answer to the remote's %s: %s", request.word, error)
            if returned:
                self._next()

        try:
            if self.on_power is None:
                answer(errno.EOPNOTSUPP)
            else:
                self.on_power(request, khz, answer)
        except Exception:
            _log.exception("the remote's %s could not be carried out", request.word)
            answer(errno.EIO)
        except BaseException:
            returned = True  # the next ones are carried out, whoever this ends
            answer(errno.EIO)
            raise
        returned = True
        return answered

    # -- loss ----------------------------------------------------------------------------------

    def lost(self, error: errors.Error) -> None:
        """The remote has gone: nothing is suspended any more, nobody answers or waits."""
        self._life += 1
        self.suspended = False
        self._wanted.clear()
        asked, self._asked = self._asked, deque()
        for _, pending in asked:
            pending.fail(errors.fresh_copy(error))  # type: ignore[arg-type]  # a copy


def _refusal(operation: str, code: int) -> errors.Error:
    known = code in errno.errorcode
    meaning = f"{os.strerror(code)} ({errno.errorcode[code]})" if known else f"error {code}"
    text = f"the remote refused {operation}: {meaning}"
    error = errors.from_status(-code, text)
    # It is the remote's word: that the link were down or the remote restarted, it can't tell.
    return errors.Error(text) if isinstance(error, errors.LinkError) else error
