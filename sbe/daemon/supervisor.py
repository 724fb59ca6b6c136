"""One link of the daemon and the remote at its other end: started, watched, started again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Coroutine, Iterator
from typing import Any, Protocol, TypeVar

from sbe import _native
from sbe.daemon.config import CarveoutLink, EmbeddedLink, LinkConfig, RemoteLimits, RpmsgLink
from sbe.daemon.power import PowerCommand
from sbe.errors import Error, LinkError, ProtocolError, Timeout, fresh_copy
from sbe.host.text import one_line
from sbe.kernel import remoteproc
from sbe.link.context import HostContext, run_async
from sbe.link.grants import ChannelGrant
from sbe.link.link import Link, ServiceInfo
from sbe.link.pending import Pending
from sbe.link.power import PowerRequest
from sbe.link.session import State
from sbe.link.work import Limits, Watch
from sbe.remotes import Remote
from sbe.remotes.carveout import Carveout, CarveoutConfig
from sbe.remotes.process import RemoteProcess
from sbe.remotes.rpmsg import Arena, RpmsgRemote
from sbe.transports import Endpoint

__all__ = ["Supervisor", "Tenant", "settled"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# What this end can hold; the remote's own limits are usually the smaller ones.
_AREAS, _CONTEXTS, _CHANNELS = 16384, 2048, 2048
# A remote that owes an answer is looked at four times in so long, or more often.
_LOOK_SECONDS = 4.0
_WORDS_MAX = 500  # of why a remote was lost
_PENDING = 2 * _CONTEXTS  # requests: one of each context, all of which may end at once, and some


class Tenant(Protocol):
    """Whoever has a context at a remote."""

    @property
    def context(self) -> HostContext | None:
        """The context, None when it has gone."""

    def service(self, name: str | None, index: int) -> tuple[int, int, str] | None:
        """Answers the remote's question for a service of this context: (id, version, name)."""

    @property
    def uid(self) -> int:
        """Whose it is."""

    @property
    def owner(self) -> str:
        """Who it is, in words."""

    async def remote_lost(self, why: str) -> None:
        """The remote has gone, and all channels with it; `why` for people."""

    def remote_back(self) -> None:
        """The remote is connected again, areas registered."""

    def channel_shut(self, channel: int) -> None:
        """The remote has shut a channel of the context, whose rings held nonsense."""


async def settled(pending: Pending[_T]) -> _T:
    """Waits in the loop for an operation of a link."""
    if not pending.done:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake(_: Pending[_T]) -> None:
            if not waiter.done():
                waiter.set_result(None)

        pending.add_done_callback(wake)
        await waiter
    return pending.result()


class Supervisor:
    """A link with the remote of its kind. Not thread-safe: all of it belongs to the asyncio loop.

    Nothing runs while nothing happens: the loop watches the link's descriptor, which tells the
    end of the remote too. Timers are armed only while an answer is awaited or the remote is down.
    They are asyncio.timeout(): wait_for() of Python 3.11 loses a cancellation that comes together
    with what it waits for, and `stop()` would wait for ever.
    """

    def __init__(self, config: LinkConfig) -> None:
        self.config = config
        self.name = config.name
        self.tenants: dict[int, Tenant] = {}
        """By context."""
        self.restarts = 0
        """How often it was started again, or tried to be."""
        self._remote = _make_remote(config)
        self._power = PowerCommand(config.name, config.power)
        self.link = Link(
            self._remote.connect,
            name="sbe-daemon",
            areas=_AREAS,
            contexts=_CONTEXTS,
            channels=_CHANNELS,
            pending=_PENDING,
            services=self._service,
            on_state=self._state_changed,
            on_event=self._heard,
            on_power=self._power.carry_out,
        )
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._down.set()
        self._up_since = 0.0
        self._trouble: Error | None = None
        self._news = asyncio.Event()  # devices came or went
        self._told_news = False  # somebody tells of them
        self._distrusted = False  # one that we can end is ended before another try
        self._life = asyncio.Lock()  # while a life of the remote is ended or begun
        self._judging: asyncio.Task[None] | None = None
        self._asked = False  # its end was asked for, and says nothing about the next life
        self._hopeless = False  # it takes a person: no program, another version
        self._task: asyncio.Task[None] | None = None
        self._ever_up = False

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to keep the remote running."""
        asyncio.get_running_loop().add_reader(self.link.fileno(), self.link.process)
        self._task = asyncio.create_task(self._supervise(), name=f"link {self.name}")

    @property
    def wants_news(self) -> bool:
        """Its remote shows as devices: `devices_changed()` wants to be called."""
        return isinstance(self._remote, RpmsgRemote)

    def devices_changed(self) -> None:
        """Devices appeared or vanished: it may be worth a look at once."""
        self._news.set()

    def expect_news(self) -> None:
        """From now on `devices_changed()` is called for sure."""
        self._told_news = True

    async def stop(self) -> None:
        """Says goodbye and ends the remote."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            asyncio.get_running_loop().remove_reader(self.link.fileno())
        self._up.clear()
        if self._judging is not None:
            self._judging.cancel()
        await self._power.stop()
        self.link.close()
        self._remote.close()

    def reset(self, why: str) -> None:
        """Ends a remote that can't be relied on; it is started again.

        One whose life is not ours is told: with a new epoch all that it has made ends.
        """
        _log.error("the remote is started again: %s", why, extra={"link": self.name})
        why = f"the remote was given up: {why}"
        if isinstance(self._remote, RemoteProcess):
            self.link.expect_loss(why)
            self._remote.kill()
        else:
            # Not one that may be slow to start; but a processor is started by us.
            self._distrusted = self.up or isinstance(self.config, RpmsgLink)
            self.link.abandon(why)

    async def restart(self, who: str, timeout_seconds: float) -> None:
        """Ends the remote and waits for the next. Raises what `Remote.restart()` does, Timeout."""
        why = f"{who} had it restarted"
        try:
            async with asyncio.timeout(timeout_seconds):
                async with self._life:
                    await self._end_life(why)
                await self._up.wait()
        except TimeoutError:
            raise Timeout(
                f"link {self.name!r}: the remote is not back in time"
                + (f": {self._trouble}" if self._trouble else "")
            ) from None

    async def _end_life(self, why: str) -> None:
        self.link.expect_loss(why)
        try:
            # In a thread: a core may take its time to end.
            await asyncio.shield(asyncio.to_thread(self._remote.restart))
        except Error:
            self.link.expect_loss(None)
            raise
        _log.warning("the remote is started again: %s", why, extra={"link": self.name})
        self.link.abandon(why)
        self._asked = True
        self._news.set()  # without a pause

    # -- for tenants ---------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Connected, and everything registered."""
        return self._up.is_set()

    @property
    def state(self) -> str:
        """The link's state as a word."""
        if self.up and self.link.suspended:
            return "suspended"
        return "connected" if self.up else State(self.link.state).name.lower()

    @property
    def pid(self) -> int | None:
        """The process that runs now, None where there is none."""
        if isinstance(self._remote, RemoteProcess) and not self._remote.alive:
            return None
        return self._remote.pid

    @property
    def uptime_seconds(self) -> float:
        """Since the remote was connected, 0 when it is not."""
        return time.monotonic() - self._up_since if self.up else 0.0

    def make_context(self, uid: int) -> HostContext:
        """A context for a client, which the remote does not trust. Raises LinkError."""
        return HostContext(self.link, self._remote.memory, owner=uid, apart=True)

    def open_endpoint(self, name: str) -> Endpoint:
        """An endpoint of its firmware. Raises what `Remote.open_endpoint()` does."""
        return self._remote.open_endpoint(name)

    def check_up(self) -> None:
        """Raises LinkError with the reason while the remote is not connected."""
        if not self.up:
            raise fresh_copy(self._trouble or self._starting())

    def _starting(self) -> Timeout:
        awaited = self._remote.awaited or "it has not answered the negotiation yet"
        return Timeout(f"link {self.name!r}: the remote is starting: {awaited}")

    async def wait_up(self, timeout_seconds: float) -> None:
        """Waits until the remote is connected. Raises LinkError with the reason."""
        if self._hopeless:
            self.check_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._up.wait()
        self.check_up()

    async def wait_down(self) -> None:
        """Waits until the remote is not connected."""
        await self._down.wait()

    async def run(self, operation: Coroutine[Any, Any, _T], seconds: float | None = None) -> _T:
        """Drives an operation of a context to its end, however long it takes; Timeout after
        `seconds`, if they are given.

        The remote may take its time to let go of memory that is in use. But meanwhile it has to
        answer pings: one that does not is started again, which ends the operation.
        """
        watch = None if seconds is None else Watch(self._channels)
        try:
            async with asyncio.timeout(seconds):
                return await self._watched(asyncio.create_task(run_async(operation)))
        except TimeoutError as error:
            if watch is None or isinstance(error, Error):
                raise
            watch.look()
            about = watch.words(self.link.service_names)
            raise Timeout(
                f"link {self.name!r}: the remote is connected and has not answered in time"
                + (f": {about}" if about else "")
            ) from None

    async def ask(self, pending: Pending[_T]) -> _T:
        """Waits for a question's answer, as `run()` does."""
        return await self._watched(asyncio.create_task(settled(pending)))

    async def request_power(self, request: PowerRequest, khz: int, timeout_seconds: float) -> None:
        """Asks the remote and waits for its answer. Raises Timeout, which leaves it asked."""
        pending = self.link.request_power(request, khz)
        try:
            async with asyncio.timeout(timeout_seconds):
                await settled(pending)
        except TimeoutError:
            if pending.done:  # with an error of this name
                pending.result()
            raise Timeout(
                f"{pending.operation}: the remote has not answered within {timeout_seconds:g} s"
            ) from None

    async def services(self) -> list[ServiceInfo]:
        """The remote's services, none while it is not connected."""
        if not self.up:
            return []
        try:
            return await self.ask(self.link.list_services())
        except LinkError:
            return []

    # -- inside --------------------------------------------------------------------------------

    async def _watched(self, task: asyncio.Task[_T]) -> _T:
        try:
            while True:
                await asyncio.wait({task}, timeout=self.config.answer_seconds)
                if task.done():
                    return task.result()
                if not self.up:
                    continue
                if self._judging is None or self._judging.done():  # one for all who wait
                    self._judging = asyncio.create_task(self._judge(), name=f"ping {self.name}")
                await asyncio.wait({task, self._judging}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()  # nothing to do if it has ended

    async def _judge(self) -> None:
        """Gives up a remote that answers no ping, unless it is at work."""
        config = self.config
        limits = Limits(config.answer_seconds, config.stuck_seconds, config.work_seconds)
        watch = Watch(self._channels)
        told = False
        answer = asyncio.ensure_future(settled(self.link.ping()))
        try:
            while not (await asyncio.wait({answer}, timeout=min(*limits, _LOOK_SECONDS) / 4))[0]:
                watch.look()
                why, about = watch.verdict(limits), watch.words(self.link.service_names)
                if why is not None:
                    self.reset(f"{why}: {about}" if about else why)
                    return
                if watch.owed_s >= config.answer_seconds and not told:
                    told = True
                    self._let_work(watch.owed_s, about)
            answer.result()
        except Error as error:
            _log.debug("ping: %s", error, extra={"link": self.name})
        finally:
            answer.cancel()

    def _let_work(self, owed_s: float, about: str) -> None:
        _log.warning(
            "no answer to a ping within %.1f s, the remote is let go on: %s",
            owed_s,
            about,
            extra={"link": self.name},
        )

    def _channels(self) -> Iterator[tuple[str, ChannelGrant]]:
        for tenant in self.tenants.values():
            if tenant.context is not None:
                for grant in tenant.context.channels:
                    yield tenant.owner, grant

    def _service(self, context: int, name: str | None, index: int) -> tuple[int, int, str] | None:
        tenant = self.tenants.get(context)
        return tenant.service(name, index) if tenant else None

    def _heard(self, event: int, value: int) -> None:
        if event != _native.EVENT_CHANNEL_BROKEN:
            return
        for channel in self.link.channels:
            if channel.id == value and channel.context in self.tenants:
                self.tenants[channel.context].channel_shut(value)

    def _state_changed(self, state: State) -> None:
        """Notes it for the supervisor: the link calls this in the middle of its work."""
        if state is not State.CONNECTED and self._up.is_set():
            self._up.clear()
            self._down.set()

    async def _supervise(self) -> None:
        pause = self.config.restart.initial_seconds
        while True:
            self._news.clear()
            absent = False
            try:
                await self._bring_up()
                await self._serve()
                if time.monotonic() - self._up_since > self.config.restart.max_seconds:
                    pause = self.config.restart.initial_seconds
            except (Error, OSError) as error:
                self._failed(error)
                absent = isinstance(error, LinkError) and error.code == errno.ENODEV
            except Exception:
                _log.exception("the link's supervision failed", extra={"link": self.name})
            await self._rest(None if absent and self._told_news else pause)
            if not self._asked:
                pause = min(2 * pause, self.config.restart.max_seconds)
            self._asked = False
            self.restarts += 1

    async def _rest(self, seconds: float | None) -> None:
        """Until devices change, or for so long; a remote that has no device needs no timer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def _bring_up(self) -> None:
        async with self._life:
            await self._begin_life()
        ready = self.link.ready
        if ready.done:  # else the remote came back by itself, on the connection there is
            if isinstance(self._remote, RemoteProcess):
                # In a thread: the former process may take its time to end.
                await asyncio.to_thread(self._remote.close)
            ready = self.link.start()
        try:
            async with asyncio.timeout(self.config.answer_seconds):
                await settled(ready)
        except TimeoutError:
            seconds = self.config.answer_seconds
            awaited = f": {self._remote.awaited}" if self._remote.awaited else ""
            self.reset(f"the negotiation has not ended within {seconds:g} s{awaited}")
            raise LinkError(f"the remote has not answered within {seconds:g} s{awaited}") from None

    async def _begin_life(self) -> None:
        """Ends what was given up, where its end is ours, and starts what we are to start.

        In a thread: the kernel loads firmware, and waits for a core to stop.
        """
        distrusted, self._distrusted = self._distrusted, False
        if isinstance(self.config, RpmsgLink) and self.config.start and self.config.processor:
            await asyncio.to_thread(_power_up, self.config.processor, distrusted)
        elif isinstance(self.config, CarveoutLink) and self.config.reset and distrusted:
            await asyncio.to_thread(self._remote.restart)

    async def _serve(self) -> None:
        """Connected, until it is no more."""
        self._trouble, self._hopeless = None, False
        self._up_since = time.monotonic()
        self._down.clear()
        self._up.set()
        if not self.link.connected:
            self._state_changed(self.link.state)  # gone again already
        _log.info(
            "remote %s is connected",
            self.link.peer_name,
            extra={"link": self.name, "pid": self.pid},
        )
        if self._ever_up:
            for tenant in list(self.tenants.values()):
                tenant.remote_back()
        self._ever_up = True
        await self._down.wait()
        why = one_line(self.link.reason, _WORDS_MAX)
        self._trouble = LinkError(f"link {self.name!r}: the remote is not connected: {why}")
        _log.warning("%s", self._trouble, extra={"link": self.name})
        for tenant in list(self.tenants.values()):
            await tenant.remote_lost(why)

    def _failed(self, error: Exception) -> None:
        kind = ProtocolError if isinstance(error, ProtocolError) else LinkError
        trouble = kind(f"link {self.name!r}: {error}")
        news = str(trouble) != str(self._trouble)  # it may be tried again for days
        level = logging.ERROR if news else logging.DEBUG
        _log.log(level, "the remote is not connected: %s", error, extra={"link": self.name})
        self._trouble = trouble
        no_program = isinstance(self._remote, RemoteProcess) and (
            isinstance(error, LinkError) and error.code == errno.ENOENT
        )
        self._hopeless = no_program or kind is ProtocolError


def _make_remote(config: LinkConfig) -> Remote:
    if isinstance(config, EmbeddedLink):
        return _make_process(config)
    if isinstance(config, CarveoutLink):
        place = CarveoutConfig(
            config.memory,
            config.doorbell,
            config.offset,
            config.size,
            tuple(config.reset or ()),
            config.map,
        )
        return Carveout(place, config.name)
    return RpmsgRemote(
        config.processor,
        coherent=config.coherent,
        heaps=config.heaps,
        carveouts={
            arena.name: Arena(arena.memory, arena.offset, arena.size, arena.address, arena.map)
            for arena in config.carveout
        },
        budget_bytes=config.budget_bytes,
        rings=config.rings,
        raw=config.raw,
    )


def _power_up(name: str, distrusted: bool) -> None:
    """A remote processor whose life is ours runs after this."""
    processor = remoteproc.find(name)
    if distrusted or (processor.state == "crashed" and not processor.recovery):
        processor.stop()
    if processor.state == "offline":
        processor.start()
        _log.info("the remote processor %s was started", processor.name)


def _make_process(config: EmbeddedLink) -> RemoteProcess:
    command = config.command or []
    arguments = command[1:]
    for key in RemoteLimits.model_fields:
        value = getattr(config.limits, key)
        if value is not None:
            arguments += [f"--{key.replace('_', '-')}", str(value)]
    return RemoteProcess(
        command[0] if command else None, arguments=arguments, huge_pages=config.huge_pages
    )
