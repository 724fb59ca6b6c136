"""The private core of a connection: its channel, one control operation at a time, recovery, end.

What applications call stands in `connection` and its parts. Those, asyncio and staging take the
core; nothing here knows of any of them.
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from sbe import _native
from sbe.errors import (
    BadArgument,
    DaemonGone,
    Error,
    LinkClosed,
    LinkError,
    OutOfResources,
    fresh_copy,
)
from sbe.link.grants import ChannelGrant, Grant
from sbe.link.rings import Geometry, attach
from sbe.sdk.area import Area, _Owner
from sbe.sdk.backend import Backend, Service
from sbe.sdk.ownership import Areas, Turn
from sbe.sdk.timeouts import ends_at, time_left
from sbe.serve.handlers import here

__all__ = ["Core", "check_name"]

_SERVICE_MAX = (1 << 16) - 1
_CLOSED = "the connection was closed"


def check_name(name: str) -> None:
    """Raises TypeError or BadArgument for what can't be a service's name."""
    if not isinstance(name, str):
        raise TypeError(f"service: a name, not {name!r}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise BadArgument(f"service: {name!r} is no text: {error.reason}") from None
    if not 0 < size < _native.NAME_SIZE or "\0" in name:
        raise BadArgument(f"a service's name has 1 to 31 bytes: {name!r}")


class _Raw(Protocol):
    def _refresh(self) -> None:
        """Takes answers that have come."""

    def _check_free(self, area: Area) -> None:
        """Raises Busy while firmware may write it."""

    def _end_all(self, error: Error) -> None:
        """The connection has ended."""

    def _let_go_in_child(self) -> None:
        """Closes what a forked child inherited."""


class Core:
    """A backend, the channel over it and the areas of it. Any thread may use it at any time.

    A thread of ours may keep it: a connection that is dropped closes it.
    """

    def __init__(self, backend: Backend, geometry: Geometry, spin_s: float) -> None:
        """Takes over a connected backend."""
        self.backend = backend
        self.turn = Turn()  # of control operations, and which channel is the live one
        self.table = _native.Table(backend.limits["areas"])
        self.areas = Areas(self.table)
        self.ids: dict[str | int | Service, int] = {}
        """Of services that were called, until the remote restarts."""
        self.closed = False
        self.closing = threading.Event()
        """For threads that wait: it has ended."""
        self.at_end: list[Callable[[], object]] = []
        """Called when it ends; nothing here may wait."""
        self.raws: set[_Raw] = set()
        """Endpoints of foreign firmware that are open, or have something in flight."""
        self.losses = 0
        self.epoch = 0
        self._waits: Callable[[], object] | None = None
        self._spin_s = spin_s
        self._geometry = geometry
        self._pid = os.getpid()
        # Kept here: a reference that only garbage has is cleared before a finaliser of that garbage
        # may keep the area after all.
        self._weakly: weakref.ref[_Owner] = weakref.ref(self)
        self._others: dict[_native.Channel, int] = {}  # and the epoch in which each was opened
        self._unwanted: deque[tuple[int, int]] = deque()  # of them, epoch and id of those to close
        self.channel = self._open_channel()
        self.backend.until = math.inf  # connecting has its own

    # -- the channel ------------------------------------------------------------------------

    def live_channel(self, until: float = math.inf) -> _native.Channel:
        """The channel; brings the link back if it was lost since the last call.

        Raises Timeout when that takes beyond `until`, `time.monotonic()`; the next call goes on.
        """
        self.turn.check()
        channel = self.channel
        if channel.error is None:
            return channel
        self.check_process()
        with self.turn.held(until):
            if self.closed:
                raise LinkClosed(_CLOSED)
            if self.channel.error is not None:
                self._recover(self.channel.error, until)
            return self.channel

    def awaited_by(self, waits: Callable[[], object]) -> None:
        """What waits() returns awaits the calls of this channel and of those to come."""
        self._waits = self.channel.waits = waits

    def check_process(self) -> None:
        """Raises LinkError in a forked child."""
        if self._pid != os.getpid():
            raise LinkError(
                "the connection belongs to the process that forked this one: connect again here"
            )

    @contextlib.contextmanager
    def _operation(self, until: float) -> Iterator[None]:
        with self.turn.operation():
            if self.closed:
                raise LinkClosed(_CLOSED)
            self.backend.until = until
            try:
                yield
            finally:
                self.backend.until = math.inf

    def _recover(self, error: BaseException, until: float) -> None:
        if isinstance(error, (DaemonGone, LinkClosed)):
            raise fresh_copy(error)
        with self._operation(until):
            self.backend.recover()
            self.ids.clear()
            self.channel = self._open_channel()
            self.losses += 1

    def _open_channel(self) -> _native.Channel:
        channel = self._attach(self.backend.open_channel(self._geometry, priority=1))
        channel.spin_s = self._spin_s
        channel.waits = self._waits
        return channel

    def open_another(
        self,
        geometry: Geometry,
        priority: int,
        opened: list[_native.Channel],
        until: float = math.inf,
    ) -> _native.Channel:
        """A channel of its own for something that lasts. It fails when the link does.

        It is in `opened` before a handler of a signal can raise, also as this returns: whoever
        called closes what is there.
        """
        with self.control(until) as backend:
            opened.append(self._attach(backend.open_channel(geometry, priority)))
            self._others[opened[-1]] = self.epoch
        return opened[-1]

    def give_up_another(self, channel: _native.Channel) -> None:
        """Has it closed with the next operation; nobody uses it any more. For finalisers too."""
        with _native.SignalsHeld():
            epoch = self._others.pop(channel, None)
            if epoch is None or self.closed or self._pid != os.getpid():
                return
            self._unwanted.append((epoch, channel.id))
            channel.fail(LinkClosed("the channel was closed"))

    def close_another(self, channel: _native.Channel) -> None:
        """Nobody uses it any more: it is closed, within an operation of this thread at its end."""
        self.give_up_another(channel)
        if self._unwanted and not self.turn.mine and not self.closed:
            with self.control():
                pass

    def _free_unwanted(self, backend: Backend) -> None:
        """Closes channels and frees areas that were given up."""
        while self._unwanted:
            epoch, number = self._unwanted[0]
            if epoch == self.epoch:  # else its remote is gone, and the next one knows of none
                backend.close_channel(number)
            self._unwanted.popleft()
        self.areas.free_unwanted(backend)

    def _attach(self, granted: ChannelGrant) -> _native.Channel:
        control = weakref.WeakMethod(self.process_control)

        def on_control() -> None:
            process = control()
            if process is not None:
                process()

        try:
            channel = attach(
                granted.rings,
                self.table,
                granted.id,
                self.backend.context,
                control_fd=self.backend.control_fd,
                on_control=on_control,
                max_buffers=self.backend.limits["buffers"],
            )
        except BaseException:
            self.backend.close_channel(granted.id)
            raise
        finally:
            granted.rings.close()
        self.epoch = granted.epoch
        return channel

    # -- control operations -----------------------------------------------------------------

    def process_control(self, *, wait: bool = True) -> bool:
        """The control descriptor is readable: the link's state may have changed.

        False, only unless `wait`: not now, another thread is in a control operation.
        """
        self.check_process()
        if wait:
            with self.turn.lock:
                self._take_news()
            return True
        with _native.SignalsHeld():  # a handler that raises finds the lock free, or taken and noted
            if not self.turn.lock.acquire(blocking=False):
                return False
            try:
                self._take_news()
            finally:
                self.turn.lock.release()
        return True

    def notice(self, channel: _native.Channel) -> None:
        """Hears of a remote that is gone, for who waits for memory, which does not say so."""
        if channel.error is None and not self.closed:
            self.process_control(wait=False)

    def _take_news(self) -> None:
        with self.turn.operation():
            error = None if self.closed else self.backend.process_control()
        if error is not None:
            self._fail(error)  # what hears of it may use the link

    def _fail(self, error: BaseException) -> None:
        self.channel.fail(error)
        for channel in list(self._others):
            channel.fail(error)

    @contextlib.contextmanager
    def control(self, until: float = math.inf) -> Iterator[Backend]:
        """One control operation: the lock, a live channel before, and a lost link noticed after.

        Handlers of signals run where it waits, and after it. Whatever it raises, the channel is
        usable afterwards or has failed. It ends by `until`, `time.monotonic()`, with Timeout.
        """
        self.check_process()
        with self.turn.held(until):
            self.live_channel(until)
            try:
                with self._operation(until):
                    self._free_unwanted(self.backend)
                    yield self.backend
                    with contextlib.suppress(Error):  # the next operation will tell
                        self._free_unwanted(self.backend)
            except Error as error:
                self.process_control()
                if type(error) is LinkError and self.channel.error is not None:
                    raise fresh_copy(self.channel.error) from error  # says how the link was lost
                raise
            self.process_control()  # it may have succeeded because the remote is gone
            if self.closed:
                raise LinkClosed(_CLOSED)

    def restart(self, until: float) -> None:
        """Has the remote ended and brings the link back. Raises Timeout; the next call goes on."""
        self.check_process()
        with self.turn.held(until):
            with self._operation(until):
                self.backend.restart()
            self.process_control()
            self.live_channel(until)

    # -- services and areas -----------------------------------------------------------------

    def find(self, name: str, version: int, until: float = math.inf) -> Service:
        """A service of the remote by name, at least of that version. Raises UnknownService."""
        check_name(name)
        with self.control(until) as backend:
            service = backend.find_service(name, version)
            self.channel.names[service.id] = name
            self.ids[name] = service.id
            return service

    def _service_id(self, service: str | int | Service, until: float) -> int:
        if isinstance(service, str):
            number = self.ids.get(service)
            return self.find(service, 0, until).id if number is None else number
        number = service.id if isinstance(service, Service) else service
        try:
            number = operator.index(number)
        except TypeError:
            raise TypeError(
                f"service: a name, a number or a Service, not {type(service)!r}"
            ) from None
        if not 0 <= number <= _SERVICE_MAX:
            raise BadArgument(f"service: {number} is not between 0 and {_SERVICE_MAX}")
        if isinstance(service, Service):
            self.channel.names[number] = service.name
        self.ids[service] = number
        return number

    def prepare(
        self, service: str | int | Service, timeout: float | None
    ) -> tuple[_native.Channel, int, float | None]:
        """A live channel, the id of a service and what is left of a call's timeout.

        The id is remembered; a name that was not yet called is asked for. Raises Timeout.
        """
        until = ends_at(timeout)
        return *self.prepare_until(service, until), time_left(until)

    def prepare_until(
        self, service: str | int | Service, until: float
    ) -> tuple[_native.Channel, int]:
        """The same for a timeout that has begun, and is over at `until`."""
        return self.live_channel(until), self._service_id(service, until)

    def allocate(self, size_bytes: int, heap: str | None, until: float = math.inf) -> Area:
        """Memory that both ends reach."""

        def grant(backend: Backend) -> Grant:
            try:
                return backend.allocate(size_bytes, heap)
            except OutOfResources as error:
                raise self.areas.refused(error) from error

        return self.new_area(grant, size_bytes, until)

    def new_area(
        self,
        grant: Callable[[Backend], Grant],
        size_bytes: int | None = None,
        until: float = math.inf,
    ) -> Area:
        """The area of what grant(backend) asks for."""
        area: Area | None = None
        try:
            with self.control(until) as backend:
                granted = grant(backend)
                # The heap rounds up to pages; the application sees what it asked for.
                area = self.areas.take(backend, granted, size_bytes or granted.size_bytes)
                area._owner = self._weakly
        except BaseException:
            if area is not None:  # interrupted at the very end
                area.free()
            raise
        return area

    def free(self, area: Area) -> None:
        """Has the remote let go of an area; nothing to do if it has."""
        self.check_process()
        # Within an operation; or by a handler, or a finaliser that runs there: nobody would answer.
        if self.turn.mine or here.is_remote:
            self._disown(area)
            return
        for raw in list(self.raws):
            raw._refresh()
        with self.turn.lock:
            if self.closed or area not in self.areas:
                return
            self._take_out(area)
            with self.control() as backend:
                self.areas.free(area.id, backend)

    def _take_out(self, area: Area) -> None:
        """No new call may name it. Raises Busy."""
        for raw in list(self.raws):
            raw._check_free(area)
        if not area.freed:
            self.table.remove(area)

    def _disown(self, area: Area) -> None:
        """Has the operation under way free it at its end, or the next one."""
        if not self.closed and area in self.areas:
            self._take_out(area)
            self.areas.give_up(area)

    # -- the end ----------------------------------------------------------------------------

    def close(self) -> bool:
        """Ends the context. False: not by this call, but at the end of the operation that is under
        way in this thread, or never as this is a forked child.
        """
        if self._pid != os.getpid():
            return False  # a forked child has copies of everything, but the link is its parent's
        with self.turn.lock, _native.SignalsHeld():
            if self.turn.mine:
                self.turn.afterwards(self._end)
                return False
            self._end()
        return True

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        # First: what ends below is answered to the remote as an error, which would answer with it.
        self._fail(LinkClosed(_CLOSED))
        for raw in list(self.raws):
            raw._end_all(LinkClosed(_CLOSED))
        self.closing.set()
        while self.at_end:
            self.at_end.pop()()
        try:
            self.backend.close()
        finally:  # also when whoever closes is interrupted
            for area in self.areas.clear():
                self.table.remove(area, True)

    def let_go_in_child(self) -> None:
        """Forked, with the locks as other threads had them: closes what this process inherited."""
        self.turn = Turn()
        with contextlib.suppress(Exception):
            self.backend.close()
        for channel in (self.channel, *self._others):
            channel.let_go_in_child()
        for raw in self.raws:
            raw._let_go_in_child()
        for area in self.areas.clear():
            self.table.remove(area, True)
