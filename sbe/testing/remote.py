"""For tests: a remote whose services are Python functions, in a thread of this process.

    def double(payload, *buffers):
        return payload * 2

    with sbe.testing.Remote({"double": double}) as remote, remote.link() as link:
        assert link.call("double", payload=b"ab").payload == b"abab"

It runs the same C core as firmware does, in the remote's role, over the same messages and rings.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import socket
import threading
from collections.abc import Mapping
from types import TracebackType

from sbe import _native, remotes
from sbe.errors import Error, LinkError
from sbe.link.rings import DEFAULT_GEOMETRY, Geometry
from sbe.sdk.connection import Connection
from sbe.sdk.direct import DirectBackend
from sbe.sdk.handlers import check_handler
from sbe.sdk.serving import Handler, answer
from sbe.sdk.timeouts import seconds
from sbe.transports.seqpacket import SeqpacketTransport

__all__ = ["Remote"]


class _End:
    """One life of the remote: its session, areas and channels. Used by its own thread only."""

    def __init__(self, sock: socket.socket, stop_fd: int, remote: Remote) -> None:
        self.transport = SeqpacketTransport(sock)
        self.remote = remote
        self.table = _native.Table(remote.areas)
        self.memories: dict[int, _native.Memory] = {}
        self.channels: dict[int, _native.Channel] = {}
        self.fds: list[int] = []  # that came beside the message at hand
        self.stop_fd = stop_fd
        self.poll = select.poll()
        self.poll.register(stop_fd, select.POLLIN)
        self.poll.register(self.transport.fileno(), select.POLLIN)
        self.session = _native.Session(
            self,
            role=_native.ROLE_REMOTE,
            name="sbe.testing",
            areas=remote.areas,
            buffers=remote.buffers,
            version_min=remote.versions[0],
            version_max=remote.versions[1],
        )

    # -- what the session asks --------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """A control message to the host."""
        self.transport.send(message)

    def area_attach(self, area: int, context: int, flags: int, size: int, handles: int) -> int:
        """The host registers memory."""
        memory = _native.Memory(self.fds[0], size)
        self.table.add(memory, area, context, flags)
        self.memories[area] = memory
        return memory.address

    def area_detach(self, area: int) -> None:
        """It takes it back."""
        self.table.remove(self.memories.pop(area), True)

    def channel_open(
        self,
        channel: int,
        context: int,
        ring_area: int,
        slots: int,
        slot_size: int,
        line: int,
        send_offset: int,
        receive_offset: int,
        priority: int,
        handles: int,
    ) -> None:
        """The host opens a channel; offsets are as it sees them."""
        ours, theirs = self.fds
        end = _native.Channel(
            self.table,
            self.memories[ring_area],
            channel,
            context,
            slots,
            slot_size,
            line,
            receive_offset,
            send_offset,
            theirs,
            ours,
            max_buffers=self.session.limits["buffers"],
        )
        self.channels[channel] = end
        self.poll.register(end.fileno(), select.POLLIN)

    def channel_close(self, channel: int) -> None:
        """It closes one."""
        end = self.channels.pop(channel)
        self.poll.unregister(end.fileno())
        end.fail(LinkError("the host closed the channel"))

    def service(self, context: int, name: str | None, index: int) -> tuple[int, int, str] | None:
        """It asks for a service."""
        names = list(self.remote.services)
        if name is None:
            name = names[index] if index < len(names) else None
        if name is None or name not in names:
            return None
        return names.index(name) + 1, 1, name

    def state_changed(self, state: int) -> None:
        """Of no interest here."""

    def refused(self, why: int, theirs: bool, peer_min: int, peer_max: int) -> None:
        """The host is told too, and raises."""

    def replied(self, token: object, status: int, reply: object) -> None:
        """This remote asks nothing."""

    def event(self, event: int, value: int) -> None:
        """It asks about power, which functions have none of."""
        if _native.EVENT_SUSPEND <= event <= _native.EVENT_FREQUENCY:
            answer = event << _native.ANSWERED_SHIFT | errno.EOPNOTSUPP
            self.session.send_event(_native.EVENT_ANSWERED, answer)

    # -- the loop ---------------------------------------------------------------------------

    def run(self) -> None:
        """Serves until the host hangs up or the remote is stopped."""
        try:
            self.session.start(secrets.randbits(31) + 1)
            while self._turn():
                pass
        except LinkError:
            pass  # the host hung up
        finally:
            for channel in list(self.channels):
                self.channel_close(channel)
            self.transport.close()
            os.close(self.stop_fd)

    def _turn(self) -> bool:
        ready = {fd for fd, _ in self.poll.poll(None if self._idle() else 0)}
        if self.stop_fd in ready:
            return False
        if self.transport.fileno() in ready:
            self._take_control()
        for channel in list(self.channels.values()):
            while (request := channel.next_request(0)) is not None:
                answer(request, *self._handler(request.service))
        return True

    def _idle(self) -> bool:
        return all([channel.error is not None or channel.poll() for channel in self._open()])

    def _open(self) -> list[_native.Channel]:
        return list(self.channels.values())

    def _take_control(self) -> None:
        while (received := self.transport.receive()) is not None:
            message, self.fds = received
            try:
                self.session.receive(message, len(self.fds))
            except Error:
                continue  # refused in the reply
            finally:
                for fd in self.fds:
                    os.close(fd)
                self.fds = []

    def _handler(self, service: int) -> tuple[str, Handler | None]:
        handlers = list(self.remote.services.items())
        return handlers[service - 1] if 0 < service <= len(handlers) else ("", None)


class Remote(remotes.Remote):
    """A remote made of Python functions: handler(payload, *buffers) -> bytes or None.

    `restart()` is a crash: the link is lost, calls in flight fail, a new epoch begins at the next
    call. Handlers run in the remote's thread, one at a time. `areas`, and `buffers` of a call, are
    what it can hold; `versions` are the protocol versions it claims to speak. Thread-safe as the
    connection that uses it.
    """

    name = "testing"
    uri = "testing:"
    transport = "testing"

    def __init__(
        self,
        services: Mapping[str, Handler],
        *,
        areas: int = 1024,
        buffers: int = _native.BUFFERS_MAX,
        versions: tuple[int, int] = (_native.VERSION_MIN, _native.VERSION_MAX),
    ) -> None:
        if not isinstance(services, Mapping):
            raise TypeError(f"services: functions by name, not {services!r}")
        for name, handler in services.items():
            check_handler(f"service {name!r}", handler)
        self.services = dict(services)
        self.areas = areas
        self.buffers = buffers
        self.versions = versions
        self._owner = os.getpid()
        self._thread: threading.Thread | None = None
        self._stop_fd = -1

    def connect(self) -> SeqpacketTransport:
        """A transport to a new life of this remote; the former one ends. `Link` calls it."""
        self.restart()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._stop_fd = os.dup(stop_fd)
        self._owner = os.getpid()
        end = _End(far, stop_fd, self)
        self._thread = threading.Thread(target=end.run, name="sbe-testing-remote", daemon=True)
        self._thread.start()
        return SeqpacketTransport(near)

    def link(self, *, timeout: float = 10.0, geometry: Geometry = DEFAULT_GEOMETRY) -> Connection:
        """A connection to this remote."""
        backend = DirectBackend(seconds(timeout), self)
        try:
            return Connection(backend, geometry=geometry)
        except BaseException:
            backend.close()
            raise

    def restart(self) -> None:
        """Ends the remote's present life, as a crash would."""
        if self._thread is not None and os.getpid() == self._owner:  # not from a forked child
            with contextlib.suppress(OSError):
                os.eventfd_write(self._stop_fd, 1)
            self._thread.join()
            os.close(self._stop_fd)
            self._thread = None

    def close(self) -> None:
        """Ends the remote; waits for a handler that runs."""
        self.restart()

    def leave(self) -> None:
        """Ends the remote when its handler ends, and does not wait for that."""
        if self._thread is not None:
            os.eventfd_write(self._stop_fd, 1)
            os.close(self._stop_fd)
            self._thread = None

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
