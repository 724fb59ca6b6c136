"""Control messages over an AF_UNIX SOCK_SEQPACKET socket, descriptors as SCM_RIGHTS."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import socket
from collections import deque
from collections.abc import Sequence

from sbe import _native, errors
from sbe.host.descriptors import close_all, duplicate
from sbe.transports import PrivateRings

__all__ = ["SeqpacketTransport"]

_FDS_MAX = 2  # CHANNEL_OPEN's two doorbells are the most that any message carries
_FDS_ROOM = 16  # for a peer that sends more: they arrive, are counted as wrong and closed
# Messages: all contexts of a daemon may ask at once. A peer that reads nothing costs no more.
_QUEUE_MAX = 4096
_INT = array.array("i").itemsize
_ANCILLARY_SIZE = socket.CMSG_SPACE(_FDS_ROOM * _INT)
_LATER = (errno.EAGAIN, errno.ENOBUFS)
_NOT_NOW = (*_LATER, errno.EINTR, errno.ENOMEM)  # to read: nothing was lost
_EXHAUSTED = (errno.ENOMEM, errno.ETOOMANYREFS, errno.EMFILE)  # the second: in flight


class SeqpacketTransport:
    """Owns a connected socket. Nothing blocks. Not thread-safe: the owner serialises.

    `queue_max` bounds the messages (of at most `_native.CONTROL_MAX` bytes) and the descriptors,
    duplicated, that wait for a peer that does not read.
    """

    carries_handles = True

    def __init__(self, sock: socket.socket, *, queue_max: int = _QUEUE_MAX) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._queue_max = queue_max
        self._owner = os.getpid()

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Sends or queues a message with descriptors, which stay the caller's.

        Raises MessageTooLarge, WouldBlock when the queue is full, OutOfResources when this process
        has no descriptor left, LinkError when the peer is gone.
        """
        if not message or len(message) > _native.CONTROL_MAX or len(fds) > _FDS_MAX:
            raise errors.MessageTooLarge(
                f"control message of {len(message)} bytes with {len(fds)} descriptors: at most "
                f"{_native.CONTROL_MAX} bytes and {_FDS_MAX} descriptors"
            )
        if not self._queue and self._send_now(message, fds):
            return
        if len(self._queue) >= self._queue_max:
            raise errors.WouldBlock(
                f"the other end has left {len(self._queue)} control messages unread"
            )
        self._queue.append((message, duplicate(fds, "a descriptor to send")))

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Returns the next message and its descriptors, now the caller's; None when there is none.

        Raises ProtocolError for one message that was too long, empty, or came with more descriptors
        than arrived (go on); LinkError at the end of the connection.
        """
        try:
            message, ancillary, flags, _ = self._sock.recvmsg(
                _native.CONTROL_MAX, _ANCILLARY_SIZE, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            if error.errno in _NOT_NOW:  # it stays readable: another look follows
                return None
            raise errors.LinkError(self._gone(error.strerror)) from error
        fds = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % _INT])
        if message and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            return message, fds.tolist()
        close_all(fds)
        if flags & socket.MSG_TRUNC:
            raise errors.ProtocolError(f"control message above {_native.CONTROL_MAX} bytes")
        if flags & socket.MSG_CTRUNC:
            raise errors.ProtocolError(
                "control message with more descriptors than legal, or than this process may open"
            )
        if fds or not self._hung_up():
            raise errors.ProtocolError("empty control message")
        raise errors.LinkError(self._gone("the connection was closed"))

    def fileno(self) -> int:
        """Returns the socket's descriptor, -1 once closed."""
        return self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Something is queued: call `flush()` when the descriptor is writable."""
        return bool(self._queue)

    def flush(self) -> None:
        """Sends what is queued, as far as the peer takes it. Raises LinkError."""
        while self._queue:
            message, fds = self._queue[0]
            if not self._send_now(message, fds):
                return
            self._queue.popleft()
            close_all(fds)

    def add_doorbells(
        self, channel: int, ring_fd: int, wake_fd: int, rings: PrivateRings | None = None
    ) -> None:
        """Not here: doorbells are descriptors, which go to the remote."""
        raise errors.BadArgument("a socket carries doorbells as descriptors")

    def remove_doorbells(self, channel: int) -> None:
        """Nothing to forget."""

    def close(self) -> None:
        """Closes the socket and forgets the queue. Closing twice is fine."""
        while self._queue:
            close_all(self._queue.popleft()[1])
        if os.getpid() == self._owner:  # the peer hears of it, though a forked child has a copy
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _send_now(self, message: bytes, fds: Sequence[int]) -> bool:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([message], rights, socket.MSG_NOSIGNAL)
        except InterruptedError:
            return False
        except OSError as error:
            if error.errno in _LATER:
                return False
            if error.errno in _EXHAUSTED:
                raise errors.from_system(error, "control message") from error
            if error.errno == errno.EBADF and self._sock.fileno() >= 0:
                raise errors.BadArgument("a descriptor to send is not open") from error
            raise errors.LinkError(self._gone(error.strerror)) from error
        return True

    def _hung_up(self) -> bool:
        """Tells the end of the connection from a message of no bytes."""
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        return bool(poll.poll(0))

    @staticmethod
    def _gone(reason: str | None) -> str:
        return f"the other end is gone: {reason}"
