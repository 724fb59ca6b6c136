"""Connection: what `sbe.connect()` returns."""

from __future__ import annotations

import contextlib
import operator
import os
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from sbe import _native
from sbe.errors import (
    BadArgument,
    DaemonGone,
    Error,
    LinkClosed,
    LinkError,
    OutOfResources,
    PermissionDenied,
    again,
)
from sbe.link.grants import Grant
from sbe.link.rings import DEFAULT_GEOMETRY, Geometry, attach
from sbe.sdk.area import Area
from sbe.sdk.backend import Backend, Service
from sbe.sdk.batch import BatchResult, run_batch
from sbe.sdk.handlers import check_handler
from sbe.sdk.ownership import Areas, Turn, close_at_exit, not_copied
from sbe.sdk.power import PowerHandler, PowerListener
from sbe.sdk.serving import Handler, Server
from sbe.sdk.staging import StagedCall, Stager, stage, stage_async

if TYPE_CHECKING:
    import asyncio

    from sbe.sdk.aio import Pump

__all__ = ["Connection"]

_DEFAULT_TIMEOUT_S = 30.0
"""A call without a deadline of its own ends after this: never a hang. None waits for ever."""


_CLOSED = "the connection was closed"


def _submission(
    channel: _native.Channel,
    service: int,
    payload: Any,
    timeout: float | None,
    wait: bool = True,
) -> Callable[[tuple[_native.Buffer, ...]], _native.Call]:
    """Submits with buffers to come. In a function of its own: where a closure holds variables, each
    call makes them anew, also those that never need it."""
    return lambda staged: channel.submit(service, staged, payload, timeout, wait)


class Connection:
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
        self._backend = backend
        self._spin_s = spin_s
        self._geometry = geometry
        self._turn = Turn()  # of control operations, and which channel is the live one
        self._closed = False
        self._pid = os.getpid()
        self._table = _native.Table(backend.limits["areas"])
        self._areas = Areas(self._table)
        self._ids: dict[str | int | Service, int] = {}  # of services, until the remote restarts
        self._pumps: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pump] = (
            weakref.WeakKeyDictionary()
        )
        # None of these keeps the connection alive: dropping it closes it.
        self._stager = Stager(weakref.ref(self))
        self._server = Server(weakref.ref(self))
        self._power: PowerListener | None = None
        self.starved: set[Pump] = set()
        """Loops that wait for room in the ring, so that whoever hears of room can tell them."""
        self._losses = 0
        self.epoch = 0
        self._channel = self._open_channel()
        close_at_exit(self)

    # -- calling ----------------------------------------------------------------------------

    def call(
        self,
        service: str | int | Service,
        *buffers: _native.Buffer,
        payload: Any = b"",
        timeout: float | None = _DEFAULT_TIMEOUT_S,
    ) -> _native.Reply:
        """Calls a service of the remote and waits for its reply.

        `buffers` are sbe.In(x), sbe.Out(x), sbe.InOut(x) or sbe.Shared(x), with x an area, a slice
        of one, a contiguous numpy array of numbers or any bytes. What lies in an area goes by
        reference; the rest is copied, inline if small. `payload` are the bytes of the message
        itself, as many as one frame holds. `timeout` is in seconds; None waits for ever.

        Raises UnknownService, RemoteError, Timeout, RemoteRestarted, BadArgument and its kin.
        """
        channel = self._channel
        number = self._ids.get(service)
        if number is None or channel.error is not None or self._turn.thread:
            channel = self._live_channel()
            number = self._service_id(service)
        try:
            return channel.call(number, buffers, payload, timeout)
        except _native.NeedsStaging:
            pass  # left before what staging may raise
        send = _submission(channel, number, payload, timeout)
        return self._submit_staged(send, buffers).result()

    def submit(
        self,
        service: str | int | Service,
        *buffers: _native.Buffer,
        payload: Any = b"",
        timeout: float | None = _DEFAULT_TIMEOUT_S,
        wait: bool = True,
    ) -> _native.Call | StagedCall:
        """Sends a call and returns at once a future: result(), exception(), done(), cancel().

        Many may be in flight; they complete in the remote's order. With the ring full it waits for
        room, or raises WouldBlock if `wait` is False. `timeout` runs from now.
        """
        channel = self._channel
        number = self._ids.get(service)
        if number is None or channel.error is not None or self._turn.thread:
            channel = self._live_channel()
            number = self._service_id(service)
        try:
            return channel.submit(number, buffers, payload, timeout, wait)
        except _native.NeedsStaging:
            pass
        return self._submit_staged(_submission(channel, number, payload, timeout, wait), buffers)

    async def acall(
        self,
        service: str | int | Service,
        *buffers: _native.Buffer,
        payload: Any = b"",
        timeout: float | None = _DEFAULT_TIMEOUT_S,
    ) -> _native.Reply:
        """As `call()`, for asyncio. Cancelling the task cancels the call at the remote."""
        import asyncio  # on first use: plain programs do without its weight

        from sbe.sdk.aio import Pump

        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        number = self._ids.get(service)
        self._turn.check()
        if number is None or self._channel.error is not None:
            # Control operations may wait for the remote: not in the loop's thread.
            number = await asyncio.to_thread(self._prepare, service)
        channel = self._channel
        pump = self._pumps.get(loop)
        if pump is None or pump.channel is not channel:
            pump = Pump.make(self, channel, loop, self._pumps)
        call: _native.Call | StagedCall
        try:
            call = await pump.submit(
                lambda left: channel.submit(number, buffers, payload, left, False), deadline
            )
            return await pump.wait(call, deadline)
        except _native.NeedsStaging:
            pass  # left before what staging may raise
        staged = await stage_async(self._stager, self._table, buffers)
        try:
            call = await pump.submit(
                lambda left: staged.begin(
                    channel.submit(number, staged.buffers, payload, left, False)
                ),
                deadline,
            )
        except BaseException:
            staged.abort()
            raise
        return await pump.wait(call, deadline)

    def send(
        self,
        service: str | int | Service,
        *buffers: _native.Buffer,
        payload: Any = b"",
        timeout: float | None = _DEFAULT_TIMEOUT_S,
    ) -> None:
        """Fire and forget: a message that nobody answers.

        Its buffers must lie in areas (or be small): there is no answer to tell when the remote is
        done with them, so ownership is the application's own agreement with the service. A message
        does not keep an area either: keep it as long as that agreement says.
        """
        try:
            self._live_channel().send(self._service_id(service), buffers, payload, timeout)
        except _native.NeedsStaging:
            raise BadArgument(
                "a message's large data must lie in an area: nobody would say when a copy of it "
                "is free again"
            ) from None

    def sync(
        self, *buffers: _native.Buffer, timeout: float | None = _DEFAULT_TIMEOUT_S
    ) -> _native.Reply:
        """Hands buffers over and back without calling a service: caches are maintained."""
        try:
            return self._live_channel().sync(0, buffers, b"", timeout).result()
        except _native.NeedsStaging:
            raise BadArgument("only memory of an area can be synchronised") from None

    def batch(
        self,
        service: str | int | Service,
        descriptors: Any,
        payloads: Any = None,
        *,
        reply_size: int = 0,
        timeout: float | None = _DEFAULT_TIMEOUT_S,
    ) -> BatchResult:
        """Thousands of calls of one service at once.

        `descriptors`: numpy array of `sbe.buffer_dtype()`, shape (calls, buffers per call), made
        with `Area.descriptors()`. `payloads`: None, or uint8 of shape (calls, bytes). `reply_size`:
        bytes of each reply's payload to keep. Returns when all are answered; each call's status is
        in the result. Raises Timeout if some are not answered in time.
        """
        return run_batch(
            self._live_channel(),
            self._service_id(service),
            descriptors,
            payloads,
            reply_size,
            timeout,
        )

    def _submit_staged(
        self,
        send: Callable[[tuple[_native.Buffer, ...]], _native.Call],
        buffers: tuple[_native.Buffer, ...],
    ) -> StagedCall:
        staged = stage(self._stager, self._table, buffers)
        try:
            return staged.begin(send(staged.buffers))
        except BaseException:
            staged.abort()
            raise

    # -- memory -----------------------------------------------------------------------------

    def allocate(self, size_bytes: int, *, heap: str | None = None) -> Area:
        """Memory that both ends reach, zeroed. `heap` names where from, None the default.

        Raises BadArgument for a size that can't be, PermissionDenied beyond the quota,
        OutOfResources when there is none.
        """
        size_bytes = operator.index(size_bytes)
        if size_bytes <= 0:
            raise BadArgument(f"an area of {size_bytes} bytes")
        try:
            return self._allocate(size_bytes, heap)
        except (PermissionDenied, OutOfResources):
            if not self._stager.shrink():
                raise
        return self._allocate(size_bytes, heap)  # what staging keeps for later is wanted now

    def _allocate(self, size_bytes: int, heap: str | None) -> Area:
        def grant(backend: Backend) -> Grant:
            try:
                return backend.allocate(size_bytes, heap)
            except OutOfResources as error:
                raise self._areas.refused(error) from error

        return self._new_area(grant, size_bytes)

    def regions(self) -> dict[str, int]:
        """Memory that the remote owns and offers, its log or a sensor's buffer: bytes by name."""
        with self._control() as backend:
            return backend.regions()

    def region(self, name: str) -> Area:
        """Memory that the remote owns and offers, as an area that only the remote writes.

        It may change at any time: `bytes(area)` is a copy that stays. Calls take it as sbe.In.
        Raises BadArgument for a name that is not in `regions()`.
        """
        return self._new_area(lambda backend: backend.open_region(name))

    def _new_area(self, grant: Callable[[Backend], Grant], size_bytes: int | None = None) -> Area:
        area: Area | None = None
        try:
            with self._control() as backend:
                granted = grant(backend)
                # The heap rounds up to pages; the application sees what it asked for.
                area = self._area(backend, granted, size_bytes or granted.size_bytes)
        except BaseException:
            if area is not None:  # interrupted at the very end
                area.free()
            raise
        return area

    def _area(self, backend: Backend, granted: Grant, size_bytes: int) -> Area:
        area = self._areas.take(backend, granted, size_bytes)
        area._connection = weakref.ref(self)
        return area

    def _free(self, area: Area) -> None:
        self._check_process()
        with self._turn.lock:
            if self._closed or area not in self._areas:
                return
            self._table.remove(area)  # first: no new call may name it
            if self._turn.mine:
                self._areas.give_up(area)  # the operation frees it at its end
                return
            with self._control() as backend:
                self._areas.free(area.id, backend)

    # -- services ---------------------------------------------------------------------------

    def services(self) -> list[Service]:
        """The services of the remote."""
        with self._control() as backend:
            return backend.services()

    def find(self, name: str, version: int = 0) -> Service:
        """A service of the remote by name, at least of that version. Raises UnknownService."""
        with self._control() as backend:
            service = backend.find_service(name, version)
            self._channel.names[service.id] = name
            self._ids[name] = service.id
            return service

    def serve(self, name: str, handler: Handler, *, version: int = 1) -> None:
        """Offers a service to the remote: handler(payload, *buffers) -> bytes or None.

        Handlers run one after the other in a thread of their own; buffers are memoryviews, those
        the remote gave as In read-only. An `sbe.Error` raised there is the remote's status.
        Anything else that it raises, and an answer that can't be sent, is logged, and EIO there
        (ENOSPC: an answer larger than a frame); other requests go on. BadArgument for what is no
        plain function.
        """
        check_handler(f"service {name!r}", handler)
        with self._control() as backend:
            if self._server.offers(name):
                raise BadArgument(f"service {name!r} is served already")
            if not 0 < len(name.encode()) < _native.NAME_SIZE or "\0" in name:
                raise BadArgument(f"a service's name has 1 to 31 bytes: {name!r}")
            self._server.add(name, handler, lambda: backend.serve(name, version))

    def unserve(self, name: str) -> None:
        """Withdraws a service."""
        with self._control() as backend:
            if not self._server.offers(name):
                raise BadArgument(f"service {name!r} is not served")
            backend.unserve(name)
            self._server.remove(name)

    def _service_id(self, service: str | int | Service) -> int:
        if isinstance(service, str):
            number = self._ids.get(service)
            return self.find(service).id if number is None else number
        number = service.id if isinstance(service, Service) else service
        self._ids[service] = number
        return number

    def _prepare(self, service: str | int | Service) -> int:
        self._live_channel()
        return self._service_id(service)

    # -- power ------------------------------------------------------------------------------

    def suspend(self, *, timeout_s: float = _DEFAULT_TIMEOUT_S) -> None:
        """Asks the remote to run nothing and to leave memory alone until `resume()`.

        Calls made meanwhile wait in the ring, with their deadlines. It concerns everyone who uses
        the link. A remote that restarts is not suspended any more. Raises Busy while the remote
        keeps requests open, what else its board answers, and PermissionDenied from the daemon.
        """
        self._request_power("suspend", 0, timeout_s)

    def resume(self, *, timeout_s: float = _DEFAULT_TIMEOUT_S) -> None:
        """Ends `suspend()`; what waits is done at once."""
        self._request_power("resume", 0, timeout_s)

    def request_frequency(self, khz: int, *, timeout_s: float = _DEFAULT_TIMEOUT_S) -> None:
        """Asks the remote to run at this frequency; 0: as it likes.

        Raises `sbe.Error` with code EOPNOTSUPP where the board can't.
        """
        self._request_power("frequency", operator.index(khz), timeout_s)

    def on_power(self, handler: PowerHandler | None) -> None:
        """Who decides on what the remote asks: handler("suspend", "resume" or "frequency", kHz).

        It runs in a thread of its own. Returning says that it is done, an `sbe.Error` why not.
        After "suspend" the application itself has to leave areas alone. None: the remote is told
        that nobody does this, as before the first call. BadArgument over a daemon, which has
        [link.power] for it, and for what is no plain function.
        """
        if handler is not None:
            check_handler("power", handler)
        with self._control() as backend:
            listener = None if handler is None else PowerListener(weakref.ref(self), handler)
            try:
                if listener is not None:
                    listener.start(backend.control_fd)
                backend.listen_power(None if listener is None else listener.heard)
            except BaseException:
                if listener is not None:
                    listener.close()
                raise
            if self._power is not None:
                self._power.close()
            self._power = None
            self._power = listener

    def _request_power(self, request: str, khz: int, timeout_s: float) -> None:
        if not 0 <= khz < 1 << 32:
            raise BadArgument(f"a frequency of {khz} kHz")
        with self._control() as backend:
            backend.request_power(request, khz, timeout_s)

    # -- facts ------------------------------------------------------------------------------

    @property
    def context(self) -> int:
        """Id of this connection's context."""
        return self._backend.context

    @property
    def uri(self) -> str:
        """What it is connected to, as `sbe.connect()` takes it."""
        return self._backend.uri

    @property
    def slot_size(self) -> int:
        """Bytes of one frame at most."""
        return self._channel.slot_size

    @property
    def closed(self) -> bool:
        """close() has been called."""
        return self._closed

    def fileno(self) -> int:
        """A descriptor that is readable when calls may have completed; then ask `done()`."""
        return self._channel.fileno()

    @property
    def control_fd(self) -> int:
        """A descriptor that is readable when the link's state may have changed."""
        return self._backend.control_fd

    def list(self) -> dict[str, Any]:
        """Links, contexts, areas, channels and services, as plain data."""
        with self._control() as backend:
            return backend.describe()

    def stat(self) -> dict[str, Any]:
        """Counters of this connection and of its link, as plain data."""
        with self._control() as backend:
            channel = self._channel
            usage = dict(backend.usage())
            usage["connection"] = {
                "channel": channel.id,
                "context": self.context,
                "losses": self._losses,
                "areas": len(self._areas),
                **channel.counters(),
            }
            return usage

    # -- life -------------------------------------------------------------------------------

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise LinkError(
                "the connection belongs to the process that forked this one: connect again here"
            )

    def _live_channel(self) -> _native.Channel:
        """The channel; brings the link back if it was lost since the last call."""
        self._turn.check()
        channel = self._channel
        if channel.error is None:
            return channel
        self._check_process()
        with self._turn.lock:
            if self._closed:
                raise LinkClosed(_CLOSED)
            if self._channel.error is not None:
                self._recover(self._channel.error)
            return self._channel

    def _recover(self, error: BaseException) -> None:
        if isinstance(error, (DaemonGone, LinkClosed)):
            raise again(error)
        with self._turn.operation():
            if self._closed:
                raise LinkClosed(_CLOSED)
            self._backend.recover()
            self._ids.clear()
            self._channel = self._open_channel()
            self._losses += 1

    def _open_channel(self) -> _native.Channel:
        granted = self._backend.open_channel(self._geometry, priority=1)
        control = weakref.WeakMethod(self._process_control)

        def on_control() -> None:
            process = control()
            if process is not None:
                process()

        try:
            channel = attach(
                granted.rings,
                self._table,
                granted.id,
                self._backend.context,
                control_fd=self._backend.control_fd,
                on_control=on_control,
                max_buffers=self._backend.limits["buffers"],
            )
        except BaseException:
            self._backend.close_channel(granted.id)
            raise
        finally:
            granted.rings.close()
        channel.spin_s = self._spin_s
        self.epoch = granted.epoch
        return channel

    def _process_control(self, *, wait: bool = True) -> bool:
        """The control descriptor is readable: the link's state may have changed.

        False, only unless `wait`: not now, another thread is in a control operation.
        """
        self._check_process()
        if not self._turn.lock.acquire(blocking=wait):
            return False
        try:
            with self._turn.operation():
                error = None if self._closed else self._backend.process_control()
            if error is not None:
                self._channel.fail(error)  # what hears of it may use the link
        finally:
            self._turn.lock.release()
        return True

    @contextlib.contextmanager
    def _control(self) -> Iterator[Backend]:
        """One control operation: the lock, a live channel before, and a lost link noticed after.

        Handlers of signals run where it waits, and after it. Whatever it raises, the channel is
        usable afterwards or has failed.
        """
        self._check_process()
        with self._turn.lock:
            self._live_channel()
            try:
                with self._turn.operation():
                    if self._closed:
                        raise LinkClosed(_CLOSED)
                    self._areas.free_unwanted(self._backend)
                    yield self._backend
                    with contextlib.suppress(Error):  # the next operation will tell
                        self._areas.free_unwanted(self._backend)
            except Error as error:
                self._process_control()
                if type(error) is LinkError and self._channel.error is not None:
                    raise again(self._channel.error) from error  # says how the link was lost
                raise
            self._process_control()  # it may have succeeded because the remote is gone
            if self._closed:
                raise LinkClosed(_CLOSED)

    def close(self) -> None:
        """Ends the context: open calls fail, areas are freed, the remote has let go. Idempotent.

        Within a control operation of the same thread it is done at the end of that.
        """
        if self._pid != os.getpid():
            return  # a forked child has copies of everything, but the link is its parent's
        with self._turn.lock, _native.SignalsHeld():
            if self._turn.mine:
                self._turn.afterwards(self._end)
                return
            self._end()
        self._server.join(timeout=5.0)
        if self._power is not None:
            self._power.join(timeout=5.0)

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._stager.close()
        self._server.close()
        if self._power is not None:
            self._power.close()
        self._channel.fail(LinkClosed(_CLOSED))
        try:
            self._backend.close()
        finally:  # also when whoever closes is interrupted
            for area in self._areas.clear():
                self._table.remove(area, True)

    def _let_go_in_child(self) -> None:
        """Forked, with the locks as other threads had them: closes what this process inherited."""
        self._turn = Turn()
        with contextlib.suppress(Exception):
            self._backend.close()
        self._channel.let_go_in_child()
        for area in self._areas.clear():
            self._table.remove(area, True)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def __reduce__(self) -> NoReturn:
        not_copied(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"context {self.context}, epoch {self.epoch:#010x}"
        return f"<sbe.Connection: {state}>"
