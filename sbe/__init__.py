"""Structured Buffer Exchange: large buffers to a co-processor, by reference.

    import numpy as np, sbe
    with sbe.connect() as link:                        # a running daemon, else an embedded remote
        area = link.allocate(8 << 20)
        pixels = area.array(np.uint8)                  # no copy
        reply = link.call("crc32", sbe.In(pixels[:4096]))
        print(reply.payload, reply.cost)

Importing this module takes the standard library and the extension; numpy is used if you use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING as _CHECKING
from typing import Any as _Any

try:
    from sbe._native import RELEASE as __version__
    from sbe._native import Buffer, Call, Cost, In, InOut, Out, Reply, Shared
except ImportError as error:
    from sbe import extras

    raise ImportError(extras.no_extension(error), name="sbe._native") from error
from sbe.errors import (
    AreaFreed,
    BadArgument,
    Busy,
    Cancelled,
    DaemonGone,
    Error,
    LinkClosed,
    LinkError,
    MessageTooLarge,
    NoRoom,
    OutOfRange,
    OutOfResources,
    PermissionDenied,
    ProtocolError,
    RemoteError,
    RemoteRestarted,
    StreamError,
    Timeout,
    UnknownService,
    WouldBlock,
)
from sbe.sdk import (
    Area,
    BatchResult,
    Connection,
    Pool,
    Service,
    StreamFormat,
    buffer_dtype,
    connect,
)

if _CHECKING:
    from sbe.sdk.stream import Stream
    from sbe.sdk.stream_queue import StreamQueue

__all__ = [
    "Area",
    "AreaFreed",
    "BadArgument",
    "BatchResult",
    "Buffer",
    "Busy",
    "Call",
    "Cancelled",
    "Connection",
    "Cost",
    "DaemonGone",
    "Error",
    "In",
    "InOut",
    "LinkClosed",
    "LinkError",
    "MessageTooLarge",
    "NoRoom",
    "Out",
    "OutOfRange",
    "OutOfResources",
    "PermissionDenied",
    "Pool",
    "ProtocolError",
    "RemoteError",
    "RemoteRestarted",
    "Reply",
    "Service",
    "Shared",
    "Stream",
    "StreamError",
    "StreamFormat",
    "StreamQueue",
    "Timeout",
    "UnknownService",
    "WouldBlock",
    "__version__",
    "buffer_dtype",
    "connect",
]


def __getattr__(name: str) -> _Any:
    """Streams are loaded on use: programs without them do without their weight."""
    if name not in ("Stream", "StreamQueue"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "StreamQueue":
        from sbe.sdk.stream_queue import StreamQueue

        return StreamQueue
    from sbe.sdk.stream import Stream

    return Stream
