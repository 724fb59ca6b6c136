"""Connection: what `sbe.connect()` returns."""

from __future__ import annotations

import contextlib
import weakref
from types import TracebackType
from typing import Any, NoReturn

from sbe.link.rings import DEFAULT_GEOMETRY, Geometry
from sbe.sdk.backend import Backend
from sbe.sdk.byte_streams import ByteStreams
from sbe.sdk.calls import Calls
from sbe.sdk.core import Core
from sbe.sdk.memory import Memory
from sbe.sdk.ninep import Ninep
from sbe.sdk.ownership import close_at_exit, not_copied
from sbe.sdk.power import Power
from sbe.sdk.raws import Raws
from sbe.sdk.services import Services
from sbe.sdk.serving import Server
from sbe.sdk.staging import Stager
from sbe.sdk.streams import Streams
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S, ends_at, in_thread
from sbe.sdk.waits import Waits

__all__ = ["Connection"]

_JOIN_S = 5.0  # for threads that run the application's functions


def give_up(server: Server | None) -> None:
    """What is awaited for answers of the application's ends."""
    if server is not None:
        server.give_up()


class Connection(Calls, Memory, Services, Streams, ByteStreams, Ninep, Raws, Power):
    """A link to a remote, through a daemon or with an embedded one.

    Threads: any thread may call anything at any time; calls of several threads are in flight
    together. asyncio: `acall()` may be used from any number of loops. Closing ends everything.

    Signal handlers and finalisers: `free()` and `close()` may be called at any time; in the middle
    of a control operation of the same thread they are done at its end. Everything else raises
    BadArgument there, and works in the middle of a call. A forked child has to connect again.
    """

    def __init__(
        self, backend: Backend, *, geometry: Geometry = DEFAULT_GEOMETRY, spin_s: float = 0.0
    ) -> None:
        """Takes over a connected backend; applications use `sbe.connect()`."""
        # Nothing that the core or a thread of ours keeps may keep the connection: dropping it
        # closes it.
        self._core = Core(backend, geometry, spin_s)
        self._stager = Stager(self._core)
        self._server = Server(self._core.live_channel, self._core.closing)
        server = weakref.ref(self._server)  # its handlers may know this connection
        self._core.at_end.append(lambda: give_up(server()))
        self._power = None
        self._waits = Waits(self._core)
        self._core.awaited_by(weakref.ref(self._waits))
        close_at_exit(self)

    # -- facts ------------------------------------------------------------------------------

    @property
    def context(self) -> int:
        """Id of this connection's context."""
        return self._core.backend.context

    @property
    def uri(self) -> str:
        """What it is connected to, as `sbe.connect()` takes it."""
        return self._core.backend.uri

    @property
    def epoch(self) -> int:
        """The remote's epoch: another one after it was lost or restarted."""
        return self._core.epoch

    @property
    def slot_size(self) -> int:
        """Bytes of one frame at most."""
        return self._core.channel.slot_size

    @property
    def closed(self) -> bool:
        """close() has been called."""
        return self._core.closed

    def fileno(self) -> int:
        """A descriptor that is readable when calls may have completed; then ask `done()`."""
        return self._core.channel.fileno()

    @property
    def control_fd(self) -> int:
        """A descriptor that is readable when the link's state may have changed."""
        return self._core.backend.control_fd

    def list(self) -> dict[str, Any]:
        """Links, contexts, areas, channels and services, as plain data."""
        with self._core.control() as backend:
            return backend.describe()

    def stat(self) -> dict[str, Any]:
        """Counters of this connection and of its link, as plain data."""
        with self._core.control() as backend:
            channel = self._core.channel
            usage = dict(backend.usage())
            usage["connection"] = {
                "channel": channel.id,
                "context": self.context,
                "losses": self._core.losses,
                "areas": len(self._core.areas),
                **channel.counters(),
            }
            return usage

    # -- life -------------------------------------------------------------------------------

    def restart(self, *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """Ends the remote, also where it hangs, and begins a new life of it: another epoch.

        All calls in flight end with RemoteRestarted; areas live on. It concerns everyone who uses
        the remote. Through a daemon its policy says who may (PermissionDenied, which names the
        key). Raises `sbe.Error` with code EOPNOTSUPP where nothing here can restart the remote,
        LinkError where it fails, Timeout when it is not back within `timeout` seconds; calls try on
        then.
        """
        self._core.restart(ends_at(timeout))

    async def arestart(self, *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """As `restart()`, for asyncio: it runs in another thread, the loop goes on.

        It goes on too when the task is cancelled.
        """
        until = ends_at(timeout)
        await in_thread(until, self._core.restart, until)

    def close(self) -> None:
        """Ends the context: open calls fail, areas are freed, the remote has let go. Idempotent.

        Within a control operation of the same thread it is done at the end of that.
        """
        if self._core.close():
            self._server.join(_JOIN_S)
            self._waits.join(_JOIN_S)
            if self._power is not None:
                self._power.join(_JOIN_S)

    def _let_go_in_child(self) -> None:
        self._core.let_go_in_child()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """As `close()`, for asyncio: the loop goes on meanwhile. Done also when cancelled."""
        import asyncio

        await asyncio.shield(asyncio.to_thread(self.close))

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def __reduce__(self) -> NoReturn:
        not_copied(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"context {self.context}, epoch {self.epoch:#010x}"
        return f"<sbe.Connection: {state}>"
