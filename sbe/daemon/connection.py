"""One client's connection: varlink within bounds that no client can push further."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from asyncvarlink import (
    FileDescriptorArray,
    VarlinkErrorReply,
    VarlinkInterfaceServerProtocol,
    VarlinkMethodCall,
    VarlinkTransport,
)

from sbe.daemon.client import Broker, Client
from sbe.daemon.service import make_registry, refusal

__all__ = ["ClientConnection", "ClientTransport", "Misbehaviour"]

_log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 30.0  # for the first whole call
SEND_SECONDS = 30.0  # for replies to be taken
MESSAGE_MAX = 64 * 1024  # bytes of one call
CALLS_MAX = 64  # sent ahead of their answers
UNSENT_MAX = 4 << 20  # bytes of replies that were not taken

_NO_MEMORY = "no memory for a call or its answer"  # who waits for one hears of it


class Misbehaviour(Exception):
    """A client left the bounds; its connection ends. Leaves the transport's reading loop."""


class _Watched:
    """The loop, for a transport that ends when the loop can't watch its descriptor.

    The transport asks for that from callbacks, whose errors reach nobody: without this a client
    would wait for ever. The kernel refuses when it has no memory, or at the limit of what a user
    may watch. Nor is there anybody for what fails when the descriptor is ready: what had been
    received then is lost, and who sent it would wait for an answer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: ClientTransport) -> None:
        self._loop = loop
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def add_reader(self, fd: Any, callback: Callable[[], None]) -> None:
        self._watch(self._loop.add_reader, fd, callback)

    def add_writer(self, fd: Any, callback: Callable[[], None]) -> None:
        self._watch(self._loop.add_writer, fd, callback)

    def _watch(self, watch: Callable[..., None], fd: Any, callback: Callable[[], None]) -> None:
        def ready() -> None:
            try:
                callback()
            except MemoryError:
                self._end(_NO_MEMORY)

        try:
            watch(fd, ready)
        except OSError as error:
            self._end(f"it can't be watched: {error.strerror}")

    def _end(self, why: str) -> None:
        _log.warning("connection dropped: %s", why)
        self._transport.abort()


class ClientTransport(VarlinkTransport):
    """Clients have no descriptors to send: none is taken, the kernel drops them."""

    MAX_RECV_FDS = 0

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: ClientConnection,
    ) -> None:
        watched = cast(asyncio.AbstractEventLoop, _Watched(loop, self))
        super().__init__(watched, sock, sock, protocol)


class ClientConnection(VarlinkInterfaceServerProtocol):
    """The protocol object of one connection. Not thread-safe: it belongs to the loop.

    Timers are armed until the first call, and while replies are not taken; never when idle.
    """

    def __init__(
        self,
        client: Client,
        broker: Broker,
        on_closed: Callable[[ClientConnection], None],
    ) -> None:
        super().__init__(make_registry(client, broker))
        self.client = client
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._handshake: asyncio.TimerHandle | None = self._loop.call_later(
            HANDSHAKE_SECONDS, self._drop, f"no call within {HANDSHAKE_SECONDS:g} s"
        )
        self._sending: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0
        self._unsent = 0
        self._partial_bytes = 0
        self._calls = 0
        self._wire: VarlinkTransport | None = None
        self._lost = False

    # -- what the client sends -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport: the base class forgets it before it is closed."""
        super().connection_made(transport)
        assert isinstance(transport, VarlinkTransport)
        self._wire = transport

    def message_received(self, data: bytes, fds: FileDescriptorArray | None) -> None:
        """Takes bytes; calls in them are queued."""
        if self._lost:
            raise Misbehaviour
        calls = data.count(b"\0")
        self._calls += calls
        tail = len(data) - (data.rfind(b"\0") + 1)
        self._partial_bytes = tail + (0 if calls else self._partial_bytes)
        if max(len(data), self._partial_bytes) > MESSAGE_MAX:
            self._misbehave(f"a call of more than {MESSAGE_MAX} bytes")
        if self._calls > CALLS_MAX:
            self._misbehave(f"more than {CALLS_MAX} calls ahead of their answers")
        try:
            super().message_received(data, fds)
        except (ValueError, RecursionError) as error:
            self._misbehave(f"no JSON: {type(error).__name__}")
        except MemoryError:
            self._drop(_NO_MEMORY)

    def request_received(
        self, obj: dict[str, Any], fds: FileDescriptorArray | None
    ) -> asyncio.Future[None] | None:
        """Begins one call."""
        self._calls -= 1
        if self._lost:
            return None
        try:
            begun: asyncio.Future[None] | None = super().request_received(obj, fds)
        except MemoryError:
            self._drop(_NO_MEMORY)
            return None
        return begun

    def error_received(self, err: Exception, data: bytes, fds: FileDescriptorArray | None) -> None:
        """Something that is no JSON object: what comes after it can't be trusted either."""
        self._calls -= 1
        self._drop(f"no JSON object: {type(err).__name__}")

    def call_received(
        self, call: VarlinkMethodCall, fds: FileDescriptorArray | None
    ) -> asyncio.Future[None] | None:
        """Answers one call."""
        if self._handshake is not None:
            self._handshake.cancel()
            self._handshake = None
        begun: asyncio.Future[None] | None = super().call_received(call, fds)
        return begun

    def handle_call_exception(self, exc: BaseException, oneway: bool) -> None:
        """Whatever a method did not foresee."""
        if isinstance(exc, VarlinkErrorReply):
            raise exc
        raise refusal(exc)

    # -- what it is sent -----------------------------------------------------------------------

    def send_message(
        self, obj: dict[str, Any], fds: list[int] | None = None, autoclose: bool = True
    ) -> asyncio.Future[None]:
        """Queues a reply; a client that takes none of them is dropped."""
        try:
            sent = super().send_message(obj, fds, autoclose)
        except MemoryError:
            self._drop(_NO_MEMORY)
            raise
        if sent.done():
            return sent
        size = len(str(obj))  # near enough
        self._unsent += 1
        self._unsent_bytes += size
        self._watch_sending()
        sent.add_done_callback(partial(self._reply_sent, size))
        if self._unsent_bytes > UNSENT_MAX:
            self._drop(f"{self._unsent_bytes} bytes of replies were not taken")
        return sent

    def _reply_sent(self, size: int, sent: asyncio.Future[None]) -> None:
        error = None if sent.cancelled() else sent.exception()
        if error is not None and not isinstance(error, ConnectionError):  # a client that has gone
            self._drop(f"a reply can't be sent: {error}")  # else who asked would wait for it
        self._unsent -= 1
        self._unsent_bytes -= size
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        self._watch_sending()

    def _watch_sending(self) -> None:
        """Every reply that is taken gives those behind it their time again."""
        if self._unsent and self._sending is None and not self._lost:
            self._sending = self._loop.call_later(
                SEND_SECONDS, self._drop, f"a reply was not taken within {SEND_SECONDS:g} s"
            )

    # -- the end -------------------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, for whatever reason."""
        self._lost = True
        for timer in (self._handshake, self._sending):
            if timer is not None:
                timer.cancel()
        self._handshake = self._sending = None
        super().connection_lost(exc)
        self._on_closed(self)

    def abort(self) -> None:
        """Ends the connection now."""
        self._lost = True
        if self._wire is not None:
            self._wire.abort()

    def _drop(self, why: str) -> None:
        if self._lost:
            return
        peer = self.client.peer
        _log.warning("connection dropped: %s", why, extra={"pid": peer.pid, "uid": peer.uid})
        self.abort()

    def _misbehave(self, why: str) -> None:
        self._drop(why)
        raise Misbehaviour
