"""Messages of firmware that does not know this protocol, in its own format and with its addresses.

Here device addresses are put into them, answers are matched, caches are maintained, and memory is
kept from its heap until the firmware has answered or is gone.
"""
# No `from __future__ import annotations`: asyncvarlink reads these annotations as types.

import errno
import fcntl
import socket
import struct
import termios
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from sbe import _native
from sbe.errors import BadArgument, Busy, Error, LinkError, OutOfRange, WouldBlock, resources
from sbe.heaps import Allocation
from sbe.host.descriptors import socket_above_streams
from sbe.link.fixups import Field, Fixup, check, cut, patch, read_field, write_field
from sbe.transports import Endpoint

__all__ = ["ANSWER", "IN_FLIGHT_MAX", "RawBuffer", "RawEndpoint", "RawMatch", "RawMessage"]

ANSWER = struct.Struct("<Ii")
"""Before each message that came: the number of its call, 0 none, and a status."""
IN_FLIGHT_MAX = 64
_UNREAD_MAX = 1 << 16  # bytes of messages that answer nothing
_SEND_BUFFER = 1 << 19  # all answers that can come, whatever the kernel adds to each
_TURN = 64  # messages taken at a time
_U32_MAX = 0xFFFFFFFF


@dataclass(frozen=True)
class RawMatch:
    """How answers are told apart: "id" (one of ours, which the firmware repeats), "order" (it
    answers one after the other) or "caller" (who gets all that comes, and settles what it answers).

    request: where the id goes; answer: where it comes back.
    """

    how: str
    request: Field | None = None
    answer: Field | None = None


@dataclass(frozen=True)
class RawBuffer:
    """A range of an area, in bytes, and its direction as in a frame."""

    area: int
    offset: int
    size: int
    direction: int


class RawMessage(NamedTuple):
    """A message to be sent, and the number by which its answer will be known, 0 none."""

    number: int
    template: bytes
    fixups: Sequence[Fixup]
    buffers: Sequence[RawBuffer]


class Holder(Protocol):
    """Whose areas they are."""

    def hold(self, area: int) -> Allocation:
        """Its memory, which stays until `let_go()`. Raises AreaFreed."""

    def let_go(self, area: int) -> None:
        """The other end uses it no more."""


@dataclass
class _Open:
    """A message that was sent and not answered."""

    identity: int
    buffers: tuple[RawBuffer, ...]
    memories: list[Allocation] = field(default_factory=list)


class RawEndpoint:
    """One endpoint of a context. Not thread-safe: it belongs to the owner of the link.

    What is in flight when nobody wants answers any more stays in flight: the endpoint is kept until
    the firmware has answered or is gone, and with it the memory.
    """

    def __init__(self, holder: Holder, endpoint: Endpoint, match: RawMatch, line: int) -> None:
        """Takes over the endpoint. `line`: bytes of a cache line. Raises BadArgument."""
        self._holder, self._endpoint, self._match, self._line = holder, endpoint, match, line
        self._open: dict[int, _Open] = {}
        self._by_id: dict[int, int] = {}
        self._last_id = 0
        self._closed = False
        self.sent = 0
        """Messages."""
        self.answered = 0
        """Of them, those that were."""
        self.late = 0
        """Of these, those whose answer nobody wanted any more."""
        self.unmatched = 0
        """Messages that answered nothing."""
        self.dropped = 0
        """Of them, those that nobody had read by then."""
        _check_match(match)
        with resources("making a socket for raw messages"):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._told, self._reader = socket_above_streams(near), socket_above_streams(far)
            self._told.setblocking(False)
            self._told.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    @property
    def name(self) -> str:
        """As the firmware announces it."""
        return self._endpoint.name

    @property
    def address(self) -> int:
        """The firmware's, 0: there are none."""
        return self._endpoint.address

    @property
    def match(self) -> str:
        """How answers are told apart."""
        return self._match.how

    @property
    def in_flight(self) -> int:
        """Messages that are unanswered."""
        return len(self._open)

    def hand_over(self) -> int:
        """The end of the socket that tells of answers; the caller's."""
        return self._reader.detach()

    def fileno(self) -> int:
        """Readable when `process()` has something to do."""
        return self._endpoint.fileno()

    @property
    def ended(self) -> bool:
        """Nothing is expected of it any more: close it."""
        return self._closed and not self._open

    # -- there ---------------------------------------------------------------------------------

    def send(
        self, number: int, template: bytes, fixups: Sequence[Fixup], buffers: Sequence[RawBuffer]
    ) -> None:
        """Sends a message whose answer will be known by this number, 0 none; not sent on error.

        Raises BadArgument, OutOfRange, AreaFreed, WouldBlock when the endpoint takes none just now,
        Busy when too many are unanswered, LinkError.
        """
        if self._closed:
            raise LinkError("the endpoint is gone", errno.ENODEV)
        if not 0 <= number <= _U32_MAX or number in self._open:
            raise BadArgument(f"{number!s:.40} is no number of a new message")
        if number == 0 and buffers:
            raise BadArgument(
                "a message without an answer has no buffers: nothing would say that the firmware "
                "has let go of them"
            )
        if len(self._open) >= IN_FLIGHT_MAX:
            raise Busy(f"{IN_FLIGHT_MAX} messages of this endpoint have not been answered")
        if len(buffers) > _native.BUFFERS_MAX:
            raise BadArgument(f"{len(buffers)} buffers: at most {_native.BUFFERS_MAX} are possible")
        check(len(template), fixups, len(buffers), self._match.request)
        entry = _Open(self._new_id(), tuple(buffers))
        try:
            for buffer in entry.buffers:
                entry.memories.append(self._holder.hold(buffer.area))
            runs = [
                self._runs(buffer, memory)
                for buffer, memory in zip(entry.buffers, entry.memories, strict=True)
            ]
            message = patch(template, fixups, runs)
            if self._match.request is not None:
                write_field(message, self._match.request, entry.identity, "the id")
            # As sbe_cache_handover() of the core, SBE_GIVE: no dirty line, whatever the direction.
            for buffer, memory in zip(entry.buffers, entry.memories, strict=True):
                if not memory.coherent and memory.attachment is not None:
                    memory.attachment.sync_for_device(buffer.offset, buffer.size)
            if not self._endpoint.send(bytes(message)):
                raise WouldBlock("the endpoint takes no message just now")
        except BaseException:
            self._let_go(entry)
            raise
        self.sent += 1
        if number != 0:
            self._open[number] = entry
            self._by_id[entry.identity] = number

    def _new_id(self) -> int:
        where = self._match.request
        most = _U32_MAX if where is None else min((1 << where.width) - 1, _U32_MAX)
        while True:
            self._last_id = self._last_id % most + 1
            if self._last_id not in self._by_id:
                return self._last_id

    def _runs(self, buffer: RawBuffer, memory: Allocation) -> list[tuple[int, int]]:
        offset, size = buffer.offset, buffer.size
        if size < 1 or offset < 0 or size > memory.size_bytes - offset:
            raise OutOfRange(
                f"{size!s:.40} bytes at {offset!s:.40} of area {buffer.area:#x} leave its "
                f"{memory.size_bytes}"
            )
        if buffer.direction not in (
            _native.DIR_IN,
            _native.DIR_OUT,
            _native.DIR_INOUT,
            _native.DIR_SHARED,
        ):
            raise BadArgument(f"{buffer.direction!s:.40} is no direction")
        if not memory.segments:
            raise BadArgument(
                f"area {buffer.area:#x} has no device address: allocate it from another heap"
            )
        writes = buffer.direction != _native.DIR_IN
        if writes and memory.readonly:
            raise BadArgument(f"area {buffer.area:#x} is read-only")
        if not memory.coherent and buffer.direction == _native.DIR_SHARED:
            raise BadArgument(f"area {buffer.area:#x} is not coherent: it can't be Shared")
        if writes and not memory.coherent and (offset % self._line or size % self._line):
            raise BadArgument(
                f"the firmware writes {size} bytes at {offset} of area {buffer.area:#x}: they must "
                f"begin and end at multiples of a cache line, {self._line} bytes"
            )
        return cut(memory.segments, offset, size)

    # -- and back ------------------------------------------------------------------------------

    def process(self) -> None:
        """Takes what came, some messages at most. Never blocks, raises nothing."""
        for _ in range(_TURN):
            try:
                message = self._endpoint.receive()
            except LinkError:
                self._gone()
                return
            if message is None:
                return
            number = self._find(message)
            if number == 0:
                self._tell_unmatched(message)
            else:
                self.settle(number, message)

    def settle(self, number: int, message: bytes | None = None) -> None:
        """A message was answered: its memory is the application's. One that is not open is fine."""
        entry = self._open.pop(number, None)
        if entry is None:
            return
        del self._by_id[entry.identity]
        self.answered += 1
        self.late += self._closed
        status = 0
        try:
            for buffer, memory in zip(entry.buffers, entry.memories, strict=True):
                writes = buffer.direction != _native.DIR_IN  # SBE_TAKE_BACK
                if writes and not memory.coherent and memory.attachment is not None:
                    memory.attachment.sync_for_cpu(buffer.offset, buffer.size)
        except Error as error:
            status = -error.code
        self._let_go(entry)
        if message is not None:
            self._tell(ANSWER.pack(number, status) + message)

    def _find(self, message: bytes) -> int:
        if self._match.how == "order":
            return next(iter(self._open), 0)
        if self._match.answer is None:
            return 0
        identity = read_field(message, self._match.answer)
        return 0 if identity is None else self._by_id.get(identity, 0)

    def _tell_unmatched(self, message: bytes) -> None:
        self.unmatched += 1
        if self._closed:
            return
        unread = bytearray(4)
        fcntl.ioctl(self._told, termios.TIOCOUTQ, unread)
        if int.from_bytes(unread, "little") > _UNREAD_MAX:
            self.dropped += 1
        else:
            self._tell(ANSWER.pack(0, 0) + message)

    def _tell(self, message: bytes) -> None:
        try:
            if self._told.fileno() >= 0:
                self._told.send(message)
        except OSError:  # who reads nothing, or is gone, hears no more
            self.abandon()

    def _gone(self) -> None:
        """The firmware has stopped: nothing of it writes any more."""
        self.abandon()
        while self._open:
            self._let_go(self._open.popitem()[1])
        self._by_id.clear()

    def _let_go(self, entry: _Open) -> None:
        for buffer, _ in zip(entry.buffers, entry.memories, strict=False):
            self._holder.let_go(buffer.area)
        entry.memories.clear()

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Nothing is sent any more. What is in flight is waited for, and told: `ended`."""
        self._closed = True

    def abandon(self) -> None:
        """Nobody is told any more. What is in flight is waited for."""
        self._closed = True
        self._told.close()
        self._reader.close()

    def release(self) -> None:
        """Removes the endpoint itself."""
        self.abandon()
        self._endpoint.close()


def _check_match(match: RawMatch) -> None:
    if match.how not in ("id", "order", "caller"):
        raise BadArgument(f"{match.how!r:.40} is no way to match answers: id, order or caller")
    if (match.how == "id") != (match.request is not None) or (match.request is None) != (
        match.answer is None
    ):
        raise BadArgument("an id has a place in the message and one in its answer; nothing else")
    if match.answer is not None and match.request is not None:
        for where in (match.request, match.answer):
            check(1 << 16, (), 0, where)
        if match.answer.width < match.request.width:
            raise BadArgument("the id in the answer is narrower than the one in the message")
