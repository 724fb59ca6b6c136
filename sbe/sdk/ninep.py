"""Files that the remote serves by 9P."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from sbe.sdk.core import Core
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from sbe.sdk.ninep_bridge import Bridge

__all__ = ["Ninep"]


class Ninep:
    """A connection's sessions of 9P."""

    _core: Core

    def bridge_9p(
        self,
        sock: socket.socket,
        service: str = "9p",
        *,
        msize: int = (1 << 20) + 24,
        heap: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> Bridge:
        """Opens a session with a service of the remote that speaks 9P2000.L, for a client at the
        other end of `sock`, a connected stream socket, which is the bridge's when this returns.

        `Bridge.run()` passes messages on until the client leaves. `msize` is the most bytes of a
        message, 512 to 1 MiB and 24; the client and the remote may agree on less. `heap` as in
        `allocate()`. `timeout`, seconds: what the remote has to answer a message in. Raises
        UnknownService, RemoteError (EBUSY: it has as many sessions as it may), ProtocolError for a
        service that does not speak it.
        """
        from sbe.sdk.ninep_bridge import Bridge

        return Bridge(self._core, service, sock, msize, heap, timeout)
