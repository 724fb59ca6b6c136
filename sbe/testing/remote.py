"""For tests: a remote whose services are Python functions, in a thread of this process.

    def double(payload, *buffers):
        return payload * 2

    with sbe.testing.Remote({"double": double}) as remote, remote.link() as link:
        assert link.call("double", payload=b"ab").payload == b"abab"

It runs the same C core as firmware does, in the remote's role, over the same messages and rings.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Mapping
from types import TracebackType

from sbe import _native, remotes
from sbe.errors import LinkError
from sbe.link.rings import DEFAULT_GEOMETRY, Geometry
from sbe.sdk.connection import Connection
from sbe.sdk.direct import DirectBackend
from sbe.sdk.timeouts import seconds
from sbe.serve.handlers import Handler, check_handler
from sbe.serve.life import Life, Limits
from sbe.serve.memory import Descriptors
from sbe.transports.seqpacket import SeqpacketTransport

__all__ = ["Remote"]


def _live(life: Life, transport: SeqpacketTransport, stop_fd: int) -> None:
    with contextlib.suppress(LinkError):  # the host hung up
        try:
            life.run(stop_fd)
        finally:
            transport.close()
            os.close(stop_fd)


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
    _life = Life

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
        transport = SeqpacketTransport(far)
        life = self._life(
            transport,
            Descriptors(),
            self.services,
            name="sbe.testing",
            limits=Limits(self.areas, self.buffers, self.versions),
        )
        self._thread = threading.Thread(
            target=_live, args=(life, transport, stop_fd), name="sbe-testing-remote", daemon=True
        )
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
