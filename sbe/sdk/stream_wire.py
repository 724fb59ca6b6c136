"""What requests to a stream say and what comes back, as docs/spec/streams.md has it."""

from __future__ import annotations

import enum
from typing import NamedTuple

from sbe import _native
from sbe.errors import ProtocolError, StreamError
from sbe.sdk.records import Record, signed
from sbe.sdk.stream_format import StreamFormat

__all__ = [
    "Answer",
    "BlockAnswer",
    "Direction",
    "Event",
    "Mode",
    "Op",
    "Settings",
    "State",
    "StreamStatus",
]

_REQUEST = Record("sbe_stream_request")
_SETTINGS = Record("sbe_stream_settings")
_STATUS = Record("sbe_stream_status")
_ANSWER = Record("sbe_stream_answer")
_BLOCK_ANSWER = Record("sbe_stream_block_answer")
_PROPOSAL = Record("sbe_stream_proposal")
_EVENT = Record("sbe_stream_event")
_event_parts = _EVENT.reader(
    *("stream", "kind", "state", "generation", "sequence", "position", "clock_ns"),
    *("from", "bytes", "skipped", "data"),
)


class State(enum.StrEnum):
    """Where a stream is."""

    SETUP = "setup"
    PREPARED = "prepared"
    RUNNING = "running"
    PAUSED = "paused"
    DRAINING = "draining"
    XRUN = "xrun"
    SUSPENDED = "suspended"
    DISCONNECTED = "disconnected"


_STATES = {getattr(_native, f"STREAM_{state.name}"): state for state in State}


class Op(enum.IntEnum):
    """What a requester asks for."""

    NEGOTIATE = _native.STREAM_NEGOTIATE
    OPEN = _native.STREAM_OPEN
    QUERY = _native.STREAM_QUERY
    PREPARE = _native.STREAM_PREPARE
    START = _native.STREAM_START
    PAUSE = _native.STREAM_PAUSE
    RESUME = _native.STREAM_RESUME
    DRAIN = _native.STREAM_DRAIN
    STOP = _native.STREAM_STOP
    CLOSE = _native.STREAM_CLOSE
    QUEUE_BLOCK = _native.STREAM_QUEUE_BLOCK


class Direction(enum.IntEnum):
    """Which way the data flows."""

    PLAYBACK = _native.STREAM_PLAYBACK
    CAPTURE = _native.STREAM_CAPTURE


class Mode(enum.IntEnum):
    """What its memory is."""

    CYCLIC = _native.STREAM_CYCLIC
    ENDLESS = _native.STREAM_ENDLESS
    QUEUE = _native.STREAM_QUEUE


class StreamStatus(NamedTuple):
    """What the remote says of a stream, at one moment. Positions count bytes of this run."""

    generation: int
    state: State
    position_bytes: int
    """Moved by the remote, as it measured."""
    clock_ns: int
    """The remote's clock at that moment."""
    application_bytes: int
    """Written or read by this end, as last seen by the remote."""
    lost_bytes: int
    xruns: int
    delay_bytes: int
    """Moved by the remote and not yet out, or in and not yet moved."""
    skipped: int
    """Events that found no room."""


def status_of(fields: tuple[int, ...]) -> StreamStatus:
    """The same of what the extension read. Raises ProtocolError for a state that is none."""
    generation, state, *rest = fields
    if state == 0:  # before the remote has shown anything
        return StreamStatus(generation, State.SETUP, *rest)
    if state not in _STATES:
        raise ProtocolError(f"the remote shows a stream in state {state}, which is none")
    return StreamStatus(generation, _STATES[state], *rest)


def stopped(name: str, shown: StreamStatus, playback: bool) -> StreamError:
    """Why no frames move in XRUN or SUSPENDED, and what to do."""
    at = f"at byte {shown.position_bytes}"
    if shown.state is State.XRUN:
        late = f"frames did not {'come' if playback else 'go'} in time"
        words = f"an xrun of stream {name!r} {at}: {late}; prepare() begins anew"
    else:
        words = (
            f"stream {name!r} is suspended {at}, as its remote was: resume() goes on there, "
            "prepare() begins anew"
        )
    return StreamError(words, state=str(shown.state))


class Settings(NamedTuple):
    """What both ends agree on."""

    format: StreamFormat
    direction: Direction
    buffer_bytes: int
    period_bytes: int
    mode: Mode
    goes_on: bool
    pauses: bool = False
    """With a remote that is suspended, which else it can't be."""

    @property
    def overwrites(self) -> bool:
        """Bytes are lost to whoever is late, who knows best which: the remote can't see which of
        them were read just before."""
        return self.direction is Direction.CAPTURE and self.goes_on and self.mode is Mode.CYCLIC

    @property
    def endless(self) -> bool:
        """The requester's position means nothing."""
        return self.mode is Mode.ENDLESS

    def pack(self) -> bytes:
        """As it is sent."""
        return _SETTINGS.pack(
            frame_bytes=self.format.frame_bytes,
            rate_hz=self.format.rate_hz,
            buffer_bytes=self.buffer_bytes,
            period_bytes=self.period_bytes,
            direction=self.direction,
            mode=self.mode,
            on_xrun=_native.STREAM_XRUN_GOES_ON if self.goes_on else _native.STREAM_XRUN_STOPS,
            on_suspend=(
                _native.STREAM_SUSPEND_PAUSES if self.pauses else _native.STREAM_SUSPEND_REFUSED
            ),
            format=self.format.name.encode(),
        )

    def agreed(self, reply: bytes) -> tuple[int, Settings]:
        """The result of a negotiation, and these settings as the remote would have them.

        Raises ProtocolError for an answer that can't be.
        """
        fields = _PROPOSAL.unpack(reply, "a negotiation's answer")
        theirs = _SETTINGS.unpack(fields["settings"], "settings")
        result = signed(fields["result"])
        if result != 0:
            return result, self
        made = Settings(
            StreamFormat(self.format.dtype, self.format.channels, theirs["rate_hz"] or 1),
            self.direction,
            theirs["buffer_bytes"],
            theirs["period_bytes"],
            self.mode,
            self.goes_on,
            self.pauses,
        )
        if made.pack() != _SETTINGS.pack(**theirs) or not 0 < made.buffer_bytes <= (
            _native.STREAM_BUFFER_MAX
        ):
            raise ProtocolError("the remote proposes settings that were not asked for")
        return 0, made


class Answer(NamedTuple):
    """What became of a request."""

    result: int
    stream: int
    status: StreamStatus


def request(op: Op, stream: int, generation: int = 0, *, more: bytes = b"") -> bytes:
    """A request. `more`: settings, or ids of 4 bytes that START names besides."""
    count = len(more) // 4 if op is Op.START else 0
    return _REQUEST.pack(op=op, stream=stream, generation=generation, count=count) + more


def answer_of(reply: bytes) -> Answer:
    """An answer's parts. Raises ProtocolError."""
    fields = _ANSWER.unpack(reply, "a stream's answer")
    parts = _STATUS.unpack(fields["status"], "a status")
    for name in ("reserved", "reserved2"):
        parts.pop(name)
    return Answer(signed(fields["result"]), fields["stream"], status_of(tuple(parts.values())))


class BlockAnswer(NamedTuple):
    """What became of a queued block."""

    result: int
    stream: int
    generation: int
    sequence: int
    position: int
    clock_ns: int
    used_bytes: int
    state: State


def block_answer_of(reply: bytes) -> BlockAnswer:
    """An answer's parts. Raises ProtocolError."""
    fields = _BLOCK_ANSWER.unpack(reply, "a block's answer")
    if fields["state"] not in _STATES:
        raise ProtocolError(f"a block of a stream in state {fields['state']}, which is none")
    fields["state"] = _STATES[fields["state"]]
    fields["result"] = signed(fields["result"])
    return BlockAnswer(**fields)


class Event(NamedTuple):
    """What the remote tells of a stream by itself."""

    kind: str
    """"period": the position has passed the end of one, or of several; "state": it has changed;
    "xrun": bytes are lost, and once more with all of them when that ends."""
    generation: int
    sequence: int
    state: State
    position_bytes: int
    clock_ns: int
    """The remote's clock at that position."""
    lost: tuple[int, int]
    """"xrun": the first byte that is lost, and how many."""
    skipped: int
    data: tuple[int, int]
    """The service's own, a meter's levels for one."""


_KINDS = {
    _native.STREAM_EVENT_PERIOD: "period",
    _native.STREAM_EVENT_STATE: "state",
    _native.STREAM_EVENT_XRUN: "xrun",
}


def event_of(payload: bytes) -> tuple[int, Event] | None:
    """The stream's id and the event; None for one of a kind that is not known here.

    Raises ProtocolError.
    """
    stream, kind, state, generation, sequence, position, clock_ns, first, lost, skipped, data = (
        _event_parts(payload, "a stream's event")
    )
    if kind not in _KINDS:
        return None
    if state not in _STATES:
        raise ProtocolError(f"an event of a stream in state {state}, which is none")
    return stream, Event(
        _KINDS[kind],
        generation,
        sequence,
        _STATES[state],
        position,
        clock_ns,
        (first, lost),
        skipped,
        (data & 0xFFFFFFFF, data >> 32),
    )
