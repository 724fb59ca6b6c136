"""Backend over a running daemon: it negotiates, this process exchanges frames directly."""

from __future__ import annotations

import math
import os
import select
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from sbe.control import PROTOCOL, SHUT
from sbe.errors import (
    BadArgument,
    DaemonGone,
    LinkError,
    ProtocolError,
    fresh_copy,
    resources,
)
from sbe.host.descriptors import above_streams
from sbe.host.text import one_line
from sbe.link.grants import ChannelGrant, Grant, RawGrant
from sbe.link.rings import Geometry, Rings, shut_by_remote
from sbe.sdk.backend import Service, lost, process_name
from sbe.sdk.varlink import Call, VarlinkClient

if TYPE_CHECKING:
    from sbe.link.power import OnPower
    from sbe.link.raw import RawMatch, RawMessage

__all__ = ["DaemonBackend"]

_T = TypeVar("_T")

_EVENTS_AT_ONCE = 4096
_WORDS_MAX = 2048
_RESTART_S = 600.0  # what the daemon waits for at most


class DaemonBackend:
    """One client of the daemon, one context. Serialised by the connection that owns it."""

    def __init__(self, path: str, timeout: float, until: float = math.inf) -> None:
        """Connects by `until`, `time.monotonic()`; `timeout` bounds each later operation."""
        self.uri = f"unix:{path}"
        self._path = path
        with resources("making a descriptor for the daemon's news"):
            self._control = select.epoll()
        try:
            self._client = VarlinkClient(path, timeout, until)
        except BaseException:
            self._control.close()
            raise
        self._events_fd = -1
        self._ending: dict[tuple[str, int | str], Call] = {}  # given up before they were answered
        self._channel = -1  # the one that is used, or was
        self._rung = 0  # times the daemon has told of a loss or a return
        self._known = 0  # as many of them came before the channel was opened
        self._told = b""  # of an event that has not come as a whole
        self._why = ""  # the last loss, in the daemon's words
        self._loss: LinkError | None = None  # of what was read last
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        reply, fds = self._client.call(
            "Open",
            protocol=PROTOCOL,
            name=process_name(),
            timeout_ms=self._client.milliseconds_left(),
        )
        with self._client.understanding("Open", fds):
            self.context = int(reply["context"])
            self.limits: dict[str, int] = {
                key: int(reply["limits"][key])
                for key in ("areas", "contexts", "channels", "slots", "slot_size", "buffers")
            }
            (events_fd,) = _named_fds(fds, reply, "events_fd")
        with resources("keeping what tells of the remote"):
            self._events_fd = above_streams(events_fd)
        # Replies are read where calls are made; here only the connection's end matters.
        with resources("watching the daemon"):
            self._control.register(self._client.fileno(), select.EPOLLRDHUP)
            self._control.register(self._events_fd, select.EPOLLIN)

    @property
    def until(self) -> float:
        """When what is asked ends at the latest, `time.monotonic()`."""
        return self._client.until

    @until.setter
    def until(self, until: float) -> None:
        self._client.until = until

    @property
    def control_fd(self) -> int:
        """An epoll descriptor over the connection's end and the daemon's events; -1 once closed."""
        return -1 if self._control.closed else self._control.fileno()

    def process_control(self) -> LinkError | None:
        """The daemon is gone, or the remote was lost."""
        error: LinkError | None = None
        for fd, _ in self._control.poll(0):
            if fd == self._events_fd and self._take_events():
                if error is None:
                    error = self._loss
            else:
                self._control.unregister(fd)
                gone = DaemonGone(f"the daemon at {self._path} went away; connect again")
                self._client.fail(gone)
                assert self._client.broken is not None
                kept = fresh_copy(self._client.broken)
                error = kept if isinstance(kept, LinkError) else gone
        return error

    def _take_events(self) -> bool:
        """False: the daemon has closed its end."""
        self._loss = None
        try:
            told = os.read(self._events_fd, _EVENTS_AT_ONCE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        *events, rest = (self._told + told).split(b"\0")
        self._told = rest[:_WORDS_MAX]
        for event in events:
            self._rung += 1
            self._understand(event.decode(errors="replace"), self._rung > self._known)
        return bool(told)

    def _understand(self, event: str, concerns: bool) -> None:
        """One event; `concerns`: it came after the channel was opened."""
        if event.startswith(SHUT):
            channel = event.removeprefix(SHUT)
            if concerns and channel.isdecimal() and self._loss is None:
                self._loss = shut_by_remote(int(channel))
            return
        self._why = one_line(event, _WORDS_MAX) or self._why
        if concerns:
            self._loss = lost(self._why)

    def recover(self) -> None:
        """The daemon restarts the remote and registers the areas. A channel that failed alone is
        closed.
        """
        if self._client.broken is not None:
            raise DaemonGone(f"the daemon at {self._path} went away; connect again")
        self.close_channel(self._channel)

    def allocate(self, size_bytes: int, heap: str | None) -> Grant:
        """Allocates and registers memory."""
        return self._granted("Allocate", size=size_bytes, heap=heap)

    def regions(self) -> dict[str, int]:
        """What the remote offers."""
        return self._ask(
            lambda reply: {str(item["name"]): int(item["size"]) for item in reply["regions"]},
            "ListRegions",
        )

    def _ask(
        self, understand: Callable[[dict[str, Any]], _T], method: str, **parameters: Any
    ) -> _T:
        """A call whose answer carries no descriptors."""
        reply, fds = self._client.call(method, **parameters)
        with self._client.understanding(method, fds):
            _named_fds(fds, reply)
            return understand(reply)

    def open_region(self, name: str) -> Grant:
        """Registers memory of the remote's. Raises BadArgument for a name it does not offer."""
        return self._granted("OpenRegion", name=name)

    def _granted(self, method: str, **parameters: Any) -> Grant:
        reply, fds = self._client.call(
            method,
            undo=lambda late: self._client.tell("Free", area=late.get("area")),
            **parameters,
        )
        with self._client.understanding(method, fds):
            memory_fd, sync_fd = _named_fds(fds, reply, "memory_fd", "sync_fd?")
            return Grant(
                int(reply["area"]),
                int(reply["size"]),
                int(reply["flags"]),
                memory_fd,
                str(reply["heap"]),
                int(reply["offset"]),
                bool(reply["trusted"]),
                sync_fd,
            )

    def free(self, area: int) -> None:
        """Unregisters memory."""
        self._end("Free", area, area=area)

    def _end(self, method: str, key: int | str, **parameters: Any) -> None:
        """Ends something. Another attempt waits for the one that was given up."""
        call = self._ending.get((method, key))
        if call is None:
            call = self._ending[method, key] = self._client.begin(method, **parameters)
        try:
            reply, fds = self._client.wait(call)
            with self._client.understanding(method, fds):
                _named_fds(fds, reply)
        finally:
            if call.done:
                del self._ending[method, key]

    def open_channel(self, geometry: Geometry, priority: int) -> ChannelGrant:
        """Opens a channel of the context."""
        reply, fds = self._client.call(
            "OpenChannel",
            slots=geometry.slots,
            slot_size=geometry.slot_size_bytes,
            priority=priority,
            undo=lambda late: self._client.tell("CloseChannel", channel=late.get("channel")),
        )
        with self._client.understanding("OpenChannel", fds):
            descriptors = _named_fds(fds, reply, "memory_fd", "ring_fd", "wake_fd")
            known = int(reply["events"])
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
            granted = ChannelGrant(int(reply["channel"]), int(reply["epoch"]), priority, rings)
        if self._channel < 0:  # else it is one beside that, and what was lost since is news
            self._known, self._channel = known, granted.id
        return granted

    def close_channel(self, channel: int) -> None:
        """Tells the daemon, which may have closed it."""
        if channel == self._channel:
            self._channel = -1
        if channel >= 0:
            self._client.tell("CloseChannel", channel=channel)

    def find_service(self, name: str, version: int) -> Service:
        """A service of the remote."""
        return self._ask(
            lambda reply: Service(int(reply["service"]), name, int(reply["version"])),
            "FindService",
            name=name,
            version=version,
        )

    def services(self) -> list[Service]:
        """All services of the remote."""
        return self._ask(
            lambda reply: [
                Service(int(item["id"]), str(item["name"]), int(item["version"]))
                for item in reply["services"]
            ],
            "ListServices",
        )

    def serve(self, name: str, version: int) -> int:
        """Offers a service of this process to the remote."""
        return self._ask(
            lambda reply: int(reply["service"]),
            "Serve",
            name=name,
            version=version,
            undo=lambda _: self._client.tell("Unserve", name=name),
        )

    def unserve(self, name: str) -> None:
        """Withdraws it."""
        self._end("Unserve", name, name=name)

    def open_raw(self, endpoint: str, match: RawMatch) -> RawGrant:
        """Opens an endpoint of the remote's firmware, if the daemon's policy lets this user."""
        reply, fds = self._client.call(
            "OpenRaw",
            endpoint=endpoint,
            match=asdict(match),
            undo=lambda late: self._client.tell("CloseRaw", raw=late.get("raw")),
        )
        with self._client.understanding("OpenRaw", fds):
            (answers_fd,) = _named_fds(fds, reply, "answers_fd")
            return RawGrant(int(reply["raw"]), answers_fd)

    def send_raw(self, raw: int, message: RawMessage) -> None:
        """Has the daemon fill in the addresses and send a message."""
        self._ask(
            lambda _: None,
            "SendRaw",
            raw=raw,
            number=message.number,
            message=b64encode(message.template).decode(),
            fixups=[asdict(each) for each in message.fixups],
            buffers=[asdict(each) for each in message.buffers],
        )

    def settle_raw(self, raw: int, number: int) -> None:
        """A message was answered."""
        self._ask(lambda _: None, "SettleRaw", raw=raw, number=number)

    def close_raw(self, raw: int) -> None:
        """Ends one, once all is answered."""
        self._ask(lambda _: None, "CloseRaw", raw=raw)

    def request_power(self, request: str, khz: int, timeout_s: float) -> None:
        """Asks the remote by way of the daemon, which may wait for it to be started first."""
        frequency = khz if request == "frequency" else None
        self._ask(
            lambda _: None,
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

    def restart(self) -> None:
        """Has the daemon do it, if its policy lets this user."""
        left = min(self.until - time.monotonic(), _RESTART_S)
        milliseconds = self._client.milliseconds_left(left)
        self._ask(lambda _: None, "Restart", longer_s=max(left, 0.0), timeout_ms=milliseconds)

    def describe(self) -> dict[str, Any]:
        """The daemon's List."""
        return self._ask(dict, "List")

    def usage(self) -> dict[str, Any]:
        """The daemon's Stat."""
        return self._ask(dict, "Stat")

    def close(self) -> None:
        """Ends the connection; the daemon destroys the context."""
        self._client.close()
        if not self._control.closed:
            self._control.close()
        if self._events_fd >= 0:
            os.close(self._events_fd)
            self._events_fd = -1


def _named_fds(fds: list[int], reply: dict[str, Any], *names: str) -> list[int]:
    """The descriptors of a reply by name, -1 where one "name?" is absent.

    ProtocolError unless these are what came.
    """
    places = [reply.get(name.removesuffix("?")) for name in names]
    given = [place for place in places if place is not None]
    missing = any(
        place is None and not name.endswith("?") for name, place in zip(names, places, strict=True)
    )
    if missing or len(given) != len(fds) or {*given} != {*range(len(fds))}:
        raise ProtocolError(
            f"the daemon sent {len(fds)} descriptors where {', '.join(names)} were due"
        )
    return [-1 if place is None else fds[place] for place in places]
