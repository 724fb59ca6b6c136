"""Control messages over rpmsg: endpoints of the kernel's rpmsg_char, one message each."""

from __future__ import annotations

import errno
import os
import select
import struct
from collections import deque
from collections.abc import Callable, Sequence

from sbe import _native, errors
from sbe.host.descriptors import close_all, duplicate
from sbe.kernel import rpmsg, timer
from sbe.transports import PrivateRings

__all__ = ["RpmsgEndpoint", "RpmsgTransport"]

_QUEUE_MAX = 1024  # messages that wait for a remote which takes none
_RETRY_S = 0.001  # rpmsg_char never reports that writing is possible again
_BIND_MAGIC = 0x42454253  # "SBEB", firmware/ports/rpmsg/link.c
_GONE = (errno.EPIPE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.EINVAL)


def _is_eventfd(fd: int) -> bool:
    """Or a listener, which can't be written to. Adding nothing changes nothing."""
    try:
        os.eventfd_write(fd, 0)
    except OSError:
        return False
    return True


class _Endpoint:
    """A channel's endpoint, and what a thread is to carry once it is bound."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.carried: list[int] = []
        self.rings: PrivateRings | None = None

    def carry(self, ring_fd: int, wake_fd: int, rings: PrivateRings | None) -> None:
        """Keeps duplicates: the caller's go before that."""
        fds = (ring_fd, wake_fd) if rings is None else (ring_fd, wake_fd, rings.memory_fd)
        self.carried = duplicate(fds, "a channel's doorbells")
        if rings is not None:
            self.rings = rings._replace(memory_fd=self.carried[2])

    def let_go(self) -> None:
        """The thread has its own."""
        while self.carried:
            os.close(self.carried.pop())

    def close(self, first: int = -1) -> None:
        """Removes the endpoint. `first` is an older one of the same remote."""
        self.let_go()
        rpmsg.destroy_endpoint(self.fd, first)


class RpmsgTransport:
    """Owns an endpoint's descriptor. Nothing blocks. Not thread-safe: the owner serialises.

    A channel's doorbell is an endpoint of its own, made by `open_doorbell`; without it channels are
    refused. It takes the place of both eventfds where this process has them to itself, so that no
    thread carries doorbells. An end that got a listener is of another process, which must not hold
    endpoints (docs/design/kernel.md): there a thread of the extension carries.
    """

    carries_handles = False

    def __init__(
        self,
        fd: int,
        remote: str,
        open_doorbell: Callable[[], int] | None = None,
        on_gone: Callable[[], object] | None = None,
    ) -> None:
        self._fd = fd
        self._owner = os.getpid()
        self._remote = remote
        self._open_doorbell = open_doorbell
        self._on_gone = on_gone
        self._endpoints: dict[int, _Endpoint] = {}
        self._carrier: _native.Doorbells | None = None
        self._unbound: deque[int] = deque()  # channels whose opening has not been sent
        self._queue: deque[bytes] = deque()
        self._timer = timer.Timer()
        try:
            with errors.resources(f"watching {remote}"):
                self._epoll = select.epoll()
                self._epoll.register(fd, select.EPOLLIN)
                self._epoll.register(self._timer.fileno(), select.EPOLLIN)
        except BaseException:
            self._timer.close()
            raise

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Sends or queues a message. Descriptors can't cross rpmsg: BadArgument.

        Raises MessageTooLarge, WouldBlock when the queue is full, LinkError when the remote is
        gone.
        """
        if fds:
            raise errors.BadArgument("file descriptors can't be sent to a remote over rpmsg")
        if not message or len(message) > rpmsg.MTU:
            raise errors.MessageTooLarge(
                f"control message of {len(message)} bytes: rpmsg carries 1 to {rpmsg.MTU}"
            )
        if not self._queue and self._send_now(message):
            self._bind()
            return
        if len(self._queue) >= _QUEUE_MAX:
            raise errors.WouldBlock(f"{self._remote} has left {len(self._queue)} messages unread")
        self._queue.append(message)
        self._timer.set(_RETRY_S)

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Returns the next message and no descriptors; None when there is none."""
        try:
            message = os.read(self._fd, _native.CONTROL_MAX)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise self._gone(error) from error
        if not message:
            raise errors.ProtocolError("empty control message")
        return message, []

    def fileno(self) -> int:
        """Returns a descriptor that is readable when there is something to receive or to flush."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def endpoint_fd(self) -> int:
        """Returns the descriptor of the control endpoint, -1 once closed."""
        return self._fd

    @property
    def wants_write(self) -> bool:
        """Messages are queued; `fileno()` becomes readable when it is time to flush."""
        return bool(self._queue)

    def flush(self) -> None:
        """Sends what is queued, as far as the remote takes it. Raises LinkError."""
        self._timer.clear()
        while self._queue:
            if not self._send_now(self._queue[0]):
                self._timer.set(_RETRY_S)
                return
            self._queue.popleft()
        self._bind()

    def add_doorbells(
        self, channel: int, ring_fd: int, wake_fd: int, rings: PrivateRings | None = None
    ) -> None:
        """Rings over an endpoint, which is bound when the next message is sent.

        Plain eventfds are replaced by it. A thread serves a listener in the place of one, and
        carries the frames of `rings`.
        """
        if self._open_doorbell is None:
            raise errors.BadArgument("this link has no doorbells, so it can have no channels")
        self.remove_doorbells(channel)
        endpoint = _Endpoint(self._open_doorbell())
        try:
            with errors.resources(f"doorbells of channel {channel}"):
                if rings is None and _is_eventfd(ring_fd) and _is_eventfd(wake_fd):
                    os.dup2(endpoint.fd, ring_fd, inheritable=False)
                    os.dup2(endpoint.fd, wake_fd, inheritable=False)
                else:
                    endpoint.carry(ring_fd, wake_fd, rings)
        except BaseException:
            endpoint.close(self._fd)
            raise
        self._endpoints[channel] = endpoint
        self._unbound.append(channel)

    def remove_doorbells(self, channel: int) -> None:
        """Ends a channel's endpoint, for whoever holds a duplicate. An unknown one is fine."""
        endpoint = self._endpoints.pop(channel, None)
        if endpoint is not None:
            if self._carrier is not None:
                self._carrier.remove(channel)
            endpoint.close(self._fd)

    def _bind(self) -> None:
        """Tells the remote which channels endpoints ring for, after their CHANNEL_OPEN."""
        while self._unbound:
            channel = self._unbound[0]
            endpoint = self._endpoints.get(channel)
            try:
                if endpoint is not None:
                    os.write(endpoint.fd, struct.pack("<II", _BIND_MAGIC, channel))
                    self._hand_over(channel, endpoint)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENOMEM):
                    self._timer.set(_RETRY_S)
                    return
                raise self._gone(error) from error
            self._unbound.popleft()

    def _hand_over(self, channel: int, endpoint: _Endpoint) -> None:
        """Lets the thread carry: not before the remote knows whose messages these are."""
        if endpoint.carried:
            ring_fd, wake_fd, *_ = endpoint.carried
            self._carrier = self._carrier or _native.Doorbells()
            self._carrier.add(channel, ring_fd, wake_fd, endpoint.fd, endpoint.rings)
            endpoint.let_go()

    def close(self) -> None:
        """Removes the endpoints and forgets the queue. Closing twice is fine."""
        forked = os.getpid() != self._owner  # then the endpoints are the parent's
        for channel in [] if forked else list(self._endpoints):
            self.remove_doorbells(channel)
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        self._queue.clear()
        self._epoll.close()
        self._timer.close()
        if self._carrier is not None:
            self._carrier.close()
        if not forked:
            rpmsg.destroy_endpoint(fd)
            return
        os.close(fd)
        while self._endpoints:
            endpoint = self._endpoints.popitem()[1]
            endpoint.let_go()
            os.close(endpoint.fd)

    def _send_now(self, message: bytes) -> bool:
        try:
            os.write(self._fd, message)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno == errno.ENOMEM:  # the remote has all buffers
                return False
            raise self._gone(error) from error
        return True

    def _gone(self, error: OSError) -> errors.LinkError:
        why = error.strerror
        if error.errno in _GONE:
            why = "it stopped or crashed"
            if self._on_gone is not None:
                self._on_gone()
        return errors.LinkError(f"the rpmsg channel of {self._remote} is gone: {why}", error.errno)


class RpmsgEndpoint:
    """Raw messages over an endpoint of rpmsg_char, whose descriptor it owns. Not thread-safe.

    `name` and `address` are those of the firmware's.
    `first` is the descriptor of an older endpoint of the same remote, -1 none; it stays the
    caller's.
    """

    def __init__(
        self,
        fd: int,
        remote: str,
        first: int = -1,
        on_gone: Callable[[], object] | None = None,
        *,
        name: str = "",
        address: int = 0,
    ) -> None:
        self.name, self.address = name, address
        self._fd, self._remote, self._on_gone = fd, remote, on_gone
        self._owner = os.getpid()
        try:
            self._first = duplicate((first,), "an endpoint")[0]
        except BaseException:
            rpmsg.destroy_endpoint(fd, first)
            raise

    def fileno(self) -> int:
        """Returns the endpoint's descriptor."""
        return self._fd

    def send(self, message: bytes) -> bool:
        """Sends a message; False: the remote has all buffers."""
        if not 0 < len(message) <= rpmsg.MTU:
            raise errors.MessageTooLarge(
                f"a message of {len(message)} bytes: rpmsg carries 1 to {rpmsg.MTU}"
            )
        try:
            os.write(self._fd, message)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno == errno.ENOMEM:
                return False
            raise self._gone(error) from error
        return True

    def receive(self) -> bytes | None:
        """Returns the next message; those without a byte are none."""
        while True:
            try:
                message = os.read(self._fd, rpmsg.MTU)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as error:
                raise self._gone(error) from error
            if message:
                return message

    def close(self) -> None:
        """Removes the endpoint, unless this is a forked child. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        first, self._first = self._first, -1
        if fd >= 0 and os.getpid() == self._owner:
            rpmsg.destroy_endpoint(fd, first)
            fd = -1
        close_all((fd, first))

    def _gone(self, error: OSError) -> errors.LinkError:
        why = "it stopped or crashed" if error.errno in _GONE else error.strerror
        if error.errno in _GONE and self._on_gone is not None:
            self._on_gone()
        return errors.LinkError(f"an rpmsg endpoint of {self._remote} is gone: {why}", error.errno)
