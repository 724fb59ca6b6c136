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
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from sbe import _native, errors
from sbe.heaps import Heap, dmabuf
from sbe.heaps.carveout import CarveoutHeap
from sbe.heaps.memfd import MemfdHeap
from sbe.host.descriptors import duplicate
from sbe.kernel import importer, remoteproc, rpmsg, timer
from sbe.transports import PrivateRings

__all__ = ["CONTROL", "DOORBELL", "RpmsgRemote", "RpmsgTransport"]

CONTROL = "sbe-control"  # what the remote announces
DOORBELL = "sbe-doorbell"
_QUEUE_MAX = 1024  # messages that wait for a remote which takes none
_RETRY_S = 0.001  # rpmsg_char never reports that writing is possible again
_BIND_MAGIC = 0x42454253  # "SBEB", firmware/ports/rpmsg/link.c
_REMOVAL_S = 1.0  # the kernel takes milliseconds to remove the devices of a remote that is gone
_GONE = (errno.EPIPE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.EINVAL)

_NODES = "sbe"  # names of our nodes begin so

_numbers = itertools.count(1)


def _unique(purpose: str) -> str:
    return f"{_NODES}-{purpose}-{os.getpid()}-{next(_numbers)}"[:31]


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
        """Keep duplicates: the caller's go before that."""
        fds = (ring_fd, wake_fd) if rings is None else (ring_fd, wake_fd, rings.memory_fd)
        self.carried = duplicate(fds, "a channel's doorbells")
        if rings is not None:
            self.rings = rings._replace(memory_fd=self.carried[2])

    def let_go(self) -> None:
        """The thread has its own."""
        while self.carried:
            os.close(self.carried.pop())

    def close(self, first: int = -1) -> None:
        """Remove the endpoint. `first` is an older one of the same remote."""
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
            self._bind()
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
        self._bind()

    def add_doorbells(
        self, channel: int, ring_fd: int, wake_fd: int, rings: PrivateRings | None = None
    ) -> None:
        """Ring over an endpoint, which is bound when the next message is sent.

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
        """End a channel's endpoint, for whoever holds a duplicate. An unknown one is fine."""
        endpoint = self._endpoints.pop(channel, None)
        if endpoint is not None:
            if self._carrier is not None:
                self._carrier.remove(channel)
            endpoint.close(self._fd)

    def _bind(self) -> None:
        """Tell the remote which channels endpoints ring for, after their CHANNEL_OPEN."""
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
        """Let the thread carry: not before the remote knows whose messages these are."""
        if endpoint.carried:
            ring_fd, wake_fd, *_ = endpoint.carried
            self._carrier = self._carrier or _native.Doorbells()
            self._carrier.add(channel, ring_fd, wake_fd, endpoint.fd, endpoint.rings)
            endpoint.let_go()

    def close(self) -> None:
        """Remove the endpoints and forget the queue. Closing twice is fine."""
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


class RpmsgRemote:
    """A remote behind the kernel's rpmsg. Pass `connect` to a Link.

    `processor` is the remote processor's name ("m33" of a device tree), or None on a machine with
    only one remote that speaks this protocol. `coherent`: it sees the processor's caches. `heaps`
    names those that areas may come from, the first choice first, None all; together they give out
    `budget_bytes` at most, by default half of the machine's memory. `carveouts` adds reserved
    memory that can be mapped: (file, offset, size, its address) by name, heaps of their own that
    are chosen first. `rings` lie in "coherent"
    memory, or their frames travel as "messages"; None: as messages if there is no such memory.
    """

    transport = "rpmsg"
    pid = None  # its life is the kernel's matter

    def __init__(
        self,
        processor: str | None = None,
        *,
        coherent: bool = True,
        heaps: Sequence[str] | None = None,
        carveouts: Mapping[str, tuple[str, int, int, int]] | None = None,
        budget_bytes: int | None = None,
        rings: Literal["coherent", "messages"] | None = None,
    ) -> None:
        self._rings = rings
        self._processor = processor
        self._coherent = coherent
        self._heaps = heaps
        self._budget = dmabuf.Budget(budget_bytes)
        self._places = carveouts or {}
        self._arenas: dict[str, CarveoutHeap] = {}
        self._dying, self._dying_until_s = 0, 0.0  # a channel that the kernel is removing
        self.name = processor or "rpmsg"
        self.uri = f"rpmsg:{processor or ''}{',messages' if rings == 'messages' else ''}"
        self.transport = "rpmsg"

    @property
    def device(self) -> str:
        """The platform device that reads and writes shared memory, "" unknown."""
        service = self._find(CONTROL)
        return remoteproc.find(service.remote).device if service.remote else ""

    def connect(self) -> RpmsgTransport:
        """Open an endpoint to the control channel. Raises LinkError with what is missing.

        Or that the former one has not left yet: an endpoint made under a control node that is
        being removed outlives it, hears nothing and does not end (Linux 6.12), and 6.1 warns of
        a device without release().
        """
        service = self._find(CONTROL)
        life = service.life
        if life == self._dying and time.monotonic() < self._dying_until_s:
            raise errors.LinkError(
                f"the kernel is still removing {CONTROL!r} of {service.remote or self.name}, "
                "which stopped or crashed",
                errno.ENODEV,
            )
        rpmsg.reap(_NODES)
        fd = rpmsg.create_endpoint(service.control, _unique("control"), service.destination)
        name = self._processor or service.remote or "the remote"

        def on_gone() -> None:
            self._dying, self._dying_until_s = life, time.monotonic() + _REMOVAL_S

        try:
            return RpmsgTransport(fd, name, self.open_doorbell, on_gone)
        except BaseException:
            rpmsg.destroy_endpoint(fd)
            raise

    def open_doorbell(self) -> int:
        """Return an endpoint's descriptor to the remote's doorbells, not bound; the caller's."""
        service = self._find(DOORBELL)
        return rpmsg.create_endpoint(service.control, _unique("doorbell"), service.destination)

    @property
    def heaps(self) -> dict[str, Heap]:
        """Memory that its device reaches, by name: carve-outs, what the kernel offers, coherent.

        Raises LinkError for a heap that was asked for by name and is not there.
        """
        for name, place in self._places.items():
            if name not in self._arenas:  # they know what is allocated: one for all contexts
                self._arenas[name] = _open_arena(name, *place)
        there: dict[str, Heap] = {
            **{arena.name: arena for arena in self._arenas.values()},
            **dmabuf.published(self.device, coherent=self._coherent, budget=self._budget),
        }
        if importer.available():
            there["coherent"] = self._coherent_heap
        if self._heaps is None:
            return there
        missing = [name for name in self._heaps if name not in there]
        if missing:
            raise errors.LinkError(
                f"no heap {' and no heap '.join(missing)} for {self.name} on this machine; there "
                f"are: {', '.join(there) or 'none, is the module sbe_dmabuf loaded?'}",
                errno.ENODEV,
            )
        return {name: there[name] for name in self._heaps}

    @property
    def ring_heap(self) -> Heap:
        """Where ring memory comes from: with messages, memory of this end alone."""
        return MemfdHeap() if self._by_messages else self._coherent_heap

    @property
    def slot_size_max(self) -> int | None:
        """Bytes of a ring's slot at most, beside what the link agrees on."""
        return _native.MIRROR_SLOT_MAX if self._by_messages else None

    @property
    def _by_messages(self) -> bool:
        return self._rings == "messages" or (self._rings is None and not importer.available())

    @property
    def _coherent_heap(self) -> dmabuf.CoherentHeap:
        return dmabuf.CoherentHeap(self.device)

    def close(self) -> None:
        """Lets go of carve-outs; the remote lives on."""
        while self._arenas:
            self._arenas.popitem()[1].close()

    def _find(self, name: str) -> rpmsg.Service:
        entry = remoteproc.find(self._processor) if self._processor else None
        found = rpmsg.services(name, entry.entry if entry else None)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(service.remote for service in found)
            raise errors.LinkError(f"several remotes announce {name}: {names}; name one of them")
        if entry is None:
            raise errors.LinkError(
                f"no remote processor announces {name!r} on rpmsg: `sbe firmware list` shows which "
                "there are and how they are, `sbe firmware start NAME` starts one",
                errno.ENODEV,
            )
        state = entry.state
        hint = f"`sbe firmware start {entry.name}` starts it"
        if state in ("running", "attached"):
            hint = f"its firmware is another one, or waits: see `sbe firmware log {entry.name}`"
        raise errors.LinkError(
            f"remote processor {self._processor}, which is {state}, does not announce {name!r} on "
            f"rpmsg: {hint}",
            errno.ENODEV,
        )


def _open_arena(name: str, path: str, offset: int, size: int, address: int) -> CarveoutHeap:
    """Raises LinkError with what stands in the way."""
    what = f"carveout:{name}: {path}"
    fd = -1
    try:
        # O_SYNC: /dev/mem maps memory that is not cached then; UIO always does.
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_SYNC)
        there = os.fstat(fd).st_size if os.path.isfile(path) else offset + size
        if there >= offset + size:
            return CarveoutHeap(fd, offset, size, address=address, name=f"carveout:{name}")
    except OSError as error:
        raise errors.LinkError(f"{what} can't be mapped: {error.strerror}") from error
    finally:
        if fd >= 0:
            os.close(fd)
    raise errors.LinkError(f"{what} has {there} bytes, {offset + size} are needed")
