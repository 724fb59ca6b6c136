"""Control messages through rings in shared RAM, doorbells as tokens over a byte stream.

For remotes that share a window of RAM with this end and nothing else: no rpmsg, no descriptors.
docs/spec/carveout.md describes the window. Either end may start first, die and start again over
memory that keeps what was in it.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import secrets
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from sbe import _native, errors, extras
from sbe.heaps import Allocation, Heap
from sbe.heaps.carveout import CarveoutHeap
from sbe.host import files, sockets
from sbe.host.descriptors import above_streams, duplicate
from sbe.transports import PrivateRings
from sbe.transports.deathwatch import Ask, Deathwatch

__all__ = ["Carveout", "CarveoutConfig", "CarveoutTransport", "Window", "open_doorbell"]

_log = logging.getLogger("sbe.transports")

_QUEUE_MAX = 1024  # messages that wait for a remote which does not read
_RETRY_MIN_S = 0.02  # a doorbell may be lost: ring again, ever more slowly ...
_RETRY_MAX_S = 1.0
_RETRY_FOR_S = 8.0  # ... for so long after the last message that this end sent
_DEATH_S = 0.5  # from the end of a stream to the end of who was at its other end


class Window:
    """The shared RAM: one mapping of all of it, and the heap of its arena. Lives through losses."""

    def __init__(
        self, path: str | os.PathLike[str], offset_bytes: int = 0, size_bytes: int | None = None
    ) -> None:
        """Opens it. Raises BadArgument when it is too small or not as large as said."""
        self.path = os.fspath(path)
        with errors.resources(f"the shared RAM {self.path}"):
            fd = above_streams(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_SYNC))
        try:
            there = os.fstat(fd).st_size - offset_bytes
            if size_bytes is None:
                size_bytes = there
            regular = os.path.isfile(path)
            if (regular and there < size_bytes) or size_bytes < _native.CARVEOUT_WINDOW_MIN:
                raise errors.BadArgument(
                    f"the shared RAM {self.path} has {max(there, 0)} bytes from {offset_bytes}, "
                    f"{max(size_bytes, _native.CARVEOUT_WINDOW_MIN)} are needed"
                )
            self.size_bytes = size_bytes
            with errors.resources(f"the shared RAM {self.path} can't be mapped"):
                self.memory = _native.Memory(fd, size_bytes, trusted=True, offset=offset_bytes)
            arena = _native.CARVEOUT_ARENA
            self.heap = CarveoutHeap(fd, offset_bytes + arena, size_bytes - arena)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._offset = fd, offset_bytes
        self._address = 0
        self._regions: dict[str, tuple[int, int]] = {}

    def agree(self, info: dict[str, Any]) -> None:
        """Takes the remote's word on the window. Raises LinkError when it is another one."""
        if info["window_size"] != self.size_bytes:
            raise errors.LinkError(
                f"the firmware on {info['board']} shares {info['window_size']} bytes of RAM, this "
                f"end {self.size_bytes} of {self.path}: give both the same"
            )
        self._regions = {name: (offset, size) for name, offset, size in info["regions"]}
        self._address = info["window_address"]
        address = info["window_address"] + _native.CARVEOUT_ARENA
        if self.heap.address not in (None, address):
            raise errors.LinkError(
                f"the firmware now sees the arena at {address:#x}, its former life at "
                f"{self.heap.address:#x}: connect again"
            )
        self.heap.address = address

    @property
    def regions(self) -> dict[str, int]:
        """Bytes of each region that the remote owns and offers, by name."""
        return {name: size for name, (_, size) in self._regions.items()}

    def open_region(self, name: str) -> Allocation:
        """Memory of the remote, to be looked at.

        Raises LinkError for one that can't be. The name is one of `regions`.
        """
        offset, size = self._regions[name]
        first, end = _native.CARVEOUT_REGIONS, _native.CARVEOUT_ARENA
        if size == 0 or offset < first or offset + size > end or offset % mmap.PAGESIZE:
            raise errors.LinkError(
                f"the firmware's region {name!r}, {size} bytes at {offset:#x} of the shared RAM, "
                f"can't be mapped: regions lie from {first:#x} to {end:#x} and begin on a page of "
                f"{mmap.PAGESIZE} bytes"
            )
        (fd,) = duplicate((self._fd,), f"the firmware's region {name!r}")
        return Allocation(
            fd,
            size,
            coherent=True,
            offset_bytes=self._offset + offset,
            segments=((self._address + offset, size),),
            trusted=True,
            readonly=True,
        )

    def close(self) -> None:
        """Lets go; mappings of areas live on."""
        self.heap.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class CarveoutTransport:
    """One life of this end. Nothing blocks. Not thread-safe: the owner serialises.

    Owns the stream's descriptor. `agree` is told the remote's description once the two have met,
    `end` says in words why a stream has ended, None while that is not known.
    """

    carries_handles = False
    wants_write = False
    """Never: the remote's doorbell says when its ring has room, and comes as input."""

    def __init__(
        self,
        window: Window,
        stream_fd: int,
        *,
        end: Ask = lambda late: "the doorbell's stream has ended",
    ) -> None:
        self._window = window
        self._end = end
        self._watch: Deathwatch | None = None
        self._queue: deque[bytes] = deque()
        self._met = False
        self._retry_s = _RETRY_MIN_S
        self._retry_at = 0.0
        self._retry_until = 0.0
        try:
            with errors.resources("carrying doorbells over the stream"):
                self._doorbells = _native.Doorbells(stream_fd)
        finally:
            os.close(stream_fd)
        try:
            self._bootstrap = _native.Bootstrap(window.memory, secrets.randbits(32))
            self._look()
            self._rearm()
        except BaseException:
            self._doorbells.close()
            raise

    # -- the interface of Transport --------------------------------------------------------------

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send or queue a message.

        Raises MessageTooLarge, WouldBlock when the queue is full, BadArgument with descriptors.
        """
        if fds:
            raise errors.BadArgument("this link carries no descriptors")
        if not 0 < len(message) <= _native.CONTROL_MAX:
            raise errors.MessageTooLarge(f"control message of {len(message)} bytes")
        if len(self._queue) >= _QUEUE_MAX:
            raise errors.WouldBlock(
                f"the remote has left {len(self._queue)} control messages unread"
            )
        self._queue.append(message)
        self._retry_s = _RETRY_MIN_S
        self._retry_until = monotonic() + _RETRY_FOR_S
        self.flush()
        self._rearm()

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Return the next message; None when there is none.

        Raises ProtocolError for one message that is no message (go on); LinkError when the remote
        crashed or began another life, or the stream has ended.
        """
        message = self._take()
        if message is not None:
            return message, []
        events = self._doorbells.take()
        if events >> 2 & 1 or self._doorbells.closed:
            self._check_alive(bool(events >> 2 & 1))
        self._look()
        if self._bootstrap.ready:
            self.flush()
            message = self._take()
            if message is not None:
                self._doorbells.tick(1e-9)  # there may be more, and the descriptor was just read
                return message, []
        self._retry()
        return None

    def fileno(self) -> int:
        """Return a descriptor that polls readable for `receive()`, -1 once closed."""
        watched = -1 if self._watch is None else self._watch.fileno()
        return watched if watched >= 0 else self._doorbells.fileno()

    def flush(self) -> None:
        """Send what is queued, as far as the ring takes it."""
        while self._queue and self._bootstrap.ready:
            try:
                ring = self._bootstrap.send(self._queue[0])
            except errors.WouldBlock:
                return
            self._queue.popleft()
            if ring:
                self._doorbells.send(_native.TOKEN_CONTROL)

    def add_doorbells(
        self, channel: int, ring_fd: int, wake_fd: int, rings: PrivateRings | None = None
    ) -> None:
        """Carry a channel's doorbells as tokens; the descriptors stay the caller's."""
        if rings is not None:
            raise errors.BadArgument("rings of this link must lie in its shared RAM")
        with errors.resources(f"doorbells of channel {channel}"):
            self._doorbells.add(channel, ring_fd, wake_fd)

    def remove_doorbells(self, channel: int) -> None:
        """Forget a channel."""
        self._doorbells.remove(channel)

    def close(self) -> None:
        """Say goodbye and let go of everything. Closing twice is fine."""
        if self._doorbells.fileno() >= 0:
            self._doorbells.send(_native.TOKEN_GOODBYE)
            self._doorbells.close()
        if self._watch is not None:
            self._watch.close()
        self._queue.clear()

    # -- facts -----------------------------------------------------------------------------------

    @property
    def counters(self) -> dict[str, int]:
        """Tokens each way, and what was lost on the way."""
        return self._doorbells.counters()

    @property
    def info(self) -> dict[str, Any] | None:
        """What the remote says of itself and the window."""
        return self._bootstrap.info()

    # -- inside ----------------------------------------------------------------------------------

    def _take(self) -> bytes | None:
        if not self._bootstrap.ready:
            return None
        try:
            message, ring = self._bootstrap.receive()
        except errors.ProtocolError as error:
            if error.code == errno.EBADMSG:
                raise  # that one message
            self._look()  # a remote that restarts shuts the ring as well
            raise errors.LinkError(str(error)) from error
        if ring:
            self._doorbells.send(_native.TOKEN_CONTROL)
        return message

    def _look(self) -> None:
        status = self._bootstrap.look()
        if status == -errno.ECONNRESET or (self._met and not self._bootstrap.ready):
            raise errors.LinkError("the firmware restarted")
        if self._bootstrap.changed():
            self._doorbells.send(_native.TOKEN_BLOCK)
        if status == 1:
            self._meet()
        elif not self._bootstrap.ready and self._bootstrap.other_version:
            raise errors.ProtocolError(
                f"the firmware lays the window out as version {self._bootstrap.other_version}, "
                f"this end as version {_native.CARVEOUT_VERSION}: update the older end"
            )

    def _meet(self) -> None:
        info = self._bootstrap.info()
        if info is None:
            raise errors.LinkError("the firmware's description of the shared RAM is damaged")
        self._window.agree(info)
        self._met = True
        self._retry_s = _RETRY_MIN_S

    def _check_alive(self, crashed: bool = False) -> None:
        # Before the two have met, a record is that of a former life, unless its doorbell rang.
        crash = self._bootstrap.crash() if crashed or self._met else None
        if crash is not None:
            raise errors.LinkError(f"the firmware crashed: {describe_crash(crash)}")
        if self._doorbells.closed:
            self._watch = self._watch or Deathwatch(self._end, _DEATH_S)
            words = self._watch.look()
            if words is not None:
                raise errors.LinkError(words)

    def _retry(self) -> None:
        now = monotonic()
        if self._retry_at and now >= self._retry_at:
            self._check_alive()
            met = self._bootstrap.ready
            self._doorbells.send(_native.TOKEN_CONTROL if met else _native.TOKEN_BLOCK)
            self._retry_s = min(self._retry_s * 2, _RETRY_MAX_S)
            self._retry_at = 0.0
        self._rearm()

    def _rearm(self) -> None:
        now = monotonic()
        if self._bootstrap.ready and not self._queue and now >= self._retry_until:
            self._retry_at = 0.0
            return
        if not self._retry_at or self._retry_at > now + self._retry_s:
            self._retry_at = now + self._retry_s
        self._doorbells.tick(max(self._retry_at - now, 1e-3))


def describe_crash(crash: dict[str, Any]) -> str:
    """One line for people."""
    if crash["kind"] == "assert":
        return f"{crash['text']} (near {crash['pc']:#010x})"
    return (
        f"{crash['text']} at pc {crash['pc']:#010x}, lr {crash['lr']:#010x} "
        f"(CFSR {crash['cfsr']:#010x}, HFSR {crash['hfsr']:#010x})"
    )


def open_doorbell(where: str) -> int:
    """Open the byte stream that "unix:PATH" or "serial:DEVICE[,BAUD]" names; its descriptor.

    Raises BadArgument for anything else, LinkError when it can't be opened.
    """
    scheme, _, rest = where.partition(":")
    if scheme == "unix" and rest:
        with errors.resources(f"the doorbell {rest}"):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)  # where too many wait to be accepted, EAGAIN
                with sockets.address(rest) as address:
                    sock.connect(address)
            except BaseException:
                sock.close()
                raise
            return sock.detach()
    if scheme == "serial" and rest:
        return _open_serial(*rest.partition(",")[::2])
    raise errors.BadArgument(f"{where!r} is no doorbell: say unix:PATH or serial:DEVICE,BAUD")


def _open_serial(device: str, baud: str) -> int:
    try:
        import serial
    except ImportError as error:
        raise errors.LinkError(
            extras.missing("a serial doorbell", error, "serial") or str(error)
        ) from error
    try:
        with serial.Serial(device, int(baud or 115200), exclusive=True) as port:
            return os.dup(port.fileno())
    except (OSError, ValueError) as error:
        raise errors.LinkError(f"the doorbell {device}: {error}") from error


@dataclass(frozen=True)
class CarveoutConfig:
    """A carve-out link, as configured: see docs/tutorials/cortex-m.md.

    `memory` is a file or device that can be mapped, from `offset` for `size` bytes (None: all).
    """

    memory: str
    doorbell: str
    offset: int = 0
    size: int | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CarveoutConfig:
        """Read a TOML file with these keys. Raises BadArgument which names what is wrong."""
        return cls.parse(files.read_toml(path), os.fspath(path))

    @classmethod
    def parse(cls, values: dict[str, Any], where: str) -> CarveoutConfig:
        """Check a table of these keys. Raises BadArgument which names what is wrong."""
        kinds: dict[str, type] = {"memory": str, "doorbell": str, "offset": int, "size": int}
        for key, value in values.items():
            if key not in kinds:
                raise errors.BadArgument(f"{where}: {key!r} is not one of {', '.join(kinds)}")
            if type(value) is not kinds[key] or (isinstance(value, int) and value < 0):
                raise errors.BadArgument(f"{where}: {key} = {value!r} is no {kinds[key].__name__}")
        for key in ("memory", "doorbell"):
            if not values.get(key):
                raise errors.BadArgument(f"{where}: {key} is missing")
        return cls(**values)


class Carveout:
    """A remote whose power is not ours: each `connect()` begins another life of this end.

    Pass `connect` to a Link, and `heaps` to its contexts. Not thread-safe.
    """

    pid = None

    def __init__(self, config: CarveoutConfig, name: str = "carveout") -> None:
        self.name = name
        self.uri = f"carveout:{name}"
        self.transport = "carveout"
        self._config = config
        self._window: Window | None = None

    @property
    def window(self) -> Window:
        """The shared RAM, opened at the first use."""
        if self._window is None:
            self._window = Window(self._config.memory, self._config.offset, self._config.size)
        return self._window

    @property
    def heaps(self) -> dict[str, Heap]:
        """The arena."""
        return {self.window.heap.name: self.window.heap}

    def connect(self) -> CarveoutTransport:
        """Open the doorbell. Raises LinkError, BadArgument."""
        window = self.window
        return CarveoutTransport(window, open_doorbell(self._config.doorbell))

    def close(self) -> None:
        """Lets go of the shared RAM."""
        if self._window is not None:
            self._window.close()
            self._window = None
