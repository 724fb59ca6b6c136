"""Backend without a daemon: this process is the host of whatever remote the URI names."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from sbe.channel import Geometry
from sbe.context import AreaGrant, HostContext, run_sync
from sbe.errors import BadArgument, LinkError, RemoteRestarted, resources
from sbe.host.descriptors import duplicate
from sbe.link import Link, OnPower, PowerRequest, State
from sbe.remotes import Remote
from sbe.sdk.backend import GrantedArea, GrantedChannel, Service, process_name

__all__ = ["DirectBackend", "Offered"]

_T = TypeVar("_T")


class Offered:
    """Services of this end, by name, with ids from 1. Serialised by its owner."""

    def __init__(self) -> None:
        self._offered: dict[str, tuple[int, int]] = {}
        self._last = 0

    def add(self, name: str, version: int) -> int:
        """The id of a new service. BadArgument if the name is taken or too long."""
        if name in self._offered:
            raise BadArgument(f"service {name!r} is served already")
        if not 0 < len(name.encode()) < 32 or "\0" in name:
            raise BadArgument(f"a service's name has 1 to 31 bytes: {name!r}")
        self._last += 1
        self._offered[name] = (self._last, version)
        return self._last

    def remove(self, name: str) -> None:
        """Withdraws a service. BadArgument if there is none."""
        if self._offered.pop(name, None) is None:
            raise BadArgument(f"service {name!r} is not served")

    def look_up(self, name: str | None, index: int) -> tuple[int, int, str] | None:
        """(id, version, name) by name or by position."""
        if name is None:
            names = list(self._offered)
            if not 0 <= index < len(names):
                return None
            name = names[index]
        found = self._offered.get(name)
        return None if found is None else (found[0], found[1], name)

    def all(self) -> list[Service]:
        """Every service offered."""
        return [Service(id, name, version) for name, (id, version) in self._offered.items()]


class DirectBackend:
    """The whole link in this process. Serialised by the connection that owns it."""

    def __init__(self, timeout: float, remote: Remote) -> None:
        """Takes over a remote and connects; `timeout` in seconds bounds each control operation."""
        self._timeout = timeout
        self._owner = os.getpid()
        self._loss: LinkError | None = None
        self._restarts = 0
        self._offered = Offered()
        self._remote = remote
        self.uri = remote.uri
        try:
            self._link = Link(
                self._remote.connect,
                name=f"sbe-sdk {os.getpid()}",
                areas=4096,
                services=lambda context, name, index: self._offered.look_up(name, index),
                on_state=self._state_changed,
            )
            self._context = HostContext(self._link)
        except BaseException:
            self._remote.close()
            raise
        try:
            with resources(f"connecting to {self.uri}"):
                self._context.memory = remote.memory
                self._link.wait(self._link.start(), timeout)
                self._run(self._context.open())
        except BaseException:
            self.close()
            raise
        self.context = self._context.id
        self.limits = self._context.limits
        self._loss = None

    def _run(self, operation: Coroutine[Any, Any, _T]) -> _T:
        return run_sync(self._link, operation, self._timeout)

    def _state_changed(self, state: State) -> None:
        if state is not State.WAITING:
            return
        how = self._remote.exit_description
        self._loss = RemoteRestarted(
            "the remote died or restarted"
            + (f" ({how})" if how else "")
            + "; the call may have run or not"
        )

    @property
    def control_fd(self) -> int:
        """The link's descriptor, the same through reconnections."""
        return self._link.fileno()

    def process_control(self) -> LinkError | None:
        """Takes control messages; the loss of the remote, once."""
        self._link.process()
        loss, self._loss = self._loss, None
        return loss

    def recover(self) -> None:
        """Starts the remote again and registers context and areas under their ids."""
        if not self._link.connected:
            self._link.reconnect(self._timeout)
            self._restarts += 1
        self._loss = None
        self._run(self._context.forget_channels())

    def allocate(self, size_bytes: int, heap: str | None) -> GrantedArea:
        """Allocates and registers memory."""
        return self._granted(self._run(self._context.allocate(size_bytes, heap)))

    def regions(self) -> dict[str, int]:
        """What the remote offers; nothing where the transport can't say."""
        return self._context.regions

    def open_region(self, name: str) -> GrantedArea:
        """Registers memory of the remote's."""
        return self._granted(self._run(self._context.open_region(name)))

    def _granted(self, grant: AreaGrant) -> GrantedArea:
        try:
            fd, sync_fd = duplicate((grant.fd, grant.sync_fd), "an area's descriptors")
        except BaseException:
            self._context.start_free(grant.id)
            raise
        return GrantedArea(
            grant.id,
            grant.size_bytes,
            grant.flags,
            fd,
            grant.heap,
            grant.offset_bytes,
            grant.trusted,
            sync_fd,
        )

    def free(self, area: int) -> None:
        """Unregisters memory."""
        self._run(self._context.free(area))

    def open_channel(self, geometry: Geometry, priority: int) -> GrantedChannel:
        """Opens a channel of the context."""
        grant = self._run(self._context.open_channel(geometry, priority))
        try:
            return GrantedChannel(grant.id, self._link.peer_epoch, grant.rings.duplicate())
        except BaseException:
            self._context.start_close_channel(grant.id)
            raise

    def close_channel(self, channel: int) -> None:
        """Begins to close it; what it was made of goes back when the remote has let go."""
        self._context.start_close_channel(channel)

    def find_service(self, name: str, version: int) -> Service:
        """A service of the remote."""
        found = self._link.wait(self._link.find_service(self.context, name, version), self._timeout)
        return Service(found.id, found.name, found.version)

    def services(self) -> list[Service]:
        """All services of the remote."""
        listed = self._link.wait(self._link.list_services(), self._timeout)
        return [Service(item.id, item.name, item.version) for item in listed]

    def serve(self, name: str, version: int) -> int:
        """Offers a service of this process to the remote."""
        return self._offered.add(name, version)

    def unserve(self, name: str) -> None:
        """Withdraws it."""
        self._offered.remove(name)

    def request_power(self, request: str, khz: int, timeout_s: float) -> None:
        """Asks the remote and waits for its answer."""
        pending = self._link.request_power(PowerRequest[request.upper()], khz)
        self._link.wait(pending, timeout_s)

    def listen_power(self, on_power: OnPower | None) -> None:
        """Who is told what the remote asks."""
        self._link.on_power = on_power

    def describe(self) -> dict[str, Any]:
        """The same form as the daemon's List, of this one link."""
        context = self._context
        return {
            "links": [
                {
                    "name": self._remote.name,
                    "transport": self._remote.transport,
                    "state": "suspended" if self._link.suspended else self._link.state.name.lower(),
                    "epoch": self._link.peer_epoch,
                    "remote": self._link.peer_name,
                    "pid": self._remote.pid,
                }
            ],
            "contexts": [
                {
                    "link": self._remote.name,
                    "id": context.id,
                    "client": process_name(),
                    "pid": os.getpid(),
                    "uid": os.getuid(),
                }
            ],
            "areas": [
                {
                    "link": self._remote.name,
                    "id": area.id,
                    "context": context.id,
                    "size": area.size_bytes,
                    "flags": area.flags,
                    "heap": area.heap,
                }
                for area in context.areas.values()
            ],
            "channels": [
                {
                    "link": self._remote.name,
                    "id": channel.id,
                    "context": context.id,
                    "slots": channel.rings.geometry.slots,
                    "slot_size": channel.rings.geometry.slot_size_bytes,
                    "priority": channel.priority,
                }
                for channel in context.channels.values()
            ],
            "services": [
                {"link": self._remote.name, "context": owner, **item._asdict()}
                for owner, items in ((0, self.services()), (context.id, self._offered.all()))
                for item in items
            ],
        }

    def usage(self) -> dict[str, Any]:
        """The same form as the daemon's Stat; nobody sets a quota here."""
        areas = self._context.areas.values()
        used = {
            "bytes": sum(area.size_bytes for area in areas),
            "areas": len(areas),
            "channels": len(self._context.channels),
            "contexts": 1,
        }
        return {
            "links": [
                {
                    "name": self._remote.name,
                    "restarts": self._restarts,
                    "bad_messages": self._link.bad_messages,
                }
            ],
            "channels": [
                {
                    "link": self._remote.name,
                    "id": channel.id,
                    "context": self.context,
                    **channel.rings.counters(),
                }
                for channel in self._context.channels.values()
            ],
            "users": [{"uid": os.getuid(), "used": used}],
        }

    def close(self) -> None:
        """Orderly goodbye; the remote has let go of everything when this returns.

        A forked child closes its descriptors: remote and heaps are its parent's.
        """
        ours = os.getpid() == self._owner
        try:
            self._link.close()
        finally:
            self._context.release(keep=not ours)
            if ours:
                self._remote.close()
