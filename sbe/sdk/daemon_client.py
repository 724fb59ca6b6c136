"""Backend over a running daemon: it negotiates, this process exchanges frames directly."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Any

from sbe.channel import Geometry, Rings
from sbe.control import PROTOCOL
from sbe.errors import BadArgument, DaemonGone, LinkError, ProtocolError, RemoteRestarted
from sbe.sdk.backend import GrantedArea, GrantedChannel, Service, process_name
from sbe.sdk.varlink import VarlinkClient

if TYPE_CHECKING:
    from sbe.link import OnPower

__all__ = ["DaemonBackend"]


class DaemonBackend:
    """One client of the daemon, one context. Serialised by the connection that owns it."""

    def __init__(self, path: str, timeout: float) -> None:
        self.uri = f"unix:{path}"
        self._path = path
        self._client = VarlinkClient(path, timeout)
        self._control = select.epoll()
        self._events_fd = -1
        self._rung = 0  # times the daemon has told of a loss or a return
        self._known = 0  # as many of them came before the channel was opened
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        reply, fds = self._client.call("Open", protocol=PROTOCOL, name=process_name())
        (self._events_fd,) = _take(fds, reply, "events_fd")
        self.context = int(reply["context"])
        self.limits: dict[str, int] = {key: int(value) for key, value in reply["limits"].items()}
        # Replies are read where calls are made; here only the connection's end matters.
        self._control.register(self._client.fileno(), select.EPOLLRDHUP)
        self._control.register(self._events_fd, select.EPOLLIN)

    @property
    def control_fd(self) -> int:
        """An epoll descriptor over the connection's end and the daemon's events; -1 once closed."""
        return -1 if self._control.closed else self._control.fileno()

    def process_control(self) -> LinkError | None:
        """The daemon is gone, or the remote was lost."""
        error: LinkError | None = None
        for fd, _ in self._control.poll(0):
            if fd == self._events_fd:
                self._rung += os.eventfd_read(fd)
                if self._rung > self._known and error is None:
                    error = RemoteRestarted(
                        "the remote died or restarted; the call may have run or not"
                    )
            else:
                self._control.unregister(fd)
                error = DaemonGone(f"the daemon at {self._path} went away; connect again")
        return error

    def recover(self) -> None:
        """The daemon restarts the remote and registers the areas; nothing is left to do here."""
        if self._client.fileno() < 0:
            raise DaemonGone(f"the daemon at {self._path} went away; connect again")

    def allocate(self, size_bytes: int, heap: str | None) -> GrantedArea:
        """Allocates and registers memory."""
        return _granted(*self._client.call("Allocate", size=size_bytes, heap=heap))

    def regions(self) -> dict[str, int]:
        """What the remote offers."""
        reply, _ = self._client.call("ListRegions")
        return {str(item["name"]): int(item["size"]) for item in reply["regions"]}

    def open_region(self, name: str) -> GrantedArea:
        """Registers memory of the remote's. Raises BadArgument for a name it does not offer."""
        return _granted(*self._client.call("OpenRegion", name=name))

    def free(self, area: int) -> None:
        """Unregisters memory."""
        self._client.call("Free", area=area)

    def open_channel(self, geometry: Geometry, priority: int) -> GrantedChannel:
        """Opens a channel of the context."""
        reply, fds = self._client.call(
            "OpenChannel",
            slots=geometry.slots,
            slot_size=geometry.slot_size_bytes,
            priority=priority,
        )
        descriptors = _take(fds, reply, "memory_fd", "ring_fd", "wake_fd")
        self._known = int(reply["events"])
        rings = Rings(
            Geometry(int(reply["slots"]), int(reply["slot_size"])),
            int(reply["line"]),
            int(reply["send_offset"]),
            int(reply["receive_offset"]),
            int(reply["size"]),
            *descriptors,
            memory_offset=int(reply["offset"]),
            trusted=bool(reply["trusted"]),
        )
        return GrantedChannel(int(reply["channel"]), int(reply["epoch"]), rings)

    def find_service(self, name: str, version: int) -> Service:
        """A service of the remote."""
        reply, _ = self._client.call("FindService", name=name, version=version)
        return Service(int(reply["service"]), name, int(reply["version"]))

    def services(self) -> list[Service]:
        """All services of the remote."""
        reply, _ = self._client.call("ListServices")
        return [
            Service(int(item["id"]), str(item["name"]), int(item["version"]))
            for item in reply["services"]
        ]

    def serve(self, name: str, version: int) -> int:
        """Offers a service of this process to the remote."""
        reply, _ = self._client.call("Serve", name=name, version=version)
        return int(reply["service"])

    def unserve(self, name: str) -> None:
        """Withdraws it."""
        self._client.call("Unserve", name=name)

    def request_power(self, request: str, khz: int, timeout_s: float) -> None:
        """Asks the remote by way of the daemon, which may wait for it to be started first."""
        frequency = khz if request == "frequency" else None
        self._client.call(
            "Power",
            longer_s=timeout_s,
            request=request,
            khz=frequency,
            timeout_ms=max(1, round(1000 * timeout_s)),
        )

    def listen_power(self, on_power: OnPower | None) -> None:
        """The daemon hears it, for all clients."""
        raise BadArgument(
            "what this remote asks about power concerns all clients: the daemon runs the command "
            "that its configuration gives in [link.power]"
        )

    def describe(self) -> dict[str, Any]:
        """The daemon's List."""
        return self._client.call("List")[0]

    def usage(self) -> dict[str, Any]:
        """The daemon's Stat."""
        return self._client.call("Stat")[0]

    def close(self) -> None:
        """Ends the connection; the daemon destroys the context."""
        self._client.close()
        if not self._control.closed:
            self._control.close()
        if self._events_fd >= 0:
            os.close(self._events_fd)
            self._events_fd = -1


def _granted(reply: dict[str, Any], fds: list[int]) -> GrantedArea:
    memory_fd, sync_fd = _take(fds, reply, "memory_fd", "sync_fd?")
    return GrantedArea(
        int(reply["area"]),
        int(reply["size"]),
        int(reply["flags"]),
        memory_fd,
        str(reply["heap"]),
        int(reply["offset"]),
        bool(reply["trusted"]),
        sync_fd,
    )


def _take(fds: list[int], reply: dict[str, Any], *names: str) -> list[int]:
    """The descriptors of a reply by name, -1 where one "name?" is absent.

    ProtocolError, with all of them closed, unless these are what came.
    """
    places = [reply.get(name.removesuffix("?")) for name in names]
    given = [place for place in places if place is not None]
    missing = any(
        place is None and not name.endswith("?") for name, place in zip(names, places, strict=True)
    )
    if missing or len(given) != len(fds) or {*given} != {*range(len(fds))}:
        for fd in fds:
            os.close(fd)
        raise ProtocolError(
            f"the daemon sent {len(fds)} descriptors where {', '.join(names)} were due"
        )
    return [-1 if place is None else fds[place] for place in places]
