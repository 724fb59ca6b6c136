"""Byte streams of Address Space Graphics with services of the remote."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sbe import _native
from sbe.errors import Error
from sbe.link.rings import Geometry
from sbe.sdk.core import Core
from sbe.sdk.stream_format import whole
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S, ends_at

if TYPE_CHECKING:
    from sbe.sdk.byte_stream import ByteStream

__all__ = ["ByteStreams"]

_RINGS = Geometry(8, 256)  # for OPEN, and doorbells
_PRIORITY = 1  # as calls


class ByteStreams:
    """A connection's byte streams."""

    _core: Core

    def open_asg(
        self,
        service: str,
        size: int = 1 << 20,
        *,
        step: int = 4096,
        heap: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> ByteStream:
        """Opens a byte stream as Address Space Graphics has them, with a service that is one.

        Its region is an area of `asg.STORAGE_BYTES` and a transfer buffer of `size` bytes, with
        that flush interval; use it as an `asg.Client`, with `with`. `heap` as in `allocate()`: one
        whose memory both ends see at once. Raises UnknownService, RemoteError (EBUSY: the remote
        has as many as it may; EOPNOTSUPP: memory is not coherent), ProtocolError for a service that
        is no such stream.
        """
        from sbe.asg import STORAGE_BYTES
        from sbe.sdk.byte_stream import ByteStream

        size = whole("size", size, 1, _native.ASG_BUFFER_MAX)
        step = whole("step", step, 1, size)
        core, until = self._core, ends_at(timeout)
        _, number = core.prepare_until(service, until)
        opened: list[_native.Channel] = []
        try:
            channel = core.open_another(_RINGS, _PRIORITY, opened, until)
            channel.names[number] = service
            area = core.allocate(STORAGE_BYTES + size, heap, until)
            stream = ByteStream(core, channel, number, area, step, timeout)
            stream.confirm(until)
            return stream
        except BaseException:
            # With the channel the stream ends at the remote, and the area when nobody has it.
            with contextlib.suppress(Error):  # why there is no stream counts
                for each in opened:
                    core.close_another(each)
            raise
