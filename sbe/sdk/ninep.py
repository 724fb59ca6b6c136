"""Files that the remote serves by 9P."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, cast

from sbe.sdk.core import Core
from sbe.sdk.ninep_wire import MSIZE_MAX
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from sbe.ninep.export import Export, Link
    from sbe.ninep.session import Quota
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
        msize: int = MSIZE_MAX,
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

    def export_9p(
        self,
        folder: str | os.PathLike[str],
        service: str = "files",
        *,
        writable: bool = False,
        quota: Quota | None = None,
    ) -> Export:
        """Serves a folder by 9P2000.L to the remote, as a service of this name, until it is closed.

        Nothing outside the folder is reached, whatever the remote asks for and links say. `quota`
        bounds what it takes here. Raises BadArgument for what is no folder, or a name that is
        served already; `sbe.Error` where the kernel can't keep a path inside a folder (Linux before
        5.6).
        """
        from sbe.ninep.export import Export

        return Export(cast("Link", self), folder, service, writable, quota)
