"""Opening streams: one part of a connection, over its core."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from sbe import _native
from sbe.errors import BadArgument, Error, ProtocolError, from_status
from sbe.link.rings import Geometry
from sbe.sdk.core import Core
from sbe.sdk.stream_format import StreamFormat, whole
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S, ends_at, time_left

if TYPE_CHECKING:
    from sbe.sdk.stream import Stream
    from sbe.sdk.stream_queue import StreamQueue
    from sbe.sdk.stream_wire import Settings

__all__ = ["Streams"]

_RINGS = Geometry(32, 256)  # an event takes 104 bytes, OPEN 144
_PRIORITY = 2  # before calls: a stream has its time
_PERIODS = 20  # a fifth of a second: what an application may be late
_PERIODS_A_SECOND = 100
_BLOCKS_MAX = 16  # half of the ring's slots: the rest is for what else is asked and told
_ids: Iterator[int] = itertools.count(1)
_Kind = TypeVar("_Kind", bound="Stream")


class Streams:
    """What a connection opens streams with. Any thread may use it at any time."""

    _core: Core

    def open_stream(
        self,
        service: str,
        direction: str,
        format: StreamFormat,
        *,
        period_frames: int | None = None,
        buffer_frames: int | None = None,
        on_xrun: str = "stop",
        on_suspend: str = "go on",
        endless: bool = False,
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> Stream:
        """Opens a stream of the remote, prepared to be started.

        `direction` is "playback" (to the remote) or "capture". `period_frames` are the frames from
        one event to the next, by default a hundredth of a second; with 0 there are none, and the
        position is to be read. `buffer_frames` are whole periods, by default twenty. The
        remote may have longer ones: `stream.period_frames` and `buffer_frames` are what was agreed.
        `on_xrun`: "stop", or "go on" with silence (playback) or over the oldest frames (capture).
        `on_suspend`: "go on", so that the remote refuses to be suspended while frames move, with
        Busy, or "pause": it is suspended, and the stream with it at the position that it had. It
        stays so (`state`, an event; frames that would have to wait raise StreamError) until, the
        remote being awake again, `resume()` goes on there, or `prepare()` or `stop()` gives up.
        `endless`: the buffer's frames over and over, without an xrun.

        Raises UnknownService, RemoteError where the remote refuses, BadArgument, OutOfResources.
        """
        from sbe.sdk.stream import Stream  # on use: programs without streams do without its weight
        from sbe.sdk.stream_wire import Mode

        settings = _settings(direction, format, period_frames, buffer_frames)._replace(
            goes_on=_says("on_xrun", on_xrun, "stop", "go on"),
            pauses=_says("on_suspend", on_suspend, "go on", "pause"),
            mode=Mode.ENDLESS if endless else Mode.CYCLIC,
        )
        return _open(self._core, Stream, service, settings, timeout)

    def open_queue(
        self,
        service: str,
        direction: str,
        format: StreamFormat,
        *,
        block_frames: int | None = None,
        blocks: int = 4,
        on_xrun: str = "stop",
        on_suspend: str = "go on",
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> StreamQueue:
        """Opens a stream whose memory are blocks that the application queues, of any areas.

        `block_frames` are those of a block at most, by default a hundredth of a second; `blocks`,
        how many may be queued at a time. The remote may have others: `stream.block_frames` and
        `stream.blocks` are what was agreed. `on_xrun`, when the queue is empty: "stop", or "go on"
        with silence (playback) or without the frames that no block was there for (capture).

        The rest is as in `open_stream()`.
        """
        from sbe.sdk.stream_queue import StreamQueue
        from sbe.sdk.stream_wire import Mode

        blocks = whole("blocks", blocks, 1, _BLOCKS_MAX)
        settings = _settings(direction, format, block_frames, None)._replace(
            goes_on=_says("on_xrun", on_xrun, "stop", "go on"),
            pauses=_says("on_suspend", on_suspend, "go on", "pause"),
            mode=Mode.QUEUE,
        )
        if settings.period_bytes == 0:
            raise BadArgument("block_frames: a block has frames")
        settings = settings._replace(buffer_bytes=settings.period_bytes * blocks)
        if settings.buffer_bytes > _native.STREAM_BUFFER_MAX:
            raise BadArgument(f"{blocks} blocks have more than {_native.STREAM_BUFFER_MAX} bytes")
        return _open(self._core, StreamQueue, service, settings, timeout)


def _open(
    core: Core, kind: type[_Kind], service: str, settings: Settings, timeout: float | None
) -> _Kind:
    """Negotiates and opens: a channel of its own, and an area with the block and the data."""
    from sbe.sdk.stream_wire import Mode, Op, request

    until = ends_at(timeout)
    _, number = core.prepare_until(service, until)
    opened: list[_native.Channel] = []
    try:
        channel = core.open_another(_RINGS, _PRIORITY, opened, until)
        channel.names[number] = service
        asked = request(Op.NEGOTIATE, 0, more=settings.pack())
        reply = channel.call(number, (), asked, time_left(until))
        result, agreed = _agreed(settings, reply.payload, service)
        if result != 0:
            raise from_status(result, _asked(settings, service), remote=True)
        stride = max(_native.STREAM_STRIDE_MIN, core.table.line_bytes)
        block = stride * _native.STREAM_BLOCK_RECORDS
        data = 0 if agreed.mode is Mode.QUEUE else agreed.buffer_bytes
        area = core.allocate(block + data, None, until)
        stream = kind(core, service, number, next(_ids), agreed, channel, area, stride)
        stream._begin(time_left(until))
        stream.prepare()
        return stream
    except BaseException:
        # With the channel the stream ends at the remote, and the area when nobody has it.
        with contextlib.suppress(Error):  # why there is no stream counts
            for channel in opened:
                core.close_another(channel)
        raise


def _agreed(settings: Settings, answer: bytes, service: str) -> tuple[int, Settings]:
    try:
        return settings.agreed(answer)
    except ProtocolError as error:
        raise ProtocolError(f"is {service!r} a stream? {error}", error.code) from error


def _asked(settings: Settings, service: str) -> str:
    """What the remote was asked for, for its refusal."""
    dtype, channels, rate_hz = settings.format
    what = f"{settings.direction.name.lower()} of {dtype} with {channels} channels at {rate_hz} Hz"
    return f"stream {service!r}, asked for {what},"


def _says(name: str, given: str, no: str, yes: str) -> bool:
    if given not in (no, yes):
        raise BadArgument(f"{name}: {given!r} is neither {no!r} nor {yes!r}")
    return given == yes


def _settings(
    direction: str,
    format: StreamFormat,
    period_frames: int | None,
    buffer_frames: int | None,
) -> Settings:
    from sbe.sdk.stream_wire import Direction, Mode, Settings

    if not isinstance(format, StreamFormat):
        raise TypeError(f"format: a sbe.StreamFormat, not {format!r}")
    format.check()
    format = format._replace(channels=int(format.channels), rate_hz=int(format.rate_hz))
    ways = {way.name.lower(): way for way in Direction}
    if direction not in ways:
        raise BadArgument(f"direction: {direction!r} is neither 'playback' nor 'capture'")
    frame = format.frame_bytes
    most = _native.STREAM_BUFFER_MAX // frame
    if period_frames is None:
        period_frames = max(1, format.rate_hz // _PERIODS_A_SECOND)
    period_frames = whole("period_frames", period_frames, 0, most)
    if buffer_frames is None:
        buffer_frames = _PERIODS * (period_frames or format.rate_hz // _PERIODS_A_SECOND or 1)
    buffer_frames = whole("buffer_frames", buffer_frames, 1, most)
    if period_frames and buffer_frames < period_frames:
        raise BadArgument(
            f"a period of {period_frames} frames is larger than the buffer of {buffer_frames}"
        )
    return Settings(
        format,
        ways[direction],
        buffer_frames * frame,
        period_frames * frame,
        mode=Mode.CYCLIC,
        goes_on=False,
    )
