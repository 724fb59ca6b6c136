"""The C core for Python. Statuses become `sbe.errors` exceptions in the extension itself."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, Final, Protocol, Self, TypeAlias, final

from _typeshed import structseq
from typing_extensions import disjoint_base

# Anything with the buffer protocol; numpy declares its own only from Python 3.12 on.
_BufferProtocol: TypeAlias = Any

RELEASE: str
VERSION_MIN: int
VERSION_MAX: int
MAGIC: int
ASG_STORAGE: int
ASG_BUFFER_MAX: int
ASG_OPEN: int
ASG_RING: int
CONTROL_MAX: int
NAME_SIZE: int
SLOT_ALIGN: int
MEMORY_MAP: int
MEMORY_MAP_STEP: int
MEMORY_UNMAPPED: int
AT_WORK: int
AT_WORK_BEATS: int
AT_WORK_TRANSACTIONS: int
SLOTS_MAX: int
SLOT_SIZE_MAX: int
MIRROR_SLOT_MAX: int
BUFFERS_MAX: int
DIR_IN: int
DIR_OUT: int
DIR_INOUT: int
DIR_SHARED: int
BUFFER_INLINE: int
AREA_COHERENT: int
AREA_READONLY: int
AREA_RING: int
FRAME_HEADER_SIZE: int
FRAME_REQUEST: int
FRAME_RESPONSE: int
FRAME_MESSAGE: int
FRAME_SYNC: int
FRAME_EVENT: int
FRAME_CANCEL: int
CONTEXT_OWNER: int
ROLE_HOST: int
ROLE_REMOTE: int
EVENT_CHANNEL_BROKEN: int
EVENT_SUSPEND: int
EVENT_RESUME: int
EVENT_FREQUENCY: int
EVENT_ANSWERED: int
ANSWERED_SHIFT: int
CONTROL_REPLY: int
CONTROL_HELLO: int
CONTROL_BYE: int
CONTROL_PING: int
CONTROL_CONTEXT_CREATE: int
CONTROL_CONTEXT_DESTROY: int
CONTROL_AREA_MAP: int
CONTROL_AREA_UNMAP: int
CONTROL_CHANNEL_OPEN: int
CONTROL_CHANNEL_CLOSE: int
CONTROL_SERVICE_FIND: int
CONTROL_SERVICE_LIST: int
CONTROL_EVENT: int
STREAM_FORMAT_SIZE: int
STREAM_STRIDE_MIN: int
STREAM_BUFFER_MAX: int
STREAM_GROUP_MAX: int
STREAM_BLOCK_RECORDS: int
STREAM_NEGOTIATE: int
STREAM_OPEN: int
STREAM_QUERY: int
STREAM_PREPARE: int
STREAM_START: int
STREAM_PAUSE: int
STREAM_RESUME: int
STREAM_DRAIN: int
STREAM_STOP: int
STREAM_CLOSE: int
STREAM_QUEUE_BLOCK: int
STREAM_SETUP: int
STREAM_PREPARED: int
STREAM_RUNNING: int
STREAM_PAUSED: int
STREAM_DRAINING: int
STREAM_XRUN: int
STREAM_SUSPENDED: int
STREAM_DISCONNECTED: int
STREAM_PLAYBACK: int
STREAM_CAPTURE: int
STREAM_CYCLIC: int
STREAM_ENDLESS: int
STREAM_QUEUE: int
STREAM_XRUN_STOPS: int
STREAM_XRUN_GOES_ON: int
STREAM_SUSPEND_REFUSED: int
STREAM_SUSPEND_PAUSES: int
STREAM_EVENT_PERIOD: int
STREAM_EVENT_STATE: int
STREAM_EVENT_XRUN: int

def layout() -> dict[str, dict[str, tuple[int, int]]]:
    """Offset and size of every field of every wire structure (firmware/core/wire.h)."""

def ring_size(slots: int, slot_size: int, line: int, /) -> int:
    """Bytes of one ring's memory. BadArgument on illegal geometry."""

class NeedsStaging(Exception):
    """A buffer outside every area is too large to ride inline."""

@final
class Cost(structseq[int], tuple[int, int, int, int, int, int]):
    """What one transaction cost."""

    __match_args__: Final = (
        "copied_bytes",
        "synced_bytes",
        "doorbells",
        "queue_ns",
        "remote_ns",
        "total_ns",
    )
    @property
    def copied_bytes(self) -> int: ...
    @property
    def synced_bytes(self) -> int: ...
    @property
    def doorbells(self) -> int: ...
    @property
    def queue_ns(self) -> int: ...
    @property
    def remote_ns(self) -> int: ...
    @property
    def total_ns(self) -> int: ...

@disjoint_base
class Memory:
    """A shared mapping with the buffer protocol, unmapped when its last view is gone."""

    size: int
    id: int
    holds: int
    address: int
    freed: bool
    readonly: bool
    mapped: bool
    line_bytes: int
    def __new__(
        cls,
        fd: int,
        size: int,
        *,
        readonly: bool = False,
        trusted: bool = False,
        offset: int = 0,
        sync_fd: int = -1,
    ) -> Self: ...
    def _at_death(self, function: Callable[[int], object], /) -> None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> Slice: ...
    def __setitem__(self, key: slice, value: _BufferProtocol, /) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Slice:
    """A contiguous range of an area: a descriptor and a buffer."""

    area: Memory
    offset: int
    size: int
    stands_alone: bool
    def _first(self, size: int, /) -> Slice: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> Slice: ...
    def __setitem__(self, key: slice, value: _BufferProtocol, /) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Table:
    """The areas that the channels of one link may name. Guarded by the GIL."""

    line_bytes: int
    def __new__(cls, capacity: int) -> Self: ...
    def __len__(self) -> int: ...
    def add(self, memory: Memory, id: int, context: int, flags: int = 0, /) -> None:
        """Makes memory an area."""
    def remove(self, memory: Memory, force: bool = False, /) -> None:
        """The area is freed; views of it stay valid. Busy while it is held, unless forced."""
    def locate(self, target: Any, /) -> Slice | None:
        """The range of an area whose memory this object shows, or None."""

@disjoint_base
class Buffer:
    """A buffer of a message: a target and a direction, seen from the remote."""

    target: Any
    direction: int
    def __new__(cls, target: Any) -> Self: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class In(Buffer):
    """The remote reads it."""

@final
class Out(Buffer):
    """The remote writes it."""

@final
class InOut(Buffer):
    """The remote reads and writes it."""

@final
class Shared(Buffer):
    """Both ends read and write it at once; coherent memory only."""

@final
class Reply:
    """What a service answered."""

    payload: bytes
    cost: Cost
    written: tuple[int, ...]

@final
class Call:
    """One transaction in flight, a future. Any thread may wait for it."""

    transaction: int
    in_flight: bool
    def result(self, timeout: float | None = None) -> Reply:
        """Waits for the reply, seconds; raises what went wrong."""
    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits; what went wrong, or None."""
    def done(self) -> bool:
        """True when it has ended, well or not."""
    @property
    def deadline(self) -> float | None:
        """When it is given up, by time.monotonic(); None never."""
    def __await__(self) -> Generator[Any, None, Reply]:
        """As result(), in an asyncio loop; cancelling the task cancels the call."""
    def future(self) -> Future[Reply]:
        """The same as a future of concurrent.futures; cancelling that one cancels the call."""
    def cancel(self) -> bool:
        """Gives it up; its buffers stay held until the remote answers. False if ended."""
    def _expire(self) -> None:
        """Its deadline has passed."""
    def _charge(self, copied_bytes: int, /) -> None:
        """Adds bytes copied on its behalf to its cost."""
    def add_done_callback(self, callback: Callable[[Call], object], /) -> None:
        """callback(call) once ended, in the thread that noticed."""

@final
class Request:
    """A call from the other end, or one it has given up: `type` is FRAME_CANCEL, and `transaction`
    that of a request that was taken."""

    payload: bytes
    buffers: tuple[memoryview, ...]
    service: int
    transaction: int
    cancelled: bool
    type: int
    def respond(
        self,
        payload: _BufferProtocol = b"",
        status: int = 0,
        written: Sequence[int] | None = None,
    ) -> None:
        """Answers it, once; later answers do nothing."""

@final
class Channel:
    """This process's end of a channel. Any thread may use it at any time."""

    id: int
    context: int
    names: dict[int, str]
    error: BaseException | None
    waits: Callable[[], object] | None
    in_flight: int
    spin_s: float
    slot_size: int
    def __new__(
        cls,
        table: Table,
        rings: Memory,
        id: int,
        context: int,
        slots: int,
        slot_size: int,
        line: int,
        send_offset: int,
        receive_offset: int,
        ring_fd: int,
        wake_fd: int,
        control_fd: int = -1,
        on_control: Callable[[], None] | None = None,
        max_calls: int = 4096,
        opener: bool = False,
        max_buffers: int = ...,
    ) -> Self: ...
    def call(
        self,
        service: int,
        buffers: tuple[Buffer, ...] = (),
        payload: _BufferProtocol = b"",
        timeout: float | None = None,
        wait: bool = True,
        /,
    ) -> Reply:
        """Sends a request and waits for its reply; timeout in seconds."""
    def submit(
        self,
        service: int,
        buffers: tuple[Buffer, ...] = (),
        payload: _BufferProtocol = b"",
        timeout: float | None = None,
        wait: bool = True,
        /,
    ) -> Call:
        """Sends a request; a full ring waits, or raises WouldBlock."""
    def sync(
        self,
        service: int,
        buffers: tuple[Buffer, ...] = (),
        payload: _BufferProtocol = b"",
        timeout: float | None = None,
        wait: bool = True,
        /,
    ) -> Call:
        """Hands buffers over and back without calling a service; service and payload are 0, b''."""
    def send(
        self,
        service: int,
        buffers: tuple[Buffer, ...] = (),
        payload: _BufferProtocol = b"",
        timeout: float | None = None,
        wait: bool = True,
        /,
    ) -> None:
        """A message that nobody answers."""
    def batch(
        self,
        service: int,
        count: int,
        per_call: int,
        descriptors: _BufferProtocol,
        payloads: _BufferProtocol,
        payload_size: int,
        statuses: _BufferProtocol,
        written: _BufferProtocol,
        replies: _BufferProtocol,
        reply_size: int,
        timeout: float | None = None,
    ) -> None:
        """Many calls at once; results go to the given arrays."""
    def poll(self) -> bool:
        """Takes what came. True: nothing is left, and the next frame rings the doorbell."""
    def let_go_in_child(self) -> None:
        """In a forked child, closes what it inherited; the parent's goes on."""
    def nudge(self) -> None:
        """Rings the peer in case a doorbell was lost."""
    def has_room(self) -> bool:
        """A call can be sent; if False, the doorbell rings when it can."""
    def failed(self) -> bool:
        """It is dead; `error` says why."""
    def fileno(self) -> int:
        """This end's doorbell, for select and poll."""
    def fail(self, error: BaseException, /) -> None:
        """Kills the channel; everything open fails with the error."""
    def next_request(self, timeout: float | None = None, /) -> Request | None:
        """Waits for a request of the peer, seconds; None at the timeout."""
    def counters(self) -> dict[str, int]:
        """What happened so far."""

CARVEOUT_REGIONS: int
CARVEOUT_ARENA: int
CARVEOUT_WINDOW_MIN: int
CARVEOUT_VERSION: int
CARVEOUT_REMOTE: int
TOKEN_CONTROL: int
TOKEN_BLOCK: int
TOKEN_CRASHED: int
TOKEN_GOODBYE: int

def restore_reply(
    service: int | str,
    payload: bytes,
    written: tuple[int, ...],
    cost: tuple[int, int, int, int, int, int],
    /,
) -> Reply:
    """A Reply that was pickled."""

def describe_window(window: Memory, address: int, board: str, image: str, /) -> None:
    """Says where a remote sees the window and what it is, before its end of it begins.

    Raises BadArgument for a name of more than 31 bytes.
    """

def read_crash(window: Memory, /) -> dict[str, Any] | None:
    """The crash record in the shared RAM of a carve-out link.

    kind, one of "fault", "assert", "access", "execute", "stack", "alignment", "division",
    "instruction", "interrupt"; text and service, "" none; backtrace, a tuple of addresses; the
    rest, transaction and registers among it, as numbers.
    """

@final
class Bootstrap:
    """One end of the control rings in a window of shared RAM."""

    ready: bool
    taken: bool
    generation: int
    peer_generation: int
    other_version: int
    def __new__(cls, window: Memory, seed: int, role: int = ...) -> Self: ...
    def look(self) -> int:
        """Looks at the peer's block: 0, 1 the rings may be used, or -ECONNRESET."""
    def send(self, message: _BufferProtocol, /) -> bool:
        """Sends a message; True: ring the peer. WouldBlock: it rings when there is room."""
    def receive(self) -> tuple[bytes | None, bool]:
        """The next message, and whether to ring the peer."""
    def changed(self) -> bool:
        """Our block says something new since the last call: ring the peer."""
    def info(self) -> dict[str, Any] | None:
        """What the remote says of itself."""
    def crash(self) -> dict[str, Any] | None:
        """The crash record of the remote's present life."""

@final
class Doorbells:
    """The eventfds of many channels over one byte stream, an interrupt, or an endpoint each."""

    closed: bool
    def __new__(cls, stream_fd: int = -1, register: Slice | None = ..., value: int = 0) -> Self: ...
    def add(
        self,
        channel: int,
        ring_fd: int,
        wake_fd: int,
        endpoint_fd: int = -1,
        rings: tuple[int, int, int, int, int, int, int] | None = None,
        /,
    ) -> None:
        """From now on the channel's doorbells travel as tokens, or as messages of the endpoint.

        `rings` (descriptor, size, send and receive offset, slots, slot size, line): the remote does
        not see them, and the frames in them travel as messages.
        """
    def remove(self, channel: int, /) -> None:
        """The channel is closed."""
    def send(self, token: int, /) -> None:
        """Sends an event token."""
    def take(self) -> int:
        """Events that came since the last call, a bit each."""
    def tick(self, after_s: float, /) -> None:
        """Makes fileno() readable after so many seconds; 0 never."""
    def fileno(self) -> int:
        """Readable: events, a tick, or the stream's end."""
    def counters(self) -> dict[str, int]:
        """What happened so far."""
    def close(self) -> None:
        """Stops the thread and lets go of the stream."""

SESSION_INITIALISING: int
SESSION_WAITING: int
SESSION_INITIALISED: int
SESSION_CONNECTED: int
SESSION_CLOSING: int
SESSION_CLOSED: int
REFUSED_NOT: int
REFUSED_MAGIC: int
REFUSED_VERSION: int
REFUSED_ROLE: int
REFUSED_LIMITS: int
CONTEXT_GLOBAL: int
SEGMENTS_MAX: int

_ReplyFields: TypeAlias = tuple[int, int, str] | tuple[int] | None

class _SessionHandler(Protocol):
    def send(self, message: bytes, /) -> object: ...
    def area_attach(
        self,
        area: int,
        context: int,
        flags: int,
        size: int,
        handles: int,
        segments: tuple[tuple[int, int], ...],
        /,
    ) -> int | None: ...
    def area_detach(self, area: int, /) -> object: ...
    def channel_open(
        self,
        channel: int,
        context: int,
        ring_area: int,
        slots: int,
        slot_size: int,
        line: int,
        send_offset: int,
        receive_offset: int,
        priority: int,
        handles: int,
        /,
    ) -> object: ...
    def channel_close(self, channel: int, /) -> object: ...
    def service(
        self, context: int, name: str | None, index: int, /
    ) -> tuple[int, int, str] | None: ...
    def state_changed(self, state: int, /) -> object: ...
    def refused(self, why: int, theirs: bool, peer_min: int, peer_max: int, /) -> object: ...
    def replied(self, token: Any, status: int, reply: _ReplyFields, /) -> object: ...
    def event(self, event: int, value: int, /) -> object: ...

@final
class StreamBlock:
    """The memory in which both ends of a stream show how far they are."""

    def __new__(cls, memory: Memory, stride: int) -> Self: ...
    def status(self) -> tuple[int, int, int, int, int, int, int, int, int]:
        """What the remote shows, whole: generation, state, position, clock_ns, application,
        lost_bytes, xruns, delay_bytes, skipped."""
    def show(self, position: int, /) -> None:
        """Our position, in bytes, to the remote."""
    def sync(self, offset: int, size: int, written: bool, /) -> None:
        """Caches, for bytes we have written, or are about to read."""

@final
class AsgClient:
    """The client of an Address Space Graphics stream. Not thread-safe; 0 and False say: wait."""

    step: int
    """Bytes that fit one record."""
    unread: int
    """Bytes of replies."""
    idle: bool
    """The server has read all."""

    def __new__(cls, region: _BufferProtocol, size: int, step: int = 0) -> Self: ...
    def alloc(self, size: int, /) -> int:
        """Its offset in the region."""
    def give_back(self, size: int, /) -> None:
        """That many of it are not sent."""
    def flush(self) -> bool: ...
    def send(self, data: _BufferProtocol, sent: int, wait: bool, /) -> tuple[int, bool]:
        """Bytes sent of data so far, and whether that was all of it."""
    def read(self, target: _BufferProtocol, /) -> int: ...
    def doorbell(self) -> bool:
        """Whether to ring it."""
    def remind(self) -> None:
        """The doorbell, again, for who has waited."""

@final
class AsgServer:
    """The server of an Address Space Graphics stream. Not thread-safe; 0 says: wait."""

    def __new__(cls, region: _BufferProtocol, size: int) -> Self: ...
    def read(self, target: _BufferProtocol, /) -> int: ...
    def available(self) -> int:
        """Bytes for the next read."""
    def may_sleep(self) -> bool:
        """False: there is something."""
    def reply(self, data: _BufferProtocol, /) -> int: ...
    def close(self, failed: bool, /) -> None:
        """Tells the client."""

@final
class Session:
    def __new__(
        cls,
        handler: _SessionHandler,
        *,
        role: int,
        name: str = "sbe",
        coherent: bool = True,
        address_bits: int = 64,
        cache_line: int = 64,
        version_min: int = ...,
        version_max: int = ...,
        areas: int = 64,
        contexts: int = 64,
        channels: int = 64,
        slots: int = 4096,
        slot_size: int = 65536,
        buffers: int = ...,
        pending: int = 64,
    ) -> Session: ...
    @property
    def state(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def peer_epoch(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def line(self) -> int: ...
    @property
    def coherent(self) -> bool: ...
    @property
    def limits(self) -> dict[str, int]: ...
    @property
    def dropped(self) -> int: ...
    @property
    def peer_address_bits(self) -> int: ...
    @property
    def peer_limits(self) -> dict[str, int]: ...
    @property
    def peer_name(self) -> str: ...
    def start(self, epoch: int, /) -> None: ...
    def lost(self) -> None: ...
    def receive(self, message: _BufferProtocol, handles: int, /) -> int: ...
    def bye(self, token: object, /) -> None: ...
    def ping(self, cookie: int, token: object, /) -> None: ...
    def create_context(self, context: int, token: object, /) -> None: ...
    def destroy_context(self, context: int, token: object, /) -> None: ...
    def map_area(
        self,
        area: int,
        context: int,
        flags: int,
        size: int,
        handles: int,
        segments: Sequence[tuple[int, int]],
        token: object,
        first: int = 0,
        /,
    ) -> None: ...
    def unmap_area(self, area: int, token: object, /) -> None: ...
    def open_channel(
        self,
        channel: int,
        context: int,
        ring_area: int,
        slots: int,
        slot_size: int,
        line: int,
        send_offset: int,
        receive_offset: int,
        priority: int,
        handles: int,
        token: object,
        /,
    ) -> None: ...
    def close_channel(self, channel: int, token: object, /) -> None: ...
    def find_service(self, context: int, name: str, version: int, token: object, /) -> None: ...
    def list_service(self, index: int, token: object, /) -> None: ...
    def send_event(self, event: int, value: int, /) -> None: ...

@final
class SignalsHeld:
    """A block in which the main thread runs no handlers of signals, except in `SignalsLet()`.

    Those that came run after it. May be nested. In other threads it does nothing.
    """

    def __new__(cls) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *raised: object) -> None: ...

@final
class SignalsLet:
    """A block inside `SignalsHeld()` in which handlers run, and may raise.

    Nothing may be lost by that. Elsewhere it does nothing.
    """

    def __new__(cls) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *raised: object) -> None: ...
