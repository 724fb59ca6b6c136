"""Two sessions, or one session at the end of a socket, without threads: helpers of the tests."""

from __future__ import annotations

import gc
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sbe import _native, errors
from sbe.transports.seqpacket import SeqpacketTransport

SERVICES = {"echo": (1, 1), "crc32": (2, 3)}
LAYOUT = _native.layout()


def field(message: bytes, structure: str, name: str) -> int:
    at, size = LAYOUT[structure][name]
    return int.from_bytes(message[at : at + size], "little")


def count_fds() -> int:
    gc.collect()  # what earlier tests left to the collector is not ours to count
    return len(os.listdir("/proc/self/fd"))


class Recorder:
    """A handler that grants everything and writes down what it was told."""

    def __init__(self, services: dict[str, tuple[int, int]] | None = None) -> None:
        self.out: deque[bytes] = deque()
        self.sent: list[bytes] = []
        self.states: list[int] = []
        self.refusals: list[tuple[int, bool, int, int]] = []
        self.replies: list[tuple[Any, int, Any]] = []
        self.events: list[tuple[int, int]] = []
        self.areas: dict[int, tuple[int, int, int, int]] = {}
        self.channels: dict[int, tuple[int, ...]] = {}
        self.services = SERVICES if services is None else services

    def send(self, message: bytes) -> None:
        self.out.append(message)
        self.sent.append(message)

    def area_attach(
        self, area: int, context: int, flags: int, size: int, handles: int, segments: object
    ) -> int:
        self.areas[area] = (context, flags, size, handles)
        return 0x10000

    def area_detach(self, area: int) -> None:
        del self.areas[area]

    def channel_open(self, channel: int, *rest: int) -> None:
        self.channels[channel] = rest

    def channel_close(self, channel: int) -> None:
        del self.channels[channel]

    def service(self, context: int, name: str | None, index: int) -> tuple[int, int, str] | None:
        names = list(self.services)
        if name is None:
            name = names[index] if index < len(names) else ""
        return (*self.services[name], name) if name in self.services else None

    def state_changed(self, state: int) -> None:
        self.states.append(state)

    def refused(self, why: int, theirs: bool, peer_min: int, peer_max: int) -> None:
        self.refusals.append((why, theirs, peer_min, peer_max))

    def replied(self, token: Any, status: int, reply: Any) -> None:
        self.replies.append((token, status, reply))

    def event(self, event: int, value: int) -> None:
        self.events.append((event, value))


class End:
    """A session and its recorder."""

    def __init__(self, role: int, *, handler: Recorder | None = None, **options: Any) -> None:
        self.handler = handler or Recorder()
        self.session = _native.Session(self.handler, role=role, **options)


def handles_of(message: bytes) -> int:
    """How many handles a message announces, as a transport would carry beside it."""
    layout = _native.layout()
    kind = int.from_bytes(message[:2], "little")
    structure = {
        _native.CONTROL_AREA_MAP: "sbe_area_map",
        _native.CONTROL_CHANNEL_OPEN: "sbe_channel_open",
    }.get(kind)
    if structure is None:
        return 0
    at, size = layout[structure]["handles"]
    return int.from_bytes(message[at : at + size], "little")


class Pair:
    """A host and a remote, back to back in memory. Messages move when `run()` is called."""

    LIMIT = 1000  # messages of one run: beyond it the ends talk for ever

    def __init__(
        self, host: dict[str, Any] | None = None, remote: dict[str, Any] | None = None
    ) -> None:
        self.host = End(_native.ROLE_HOST, **(host or {}))
        self.remote = End(_native.ROLE_REMOTE, **(remote or {}))
        self.statuses: list[int] = []

    def run(self) -> None:
        for _ in range(self.LIMIT):
            moved = False
            for source, sink in ((self.host, self.remote), (self.remote, self.host)):
                if source.handler.out:
                    message = source.handler.out.popleft()
                    self.statuses.append(sink.session.receive(message, handles_of(message)))
                    moved = True
            if not moved:
                return
        raise AssertionError("the two ends never stop talking")

    def connect(self) -> Pair:
        self.remote.session.start(2)
        self.host.session.start(1)
        self.run()
        assert self.host.session.state == _native.SESSION_CONNECTED
        assert self.remote.session.state == _native.SESSION_CONNECTED
        return self


class SocketRecorder(Recorder):
    """The remote's handler over a transport: takes and keeps the descriptors of areas."""

    def __init__(self) -> None:
        super().__init__()
        self.transport: SeqpacketTransport | None = None
        self.fds: list[int] = []  # of the message at hand, not taken yet
        self.area_fds: dict[int, int] = {}
        self.refuse: errors.Error | None = None

    def send(self, message: bytes) -> None:
        assert self.transport is not None
        self.sent.append(message)
        self.transport.send(message)

    def area_attach(
        self, area: int, context: int, flags: int, size: int, handles: int, segments: object
    ) -> int:
        if self.refuse is not None:
            raise self.refuse
        if handles:
            self.area_fds[area] = self.fds.pop()
        return super().area_attach(area, context, flags, size, handles, segments)

    def area_detach(self, area: int) -> None:
        super().area_detach(area)
        if area in self.area_fds:
            os.close(self.area_fds.pop(area))


class PythonRemote:
    """A remote in this process for a Link: `link = Link(remote.connect)`.

    It runs inside the link's own sends, before they return, so nothing waits for a thread. With
    `deaf` it only runs by `step()`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = {"role": _native.ROLE_REMOTE, **options}
        self.handler = SocketRecorder()
        self.epoch = 100
        self.deaf = False
        self.session: _native.Session | None = None
        self.connections = 0

    def connect(self) -> PumpedTransport:
        self.die()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connections += 1
        self.handler.transport = SeqpacketTransport(theirs)
        self.session = _native.Session(self.handler, **self.options)
        self.restart()
        return PumpedTransport(ours, self.pump)

    def restart(self) -> None:
        """Start the session again, behind the same transport."""
        assert self.session is not None
        self.epoch += 1
        self.session.start(self.epoch)

    def pump(self) -> None:
        """Take all that the link has sent; nothing while deaf."""
        while not self.deaf and self.step():
            pass

    def step(self) -> bool:
        """Take one message. False: there was none."""
        transport, session = self.handler.transport, self.session
        if transport is None or session is None:
            return False
        try:
            transport.flush()
            got = transport.receive()
        except errors.LinkError:
            self.die()
            return False
        if got is None:
            return False
        message, self.handler.fds = got
        try:
            session.receive(message, len(self.handler.fds))
        finally:
            for fd in self.handler.fds:
                os.close(fd)
            self.handler.fds = []
        return True

    def die(self) -> None:
        """As a process that is killed: everything goes, the connection ends."""
        if self.session is not None:
            self.session.lost()
        if self.handler.transport is not None:
            self.handler.transport.close()
        self.session = self.handler.transport = None


class PumpedTransport(SeqpacketTransport):
    """Lets the remote run after each message."""

    def __init__(self, sock: socket.socket, pump: Callable[[], None]) -> None:
        super().__init__(sock)
        self._pump = pump

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        super().send(message, fds)
        self._pump()
