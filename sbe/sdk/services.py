"""Services: what the remote offers, and what the application offers to it."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from sbe.errors import BadArgument
from sbe.sdk.backend import Service
from sbe.sdk.core import Core, check_name
from sbe.sdk.serving import CoroutineHandler, Server
from sbe.sdk.waits import Waits
from sbe.serve.handlers import Handler, check_handler, is_coroutine

if TYPE_CHECKING:
    import asyncio

__all__ = ["Services"]

_VERSION_MAX = (1 << 16) - 1  # as wide as it is on the wire


class Services:
    """Finding and offering services over a connection. Thread-safe."""

    _core: Core
    _server: Server
    _waits: Waits

    def services(self) -> list[Service]:
        """The services of the remote."""
        with self._core.control() as backend:
            services = backend.services()
            # What is called by number is named in errors, too.
            self._core.channel.names.update({each.id: each.name for each in services})
            return services

    def find(self, name: str, version: int = 0) -> Service:
        """A service of the remote by name, at least of that version. Raises UnknownService."""
        return self._core.find(name, version)

    def serve(self, name: str, handler: Handler | CoroutineHandler, *, version: int = 1) -> None:
        """Offers a service to the remote: handler(payload, *buffers) -> bytes or None.

        Handlers run one after the other in a thread of their own; buffers are memoryviews, those
        the remote gave as In read-only. An `sbe.Error` raised there is the remote's status.
        Anything else that it raises, and an answer that can't be sent, is logged, and EIO there
        (ENOSPC: an answer larger than a frame); other requests go on.

        A coroutine function runs in the asyncio loop in which `serve()` was called, which has to
        go on running, else in a loop of the connection's. Other requests are answered meanwhile.
        It is cancelled when the remote gives its request up, and when the connection is
        closed. BadArgument for what is neither.
        """
        check_name(name)
        if not 0 <= (version := operator.index(version)) <= _VERSION_MAX:
            raise BadArgument(f"version: {version} is not between 0 and {_VERSION_MAX}")
        check_handler(f"service {name!r}", handler, awaits=True)
        loop = self._loop_for(handler)
        with self._core.control() as backend:
            if self._server.offers(name):
                raise BadArgument(f"service {name!r} is served already")
            self._server.add(name, handler, lambda: backend.serve(name, version), loop)

    def _loop_for(self, handler: Handler | CoroutineHandler) -> asyncio.AbstractEventLoop | None:
        if not is_coroutine(handler):
            return None
        import asyncio

        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            return self._waits.loop()

    def unserve(self, name: str) -> None:
        """Withdraws a service."""
        with self._core.control() as backend:
            if not self._server.offers(name):
                raise BadArgument(f"service {name!r} is not served")
            backend.unserve(name)
            self._server.remove(name)
