"""A stand-in for firmware that does not know this protocol: it answers in this process.

Contexts, areas and limits are then as with any remote; services there are none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
from collections import deque
from collections.abc import Sequence

from sbe import _native, errors
from sbe.transports import Endpoint, PrivateRings

__all__ = ["StandIn"]

_AREAS = 1024


class _Firmware:
    """What the session asks of its remote."""

    def __init__(self) -> None:
        self.sent: deque[bytes] = deque()
        self.session: _native.Session | None = None

    def send(self, message: bytes) -> None:
        """To the host."""
        self.sent.append(message)

    def area_attach(self, *_: object) -> int:
        """Nothing is mapped: the firmware takes addresses as they come."""
        return 1

    def area_detach(self, area: int) -> None:
        """Nothing was."""

    def channel_open(self, *_: int) -> None:
        """Nobody serves it."""

    def channel_close(self, channel: int) -> None:
        """Nobody did."""

    def service(self, context: int, name: str | None, index: int) -> None:
        """There are none."""

    def state_changed(self, state: int) -> None:
        """Of no interest."""

    def refused(self, *_: object) -> None:
        """The host says so."""

    def replied(self, token: object, status: int, reply: object) -> None:
        """It asks nothing."""

    def event(self, event: int, value: int) -> None:
        """About power, which it knows nothing of."""
        if self.session is not None and _native.EVENT_SUSPEND <= event <= _native.EVENT_FREQUENCY:
            answer = event << _native.ANSWERED_SHIFT | errno.EOPNOTSUPP
            self.session.send_event(_native.EVENT_ANSWERED, answer)


class StandIn:
    """A transport that is its own remote, as long as firmware is there. Not thread-safe.

    `watched` is an endpoint of the firmware, now the transport's, whose end is the remote's.
    """

    carries_handles = False

    def __init__(self, name: str, watched: Endpoint) -> None:
        self._watched = watched
        self._firmware = _Firmware()
        self._session = _native.Session(
            self._firmware, role=_native.ROLE_REMOTE, name=name, areas=_AREAS
        )
        self._firmware.session = self._session
        self._there = -1
        try:
            with errors.resources(f"watching {name}"):
                self._epoll = select.epoll()
                self._there = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._epoll.register(self._there, select.EPOLLIN)
                self._epoll.register(watched.fileno(), select.EPOLLIN)
        except BaseException:
            self.close()
            raise
        self._session.start(secrets.randbits(31) + 1)
        self._show()

    def _show(self) -> None:
        if self._firmware.sent:
            os.eventfd_write(self._there, 1)

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Answered at once. Descriptors can't cross: BadArgument."""
        if fds:
            raise errors.BadArgument("foreign firmware takes no file descriptors")
        self._session.receive(message, 0)
        self._show()

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Returns the next message. Raises LinkError when the firmware has stopped."""
        while self._watched.receive() is not None:
            pass  # what it says to nobody
        if self._firmware.sent:
            return self._firmware.sent.popleft(), []
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._there)
        return None

    def fileno(self) -> int:
        """Returns a descriptor that is readable when there is something to receive."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    @property
    def wants_write(self) -> bool:
        """Never."""
        return False

    def flush(self) -> None:
        """Nothing is queued."""

    def add_doorbells(
        self, channel: int, ring_fd: int, wake_fd: int, rings: PrivateRings | None = None
    ) -> None:
        """Nobody hears them."""

    def remove_doorbells(self, channel: int) -> None:
        """Nothing to forget."""

    def close(self) -> None:
        """Lets go of the endpoint. Closing twice is fine."""
        there, self._there = self._there, -1
        if there >= 0:
            os.close(there)
        if hasattr(self, "_epoll"):
            self._epoll.close()
        self._watched.close()
