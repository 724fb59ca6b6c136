"""Control messages through rings in shared RAM, doorbells as tokens over a byte stream, or bare.

For remotes that share a window of RAM with this end and nothing else: no rpmsg, no descriptors.
docs/spec/carveout.md describes the window. Either end may start first, die and start again over
memory that keeps what was in it.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Any

from sbe import _native, errors
from sbe.transports import PrivateRings
from sbe.transports.deathwatch import Ask, Deathwatch
from sbe.transports.doorbell import Interrupt
from sbe.transports.window import Window, describe_crash

__all__ = ["CarveoutTransport"]

_QUEUE_MAX = 1024  # messages that wait for a remote which does not read
_RETRY_MIN_S = 0.02  # a doorbell may be lost: ring again, ever more slowly ...
_RETRY_MAX_S = 1.0
_RETRY_FOR_S = 8.0  # ... for so long after the last message that this end sent
_DEATH_S = 0.5  # from the end of a stream to the end of who was at its other end


class CarveoutTransport:
    """One life of this end, host or remote. Nothing blocks. Not thread-safe: the owner serialises.

    `doorbell` is a byte stream's descriptor, or an interrupt; it is the transport's now. A host's
    window agrees with the remote's description once the two have met; a remote has described itself
    before. `end` says in words why a stream has ended, None while that is not known.
    """

    carries_handles = False
    wants_write = False
    """Never: the remote's doorbell says when its ring has room, and comes as input."""

    def __init__(
        self,
        window: Window,
        doorbell: int | Interrupt,
        *,
        role: int = _native.ROLE_HOST,
        end: Ask = lambda late: "the doorbell's stream has ended",
    ) -> None:
        self._window = window
        self._is_host = role == _native.ROLE_HOST
        self._peer = "firmware" if self._is_host else "host"
        self._end = end
        self._watch: Deathwatch | None = None
        self._queue: deque[bytes] = deque()
        self._met = False
        self._peer_restarted = False
        self._retry_s = _RETRY_MIN_S
        self._retry_at = 0.0
        self._retry_until = 0.0
        self._doorbells = _carry(doorbell)
        try:
            self._bootstrap = _native.Bootstrap(window.memory, secrets.randbits(32), role)
            self._look()
            self._rearm()
        except BaseException:
            self._doorbells.close()
            raise

    # -- the interface of Transport --------------------------------------------------------------

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Sends or queues a message.

        Raises MessageTooLarge, WouldBlock when the queue is full, BadArgument with descriptors.
        """
        if fds:
            raise errors.BadArgument("this link carries no descriptors")
        if not 0 < len(message) <= _native.CONTROL_MAX:
            raise errors.MessageTooLarge(f"control message of {len(message)} bytes")
        if len(self._queue) >= _QUEUE_MAX:
            raise errors.WouldBlock(
                f"the {self._peer} has left {len(self._queue)} control messages unread"
            )
        self._queue.append(message)
        self._retry_s = _RETRY_MIN_S
        self._retry_until = monotonic() + _RETRY_FOR_S
        self.flush()
        self._rearm()

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Returns the next message; None when there is none.

        Raises ProtocolError for one message that is no message (go on); LinkError when the other
        end crashed or began another life, the stream has ended, or another process is the host now;
        Busy when one is the remote.
        """
        message = self._receive()
        if message is not None:
            return message, []
        events = self._doorbells.take()
        # An interrupt does not say that it is about a crash.
        if events >> 2 & 1 or self._doorbells.closed or (events and self._met):
            self._check_alive(bool(events >> 2 & 1))
        try:
            self._look()
        except errors.ProtocolError as error:  # about all of it, not about one message
            raise errors.LinkError(str(error), error.code) from error
        if self._bootstrap.ready:
            self.flush()
            message = self._receive()
            if message is not None:
                self._doorbells.tick(1e-9)  # there may be more, and the descriptor was just read
                return message, []
        self._retry()
        return None

    def fileno(self) -> int:
        """Returns a descriptor that polls readable for `receive()`, -1 once closed."""
        watched = -1 if self._watch is None else self._watch.fileno()
        return watched if watched >= 0 else self._doorbells.fileno()

    def flush(self) -> None:
        """Sends what is queued, as far as the ring takes it."""
        while self._queue and self._bootstrap.ready:
            try:
                ring = self._bootstrap.send(self._queue[0])
            except errors.WouldBlock:
                return
            self._queue.popleft()
            if ring:
                self._doorbells.send(_native.TOKEN_CONTROL)

    def add_doorbells(
        self, channel: int, ring_fd: int, wake_fd: int, rings: PrivateRings | None = None
    ) -> None:
        """Carries a channel's doorbells as tokens; the descriptors stay the caller's."""
        if rings is not None:
            raise errors.BadArgument("rings of this link must lie in its shared RAM")
        with errors.resources(f"doorbells of channel {channel}"):
            self._doorbells.add(channel, ring_fd, wake_fd)

    def remove_doorbells(self, channel: int) -> None:
        """Forgets a channel."""
        self._doorbells.remove(channel)

    def begin_again(self, doorbell: int | Interrupt | None = None) -> bool:
        """A remote goes on, in the same life of its end, with a host that has begun another one.

        `doorbell` is that host's, where it has one of its own. False: that is not what has ended
        it, and it is only good for `close()`. Raises OutOfResources, LinkError.
        """
        if not self._peer_restarted or (doorbell is None and self._doorbells.closed):
            return False
        if doorbell is not None:
            self._doorbells.close()
            self._doorbells = _carry(doorbell)
        self._peer_restarted = self._met = False
        self._queue.clear()
        self._retry_s = _RETRY_MIN_S
        self._retry_until = 0.0
        self._rearm()
        return True

    def close(self) -> None:
        """Says goodbye and lets go of everything. Closing twice is fine."""
        if self._doorbells.fileno() >= 0:
            self._doorbells.send(_native.TOKEN_GOODBYE)
            self._doorbells.close()
        if self._watch is not None:
            self._watch.close()
        self._queue.clear()

    # -- facts -----------------------------------------------------------------------------------

    @property
    def counters(self) -> dict[str, int]:
        """Tokens each way, and what was lost on the way."""
        return self._doorbells.counters()

    @property
    def peer_restarted(self) -> bool:
        """A remote's host has begun another life: `begin_again()`."""
        return self._peer_restarted

    @property
    def met(self) -> bool:
        """The remote has taken notice of this life of ours."""
        return self._met

    @property
    def info(self) -> dict[str, Any] | None:
        """What the remote says of itself and the window."""
        return self._bootstrap.info()

    # -- inside ----------------------------------------------------------------------------------

    def _receive(self) -> bytes | None:
        if not self._bootstrap.ready:
            return None
        try:
            message, ring = self._bootstrap.receive()
        except errors.ProtocolError as error:
            if error.code == errno.EBADMSG:
                raise  # that one message
            self._look()  # a remote that restarts shuts the ring as well
            raise errors.LinkError(str(error)) from error
        if ring:
            self._doorbells.send(_native.TOKEN_CONTROL)
        return message

    def _look(self) -> None:
        self._check_ours()
        status = self._bootstrap.look()
        if status == -errno.ECONNRESET or (self._met and not self._bootstrap.ready):
            self._peer_restarted = not self._is_host
            raise errors.LinkError(f"the {self._peer} restarted")
        if self._bootstrap.changed():
            self._doorbells.send(_native.TOKEN_BLOCK)
        if status == 1:
            self._meet()
        elif not self._bootstrap.ready and self._bootstrap.other_version:
            raise errors.ProtocolError(
                f"the {self._peer} lays the window out as version {self._bootstrap.other_version}, "
                f"this end as version {_native.CARVEOUT_VERSION}: update the older end"
            )

    def _check_ours(self) -> None:
        """Another one of this role has taken the window: both would write this end's words."""
        if self._bootstrap.taken:
            kind, role = (errors.LinkError, "host") if self._is_host else (errors.Busy, "remote")
            raise kind(
                f"another process is the {role} in the shared RAM {self._window.path} now: a "
                f"window has one {role}",
                errno.EBUSY,
            )

    def _meet(self) -> None:
        if self._is_host:
            info = self._bootstrap.info()
            if info is None:
                raise errors.LinkError("the firmware's description of the shared RAM is damaged")
            self._window.agree(info)
        self._met = True
        self._retry_s = _RETRY_MIN_S

    def _check_alive(self, crashed: bool = False) -> None:
        # Before the two have met, a record is that of a former life, unless its doorbell rang.
        crash = self._bootstrap.crash() if self._is_host and (crashed or self._met) else None
        if crash is not None:
            raise errors.LinkError(f"the firmware crashed: {describe_crash(crash)}")
        if self._doorbells.closed:
            self._check_ours()  # then the other end has let go of this stream
            self._watch = self._watch or Deathwatch(self._end, _DEATH_S)
            words = self._watch.look()
            if words is not None:
                raise errors.LinkError(words)

    def _retry(self) -> None:
        now = monotonic()
        if self._retry_at and now >= self._retry_at:
            self._check_alive()
            met = self._bootstrap.ready
            self._doorbells.send(_native.TOKEN_CONTROL if met else _native.TOKEN_BLOCK)
            self._retry_s = min(self._retry_s * 2, _RETRY_MAX_S)
            self._retry_at = 0.0
        self._rearm()

    def _rearm(self) -> None:
        now = monotonic()
        if self._bootstrap.ready and not self._queue and now >= self._retry_until:
            self._retry_at = 0.0
            return
        if not self._retry_at or self._retry_at > now + self._retry_s:
            self._retry_at = now + self._retry_s
        self._doorbells.tick(max(self._retry_at - now, 1e-3))


def _carry(doorbell: int | Interrupt) -> _native.Doorbells:
    """Takes over the doorbell, also where it raises."""
    try:
        with errors.resources("carrying doorbells over the stream"):
            if isinstance(doorbell, Interrupt):
                return _native.Doorbells(doorbell.fd, doorbell.register, doorbell.value)
            return _native.Doorbells(doorbell)
    finally:
        os.close(doorbell.fd if isinstance(doorbell, Interrupt) else doorbell)
