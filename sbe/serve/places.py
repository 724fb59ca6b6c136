"""Where a remote's hosts come to: a socket that it listens at, or a window of shared RAM."""

from __future__ import annotations

import errno
import math
import os
import select
import socket
from time import monotonic
from typing import Protocol

from sbe import _native, errors
from sbe.host import sockets
from sbe.host.descriptors import socket_above_streams
from sbe.remotes.carveout import CarveoutConfig
from sbe.serve.memory import Descriptors, HostMemory, SharedWindow
from sbe.transports import Transport
from sbe.transports.carveout import CarveoutTransport
from sbe.transports.doorbell import Interrupt, open_doorbell
from sbe.transports.seqpacket import SeqpacketTransport
from sbe.transports.window import Window

__all__ = ["Place", "SocketPlace", "WindowPlace"]

_LISTEN = "listen:"
_RETRY_S = 0.5  # between tries of a doorbell that nobody answers yet, or that ends at once
_BACKLOG = 16
_NAME_MAX = 31  # bytes in the window's description


class Place(Protocol):
    """Not thread-safe: it belongs to a `Service`."""

    @property
    def memory(self) -> HostMemory:
        """How memory of the hosts that come here is reached."""
        ...

    def wait(self, stop_fd: int) -> Transport | None:
        """A transport to the next host, for one life; None: `stop_fd` became readable.

        Raises LinkError, OutOfResources: another try may go better.
        """
        ...

    def let_go(self, transport: Transport) -> None:
        """That life has ended."""
        ...

    def close(self) -> None:
        """Lets go of it. Calling twice is fine."""
        ...


class SocketPlace:
    """A unix socket that this end listens at: hosts of this user, one after another."""

    memory: HostMemory = Descriptors()

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Listens; a socket that nobody listens at any more is replaced.

        Raises Busy when somebody does, BadArgument for a path that can't be one, LinkError.
        """
        self._path = os.fspath(path)
        self._sock = sockets.listen(self._path, socket.SOCK_SEQPACKET, _BACKLOG)

    def wait(self, stop_fd: int) -> Transport | None:
        """Returns the next host's."""
        accepted = _accept(self._sock, stop_fd)
        return None if accepted is None else SeqpacketTransport(accepted)

    def let_go(self, transport: Transport) -> None:
        """Hangs up."""
        transport.close()

    def close(self) -> None:
        """Nobody can come any more."""
        sockets.unlisten(self._sock, self._path)


class WindowPlace:
    """A window of shared RAM and a byte stream, as configured for a carve-out link.

    Its doorbell may also be "listen:PATH": a unix socket that this end listens at.
    """

    def __init__(self, config: CarveoutConfig, image: str) -> None:
        """Opens the window and says what this end is: `image`, cut to 31 bytes.

        Raises what `Window` and `sockets.listen()` raise.
        """
        self._doorbell = config.doorbell
        self._image = image.encode()[:_NAME_MAX].decode(errors="ignore")
        self._sock: socket.socket | None = None
        self._next: CarveoutTransport | None = None
        self._opened = -math.inf
        self._window = Window(config.memory, config.offset, config.size, config.map)
        self.memory: HostMemory = SharedWindow(self._window)
        try:
            if config.doorbell.startswith(_LISTEN):
                path = config.doorbell.removeprefix(_LISTEN)
                self._sock = sockets.listen(path, socket.SOCK_STREAM, _BACKLOG)
        except BaseException:
            self._window.close()
            raise

    def wait(self, stop_fd: int) -> Transport | None:
        """Returns one as soon as there is a stream; the host may come later."""
        if self._next is not None:
            return self._go_on(stop_fd)
        # Addresses of this link are offsets into the window: nobody need know where it lies.
        _native.describe_window(self._window.memory, 0, "linux", self._image)
        bell = self._open(stop_fd)
        if bell is None:
            return None
        return CarveoutTransport(self._window, bell, role=_native.ROLE_REMOTE)

    def let_go(self, transport: Transport) -> None:
        """Goes on with it where the host has begun another life.

        That host has seen this end's generation: another one would be another life of this end.
        """
        if isinstance(transport, CarveoutTransport) and transport.peer_restarted:
            self._next = transport
        else:
            transport.close()

    def _go_on(self, stop_fd: int) -> Transport | None:
        """With a host that connects its own stream, if this end listens: the former one's ends."""
        transport, self._next = self._next, None
        assert transport is not None
        try:
            bell = None if self._sock is None else self._open(stop_fd)
            if (self._sock is None or bell is not None) and transport.begin_again(bell):
                transport, again = None, transport
                return again
        finally:
            if transport is not None:
                transport.close()
        return None if self._sock is not None else self.wait(stop_fd)

    def _open(self, stop_fd: int) -> int | Interrupt | None:
        if self._sock is not None:
            accepted = _accept(self._sock, stop_fd)
            return None if accepted is None else accepted.detach()
        while True:
            pause = max(self._opened + _RETRY_S - monotonic(), 0)
            if select.select([stop_fd], [], [], pause)[0]:
                return None
            self._opened = monotonic()
            try:
                return open_doorbell(self._doorbell)
            except errors.BadArgument:
                raise
            except errors.Error:  # whoever listens there may be started later
                continue

    def close(self) -> None:
        """Lets go of the shared RAM."""
        if self._next is not None:
            self._next.close()
        if self._sock is not None:
            sockets.unlisten(self._sock, self._doorbell.removeprefix(_LISTEN))
        self._window.close()


def _accept(sock: socket.socket, stop_fd: int) -> socket.socket | None:
    """The next who connects; None: `stop_fd` became readable.

    Raises OutOfResources, BadArgument for a socket that is one no more.
    """
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(stop_fd, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if stop_fd in ready:
            return None
        if ready[sock.fileno()] & select.POLLNVAL:
            raise errors.BadArgument("something in this process has closed the socket of its hosts")
        try:
            with errors.resources("taking a host's connection"):
                return socket_above_streams(sock.accept()[0])
        except errors.Error as error:
            if error.code not in (errno.EAGAIN, errno.ECONNABORTED):  # it has left again
                raise
