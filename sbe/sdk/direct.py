"""Backend without a daemon: this process is the host of whatever remote the URI names."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from sbe import _native
from sbe.errors import LinkError, Timeout, resources
from sbe.host.text import one_line
from sbe.link.context import HostContext, run_sync
from sbe.link.description import (
    ContextEntry,
    LinkEntry,
    count_channels,
    count_endpoints,
    count_link,
    describe_areas,
    describe_channels,
    describe_endpoints,
    describe_services,
)
from sbe.link.grants import ChannelGrant, Grant, RawGrant
from sbe.link.link import Link
from sbe.link.offers import Offers
from sbe.link.pending import Pending
from sbe.link.power import OnPower, PowerRequest
from sbe.link.rings import Geometry, shut_by_remote
from sbe.link.session import State
from sbe.link.work import Watch
from sbe.remotes import Remote
from sbe.sdk.backend import Service, lost, process_name

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from sbe.link.raw import RawMatch, RawMessage

__all__ = ["DirectBackend"]

_T = TypeVar("_T")

_WORDS_MAX = 500  # of how the remote was lost


class DirectBackend:
    """The whole link in this process. Serialised by the connection that owns it."""

    def __init__(self, timeout: float, remote: Remote, until: float = math.inf) -> None:
        """Takes over a remote and connects by `until`, `time.monotonic()`; `timeout` in seconds
        bounds each control operation.
        """
        self._timeout = timeout
        self.until = until
        self._ready_by = 0.0  # of the negotiation that is under way, time.monotonic()
        self._owner = os.getpid()
        self._loss: LinkError | None = None
        self._ended = ""  # by us, in words
        self._restarts = 0
        self._up_since = 0.0
        self._offered = Offers()
        self._remote = remote
        self.uri = remote.uri
        try:
            self._link = Link(
                self._remote.connect,
                name=f"sbe-sdk {os.getpid()}",
                areas=4096,
                services=lambda context, name, index: self._offered.look_up(name, index),
                on_state=self._state_changed,
                on_event=self._heard,
            )
            self._context = HostContext(self._link)
        except BaseException:
            self._remote.close()
            raise
        try:
            with resources(f"connecting to {self.uri}"):
                self._context.memory = remote.memory
                self._wait(self._link.start())
                self._run(self._context.open())
        except BaseException:
            self.close()
            raise
        self.context = self._context.id
        self.limits = self._context.limits
        self._loss = None

    def _run(self, operation: Coroutine[Any, Any, _T]) -> _T:
        with self._explained() as midway:
            return run_sync(self._link, operation, self._left, midway)

    def _wait(self, pending: Pending[_T], timeout_s: float | None = None) -> _T:
        with self._explained() as midway:
            return self._link.wait(pending, self._left if timeout_s is None else timeout_s, midway)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[Callable[[], object]]:
        """A Timeout inside says what the remote is about; what is yielded is called midway."""
        watches: list[Watch] = []
        try:
            yield lambda: watches.append(Watch(self._channels))
        except Timeout as error:
            about = self._remote.awaited
            if self._link.connected:
                watch = watches[0] if watches else Watch(self._channels)
                watch.look()
                about = watch.words(self._link.service_names)
            if not about:
                raise
            raise Timeout(f"{error}: {about}") from error

    def _channels(self) -> Iterator[tuple[str, ChannelGrant]]:
        return (("", grant) for grant in self._context.channels)

    @property
    def _left(self) -> float:
        return max(min(self._timeout, self.until - time.monotonic()), 0.0)

    def _state_changed(self, state: State) -> None:
        if state is State.CONNECTED:
            self._up_since = time.monotonic()
        if state is not State.WAITING:
            return
        # Who ends it, or started it, knows best; else what the transport noticed, a crash record
        # for one.
        self._context.lose_raws()
        how = self._ended or self._remote.exit_description or self._link.reason
        self._loss = lost(one_line(how, _WORDS_MAX))

    def restart(self) -> None:
        """Ends the remote's life; `recover()` begins another."""
        self._remote.restart()
        self._ended = "it was restarted by this end"
        try:
            self._link.abandon(self._ended)
        finally:
            self._ended = ""

    def _heard(self, event: int, value: int) -> None:
        known = any(channel.id == value for channel in self._link.channels)
        if event == _native.EVENT_CHANNEL_BROKEN and known:
            self._loss = self._loss or shut_by_remote(value)

    @property
    def control_fd(self) -> int:
        """The link's descriptor, the same through reconnections."""
        return self._link.fileno()

    def process_control(self) -> LinkError | None:
        """Takes control messages; the loss of the remote or of the channel, once."""
        self._link.process()
        loss, self._loss = self._loss, None
        return loss

    def recover(self) -> None:
        """Starts the remote again and registers context and areas under their ids."""
        if not self._link.connected:
            now = time.monotonic()
            if self._link.ready.done or now >= self._ready_by:
                self._ready_by = now + self._timeout
                self._link.start()
            # Else who had less time than that has begun it.
            self._wait(self._link.ready)
            self._restarts += 1
        self._loss = None
        self._run(self._context.forget_channels())

    def allocate(self, size_bytes: int, heap: str | None) -> Grant:
        """Allocates and registers memory."""
        return self._granted(self._run(self._context.allocate(size_bytes, heap)))

    def regions(self) -> dict[str, int]:
        """What the remote offers; nothing where the transport can't say."""
        return self._context.regions

    def open_region(self, name: str) -> Grant:
        """Registers memory of the remote's."""
        return self._granted(self._run(self._context.open_region(name)))

    def _granted(self, grant: Grant) -> Grant:
        try:
            return grant.duplicate()
        except BaseException:
            self._context.start_free(grant.id)
            raise

    def free(self, area: int) -> None:
        """Unregisters memory."""
        self._run(self._context.free(area))

    def open_channel(self, geometry: Geometry, priority: int) -> ChannelGrant:
        """Opens a channel of the context."""
        grant = self._run(self._context.open_channel(geometry, priority))
        try:
            return grant.duplicate()
        except BaseException:
            self._context.start_close_channel(grant.id)
            raise

    def close_channel(self, channel: int) -> None:
        """Begins to close it; what it was made of goes back when the remote has let go."""
        self._context.start_close_channel(channel)

    def find_service(self, name: str, version: int) -> Service:
        """A service of the remote."""
        found = self._wait(self._link.find_service(self.context, name, version))
        return Service(found.id, found.name, found.version)

    def services(self) -> list[Service]:
        """All services of the remote."""
        listed = self._wait(self._link.list_services())
        return [Service(item.id, item.name, item.version) for item in listed]

    def serve(self, name: str, version: int) -> int:
        """Offers a service of this process to the remote."""
        return self._offered.add(name, version)

    def unserve(self, name: str) -> None:
        """Withdraws it."""
        self._offered.remove(name)

    def open_raw(self, endpoint: str, match: RawMatch) -> RawGrant:
        """Opens an endpoint of the remote's firmware."""
        return self._context.open_raw(self._remote.open_endpoint(endpoint), match)

    def send_raw(self, raw: int, message: RawMessage) -> None:
        """Sends a message over one."""
        self._context.raw(raw).send(*message)

    def settle_raw(self, raw: int, number: int) -> None:
        """A message was answered."""
        self._context.raw(raw).settle(number)

    def close_raw(self, raw: int) -> None:
        """Ends one, once all is answered."""
        self._context.close_raw(raw)

    def request_power(self, request: str, khz: int, timeout_s: float) -> None:
        """Asks the remote and waits for its answer."""
        pending = self._link.request_power(PowerRequest[request.upper()], khz)
        self._wait(pending, timeout_s)

    def listen_power(self, on_power: OnPower | None) -> None:
        """Who is told what the remote asks."""
        self._link.on_power = on_power

    def describe(self) -> dict[str, Any]:
        """The same form as the daemon's List, of this one link."""
        name, context, link = self._remote.name, self._context, self._link
        services = [(item.id, item.version, item.name) for item in self.services()]
        return _as_dicts(
            links=[
                LinkEntry(
                    name,
                    self._remote.transport,
                    "suspended" if link.suspended else link.state.name.lower(),
                    link.peer_epoch,
                    link.peer_name,
                    self._remote.pid,
                )
            ],
            contexts=[ContextEntry(name, context.id, process_name(), os.getpid(), os.getuid())],
            areas=describe_areas(name, context),
            channels=describe_channels(name, context),
            endpoints=describe_endpoints(name, link),
            services=[
                *describe_services(name, 0, services),
                *describe_services(name, context.id, self._offered.all()),
            ],
        )

    def usage(self) -> dict[str, Any]:
        """The same form as the daemon's Stat; nobody sets a quota here."""
        name, context = self._remote.name, self._context
        used = {
            "bytes": sum(area.size_bytes for area in context.areas),
            "areas": len(context.areas),
            "channels": len(context.channels),
            "contexts": 1,
        }
        uptime_seconds = time.monotonic() - self._up_since if self._link.connected else 0.0
        return {
            **_as_dicts(
                links=[count_link(name, self._link, self._restarts, uptime_seconds)],
                channels=count_channels(name, context),
                endpoints=count_endpoints(name, self._link),
            ),
            "users": [{"uid": os.getuid(), "used": used}],
        }

    def close(self) -> None:
        """Orderly goodbye; the remote has let go of everything when this returns.

        A forked child closes its descriptors: remote and heaps are its parent's.
        """
        ours = os.getpid() == self._owner
        try:
            if ours and time.monotonic() >= self.until:
                self._link.abandon("connecting took too long")  # no time left for a goodbye
            self._link.close()
        finally:
            self._context.release(keep=not ours)
            self._context.drop_raws()
            if ours:
                self._remote.close()


def _as_dicts(**kinds: Sequence[DataclassInstance]) -> dict[str, Any]:
    return {kind: [asdict(entry) for entry in entries] for kind, entries in kinds.items()}
