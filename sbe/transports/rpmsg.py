"""Control messages over rpmsg: endpoints of the kernel's rpmsg_char, one message each.

Nothing is found by number: the remote is known by the name of its remote processor and the channel
it announces, both of which survive a restart.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import struct
from collections import deque
from collections.abc import Sequence

from sbe import _native, errors
from sbe.heaps import dmabuf
from sbe.kernel import ioctl, remoteproc, rpmsg, timer

__all__ = ["CONTROL", "DOORBELL", "RpmsgRemote", "RpmsgTransport"]

CONTROL = "sbe-control"  # what the remote announces
DOORBELL = "sbe-doorbell"
_QUEUE_MAX = 1024  # messages that wait for a remote which takes none
_RETRY_S = 0.001  # rpmsg_char never reports that writing is possible again
_BIND_MAGIC = 0x42454253  # "SBEB", firmware/ports/virtio/main.c
_GONE = (errno.EPIPE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.EINVAL)

_numbers = itertools.count(1)


def _unique(purpose: str) -> str:
    return f"sbe-{purpose}-{os.getpid()}-{next(_numbers)}"[:31]


class RpmsgTransport:
    """Owns an endpoint's descriptor. Nothing blocks. Not thread-safe: the owner serialises."""

    def __init__(self, fd: int, remote: str) -> None:
        self._fd = fd
        self._remote = remote
        self._queue: deque[bytes] = deque()
        self._timer = timer.Timer()
        self._epoll = select.epoll()
        self._epoll.register(fd, select.EPOLLIN)
        self._epoll.register(self._timer.fileno(), select.EPOLLIN)

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send or queue a message. Descriptors can't cross rpmsg: BadArgument.

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
            return
        if len(self._queue) >= _QUEUE_MAX:
            raise errors.WouldBlock(f"{self._remote} has left {len(self._queue)} messages unread")
        self._queue.append(message)
        self._timer.set(_RETRY_S)

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Return the next message and no descriptors; None when there is none."""
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
        """Return a descriptor that is readable when there is something to receive or to flush."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    @property
    def wants_write(self) -> bool:
        """Messages are queued; `fileno()` becomes readable when it is time to flush."""
        return bool(self._queue)

    def flush(self) -> None:
        """Send what is queued, as far as the remote takes it. Raises LinkError."""
        self._timer.clear()
        while self._queue:
            if not self._send_now(self._queue[0]):
                self._timer.set(_RETRY_S)
                return
            self._queue.popleft()

    def close(self) -> None:
        """Remove the endpoint and forget the queue. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        self._queue.clear()
        self._epoll.close()
        self._timer.close()
        rpmsg.destroy_endpoint(fd)

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
        why = "it stopped or crashed" if error.errno in _GONE else error.strerror
        return errors.LinkError(f"the rpmsg channel of {self._remote} is gone: {why}", error.errno)


class RpmsgRemote:
    """A remote behind the kernel's rpmsg. Pass `connect` to a Link.

    `processor` is the remote processor's name ("m33" of a device tree), or None on a machine with
    only one remote that speaks this protocol. `coherent`: it sees the processor's caches.
    """

    def __init__(self, processor: str | None = None, *, coherent: bool = True) -> None:
        self._processor = processor
        self._coherent = coherent

    @property
    def device(self) -> str:
        """The platform device that reads and writes shared memory, "" unknown."""
        service = self._find(CONTROL)
        return remoteproc.find(service.remote).device if service.remote else ""

    def connect(self) -> RpmsgTransport:
        """Open an endpoint to the control channel. Raises LinkError with what is missing."""
        service = self._find(CONTROL)
        fd = rpmsg.create_endpoint(service.control, _unique("control"), service.destination)
        return RpmsgTransport(fd, self._processor or service.remote or "the remote")

    def open_doorbell(self, channel: int) -> int:
        """Return an endpoint's descriptor that is a channel's doorbell, both ways; the caller's.

        What is written wakes the remote; it is readable when the remote has rung.
        """
        service = self._find(DOORBELL)
        fd = rpmsg.create_endpoint(service.control, _unique("doorbell"), service.destination)
        try:
            os.write(fd, struct.pack("<II", _BIND_MAGIC, channel))
        except OSError as error:
            rpmsg.destroy_endpoint(fd)
            raise ioctl.translate(error, f"doorbell of channel {channel}") from error
        return fd

    def close_doorbell(self, fd: int) -> None:
        """End the doorbell for whoever holds a duplicate, and close this one."""
        rpmsg.destroy_endpoint(fd)

    @property
    def medium(self) -> RpmsgRemote:
        """How memory and doorbells reach it: itself."""
        return self

    @property
    def heaps(self) -> dict[str, dmabuf.DmaHeap | dmabuf.UdmabufHeap]:
        """Memory for areas that its device reaches."""
        return dmabuf.published(self.device, coherent=self._coherent)

    @property
    def ring_heap(self) -> dmabuf.CoherentHeap:
        """Coherent memory for rings."""
        return dmabuf.CoherentHeap(self.device)

    def close(self) -> None:
        """Nothing to let go of: the remote lives on."""

    def _find(self, name: str) -> rpmsg.Service:
        entry = remoteproc.find(self._processor) if self._processor else None
        found = rpmsg.services(name, entry.entry if entry else None)
        if len(found) == 1:
            return found[0]
        where = f"remote processor {self._processor}" if self._processor else "no remote processor"
        if found:
            names = ", ".join(service.remote for service in found)
            raise errors.LinkError(f"several remotes announce {name}: {names}; name one of them")
        state = f", which is {entry.state}" if entry else ""
        verb = "does not announce" if self._processor else "announces"
        raise errors.LinkError(f"{where}{state}, {verb} {name!r} on rpmsg", errno.ENODEV)
