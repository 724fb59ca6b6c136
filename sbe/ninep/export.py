"""An exported folder: a service that the remote opens sessions of 9P2000.L with."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import Generator
from typing import Any, Protocol, Self

from sbe import _native
from sbe.errors import BadArgument, Busy, Error, LinkClosed
from sbe.ninep import wire
from sbe.ninep.folder import Folder
from sbe.ninep.session import Quota, Session
from sbe.sdk.ninep_wire import MESSAGE, OPEN
from sbe.serve.handlers import Answer

__all__ = ["Export"]


class Link(Protocol):
    """What is used of a connection."""

    @property
    def slot_size(self) -> int: ...
    def serve(self, name: str, handler: Any) -> None: ...
    def unserve(self, name: str) -> None: ...
    def submit(self, service: str, *, payload: bytes, timeout: None) -> Shared: ...


class Shared(Protocol):
    """The call that an export is shared as long as: a future, as of `Connection.submit()`."""

    def result(self, timeout: float | None = None) -> Any: ...
    def cancel(self) -> bool: ...
    def done(self) -> bool: ...
    def __await__(self) -> Generator[Any, None, Any]: ...


class Export:
    """Serves a folder to the remote: `Connection.export_9p()`. Thread-safe.

    A call is a message of docs/spec/9p.md. A session lasts as long as the call that opened it: it
    ends, and its descriptors are closed, when the remote gives that up, restarts or dies. Files are
    read and written in the asyncio loop that coroutine handlers of the connection run in, so one
    that blocks, on a network's file system say, has the others wait.
    """

    def __init__(
        self,
        link: Link,
        folder: str | os.PathLike[str],
        service: str,
        writable: bool,
        quota: Quota | None,
    ) -> None:
        """Begins to serve."""
        self._link = link
        self._service = service
        self._writable = writable
        self._quota = quota or Quota()
        self._sessions: dict[int, tuple[Session, asyncio.AbstractEventLoop, asyncio.Event]] = {}
        self._closed = False
        self._lock = threading.Lock()  # of who is open, and whether anybody may be
        self._folder = Folder(folder)
        try:
            link.serve(service, self._answer)
        except BaseException:
            self._folder.close()
            raise

    @property
    def sessions(self) -> int:
        """How many are open."""
        return len(self._sessions)

    def share(self) -> Shared:
        """Has services of the remote read it also when other connections of this user call them.

        That lasts until the future it returns is cancelled, or raises: UnknownService where the
        remote has no service `files`, RemoteError (EEXIST) where this user shares another export,
        RemoteRestarted: share it again then.
        """
        return self._link.submit("files", payload=self._service.encode(), timeout=None)

    def close(self) -> None:
        """Serves no more, and ends the sessions that are open. Idempotent."""
        with contextlib.suppress(Error):  # withdrawn before, or the link is gone
            self._link.unserve(self._service)
        with self._lock:
            self._closed = True
            sessions = list(self._sessions.values())
        if not sessions:
            self._folder.close()
        for _, loop, over in sessions:
            with contextlib.suppress(RuntimeError):  # its loop has ended, and all that was in it
                loop.call_soon_threadsafe(over.set)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _answer(self, payload: bytes, *buffers: memoryview) -> bytes:
        [kind, number], _, rest = wire.unpack("II", memoryview(payload))
        if kind == OPEN:
            await self._hold_session(number)
            raise LinkClosed("the export was closed")
        if kind != MESSAGE:
            raise BadArgument(f"a call of kind {kind} is none of 9P")
        found = self._sessions.get(number)
        if found is None:
            raise Error(f"no session {number} is open", errno.ENOENT)
        if len(buffers) > 1:
            raise BadArgument("a 9P message has one buffer at most")
        written = buffers[0] if buffers and buffers[0].readonly else None
        room = buffers[0] if buffers and not buffers[0].readonly else None
        reply = found[0].answer(bytes(rest), written, room)
        if room is None:
            return reply
        answer = Answer(reply)
        answer.written = (int.from_bytes(reply[:4], "little") - len(reply),)
        return answer

    async def _hold_session(self, number: int) -> None:
        """A session, for as long as nobody cancels this."""
        room = self._link.slot_size - _native.FRAME_HEADER_SIZE
        session = Session(self._folder, self._quota, writable=self._writable, room=room)
        over = asyncio.Event()
        with self._lock:
            self._check_new(number)
            self._sessions[number] = session, asyncio.get_running_loop(), over
        try:
            await over.wait()
        finally:
            session.close()
            self._quota.give_back("sessions")
            with self._lock:
                del self._sessions[number]
                last = self._closed and not self._sessions
            if last:  # not before: the number of its descriptor may be another file's then
                self._folder.close()

    def _check_new(self, number: int) -> None:
        """That there may be one more session, and takes it from the quota."""
        if self._closed:
            raise LinkClosed("the export was closed")
        if number == 0 or number in self._sessions:
            raise Error(f"session {number} can't be opened: it is open, or none", errno.EEXIST)
        try:
            self._quota.take("sessions")
        except OSError as error:
            raise Busy(str(error)) from None
