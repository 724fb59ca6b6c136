"""Who owns what of a connection: its areas, its one operation at a time, and its process."""

from __future__ import annotations

import atexit
import contextlib
import errno
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import NoReturn, Protocol

from sbe import _native
from sbe.errors import (
    AreaFreed,
    BadArgument,
    Error,
    LinkError,
    OutOfResources,
    Timeout,
    resources,
)
from sbe.host.descriptors import close_all
from sbe.link.grants import Grant
from sbe.sdk.area import Area
from sbe.sdk.backend import Backend

__all__ = ["Areas", "Turn", "close_at_exit", "not_copied"]


_SLICE_S = 0.1  # of waiting for another thread's operation; between them handlers of signals run


class Turn:
    """Whose turn it is to ask the control side for something: one operation at a time.

    Thread-safe. `lock` keeps other threads out, and lets its own in again: a signal handler runs in
    the middle of whatever its thread does, and so does a finaliser that the collector calls. What
    must not be begun twice stands in `operation()`, which refuses those.

    Handlers of signals run at the end of an operation, or where it waits for long.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.thread = 0
        """The thread inside an operation, 0 when none is."""
        self._afterwards: deque[Callable[[], object]] = deque()

    @property
    def mine(self) -> bool:
        """An operation is under way in this very thread."""
        return self.thread == threading.get_ident()

    def check(self) -> None:
        """Raises BadArgument inside an operation of this thread; nothing has been done then."""
        if self.mine:
            raise BadArgument(
                "a signal handler or a finaliser has interrupted an operation of this link in the "
                "same thread, which has to end first: only free() and close() may be called there, "
                "and are done afterwards",
                errno.EDEADLK,
            )

    @contextlib.contextmanager
    def held(self, until: float = math.inf) -> Iterator[None]:
        """The lock. Timeout when another thread has it until then, `time.monotonic()`."""
        while True:
            with _native.SignalsHeld():  # a handler that raises finds the lock free, or ours
                left = max(until - time.monotonic(), 0)
                if self.lock.acquire(timeout=min(left, _SLICE_S)):
                    try:
                        yield
                    finally:
                        self.lock.release()
                    return
            if left == 0:
                raise Timeout("another thread's operation of this link has not ended in time")

    @contextlib.contextmanager
    def operation(self) -> Iterator[None]:
        """One operation; `afterwards()` is done at its end. BadArgument within another one."""
        with self.lock, _native.SignalsHeld(), resources("asking the link's control side"):
            self.check()
            self.thread = threading.get_ident()
            try:
                yield
            finally:
                self.thread = 0
                while self._afterwards:
                    self._afterwards.popleft()()

    def afterwards(self, action: Callable[[], object]) -> None:
        """Has something done at the end of the operation that is under way in this thread."""
        self._afterwards.append(action)


def not_copied(this: object) -> NoReturn:
    """What `__reduce__()` of ours raises, as that of the extension's classes does."""
    raise BadArgument(
        f"a {type(this).__name__} can't be pickled or copied, for it belongs to this process and "
        "its link: pass on bytes or a Reply, and call sbe.connect() in the other process"
    )


class Areas:
    """The areas of a connection by id. Serialised by its owner, but for areas that die.

    None is kept alive: one that nobody can reach any more, not even a view of it or a call in
    flight, is freed with the next control operation. Nothing is sent when it dies, for the
    collector runs in any thread and in the middle of anything.
    """

    def __init__(self, table: _native.Table) -> None:
        self._table = table
        self._there: dict[int, weakref.ref[Area]] = {}  # what the remote has
        self._unwanted: deque[int] = deque()  # of them, those to be freed

    def __len__(self) -> int:
        return len(self._there)

    def take(self, backend: Backend, granted: Grant, size_bytes: int) -> Area:
        """The area of what was granted, whose descriptors are closed; its death frees it."""
        try:
            with resources(f"mapping an area of {size_bytes} bytes"):
                area = Area(
                    granted.fd,
                    size_bytes,
                    readonly=bool(granted.flags & _native.AREA_READONLY),
                    trusted=granted.trusted,
                    offset=granted.offset_bytes,
                    sync_fd=granted.sync_fd,
                )
            self._table.add(area, granted.id, backend.context, granted.flags)
        except BaseException:
            with contextlib.suppress(Error):  # why there is no area counts
                backend.free(granted.id)
            raise
        finally:
            close_all((granted.fd, granted.sync_fd))
        self._there[granted.id] = weakref.ref(area)
        # Not the weak reference's callback: that comes before finalisers, which may keep the area
        # after all, and in Python, where a handler of a signal may raise before anything is done.
        area._at_death(self._unwanted.append)
        area.heap = granted.heap
        return area

    def __contains__(self, area: Area) -> bool:
        return area.id in self._there  # no id comes twice in a link's life

    def give_up(self, area: Area) -> None:
        """Has it freed with the next operation."""
        self._unwanted.append(area.id)

    def free(self, number: int, backend: Backend) -> None:
        """Has the remote let go of one; nothing to do if it has. Raises what the backend raises."""
        if number in self._there:
            # AreaFreed: the remote did it after a call that timed out.
            with contextlib.suppress(AreaFreed):
                backend.free(number)
            self._there.pop(number, None)

    def free_unwanted(self, backend: Backend) -> None:
        """Frees those that died or were given up. One that can't be now is tried again next time.

        Raises LinkError and Timeout: what follows would fail too.
        """
        for _ in range(len(self._unwanted)):
            try:
                self.free(self._unwanted[0], backend)
            except (LinkError, Timeout):
                raise
            except BadArgument:  # the backend has none such: freed, and interrupted as we noted it
                self._there.pop(self._unwanted.popleft(), None)
            except Error:
                self._unwanted.rotate(-1)
            else:
                self._unwanted.popleft()

    def refused(self, error: OutOfResources) -> OutOfResources:
        """What a refused allocation says: who holds what, and what helps."""
        return OutOfResources(
            f"{error}; this connection has {len(self)} areas in use, free() gives one back",
            error.code,
        )

    def clear(self) -> list[Area]:
        """Forgets all, and returns those that live."""
        there, self._there = self._there, {}
        self._unwanted.clear()
        return [area for area in (each() for each in there.values()) if area is not None]


class _Open(Protocol):
    def close(self) -> None:
        """Ends it."""

    def _let_go_in_child(self) -> None:
        """Closes what a forked child inherited."""


_open: weakref.WeakSet[_Open] = weakref.WeakSet()


def close_at_exit(connection: _Open) -> None:
    """If still open when the interpreter ends, it says goodbye while threads and modules live.

    A forked child lets go of it at once: the other end is to notice when this process dies.
    """
    _open.add(connection)


def _let_go_in_child() -> None:
    for connection in list(_open):
        connection._let_go_in_child()
    _open.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


@atexit.register
def _close_all() -> None:
    for connection in list(_open):
        connection.close()
