"""What the frames of a stream are. In a file of its own: programs without streams load no more."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from sbe.errors import BadArgument

__all__ = ["StreamFormat", "flat", "whole"]

_FORMATS = {"int16": "S16_LE", "int32": "S32_LE", "uint8": "U8", "float32": "FLOAT_LE"}
# What memoryviews call them, with the size: l is no int32 everywhere.
_CODES = {"int16": "h2", "int32": "i4 l4", "uint8": "B1", "float32": "f4"}


class StreamFormat(NamedTuple):
    """What a frame is: `channels` numbers of `dtype`, `rate_hz` frames a second.

    dtype: "int16", "int32", "uint8" or "float32", little-endian, as numpy names them.
    """

    dtype: str
    channels: int
    rate_hz: int

    def check(self) -> None:
        """Raises BadArgument for what can't be."""
        if self.dtype not in _FORMATS:
            raise BadArgument(f"dtype: {self.dtype!r} is none of {', '.join(_FORMATS)}")
        for name, most in (("channels", 256), ("rate_hz", (1 << 32) - 1)):
            whole(name, getattr(self, name), 1, most)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        sizes = {"uint8": 1, "int16": 2}
        return self.channels * sizes.get(self.dtype, 4)

    @property
    def name(self) -> str:
        """As services know it."""
        return _FORMATS[self.dtype]


def whole(name: str, value: Any, least: int, most: int) -> int:
    """A whole number from an application, numpy's included. Raises BadArgument."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most:
        raise BadArgument(f"{name}: {value!r} is not between {least} and {most}")
    return number


def flat(format: StreamFormat, data: Any) -> memoryview:
    """The bytes of frames to be written. Raises BadArgument for other numbers than the format's:
    played as bytes they would be noise."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise BadArgument("the frames are not contiguous; copy them with numpy.ascontiguousarray()")
    plain = view.ndim == 1 and view.format in ("B", "b", "c")
    if not plain and f"{view.format}{view.itemsize}" not in _CODES[format.dtype].split():
        raise BadArgument(
            f"the frames are {format.dtype}, and this array's numbers have the type "
            f"{view.format!r}; convert them: array.astype({format.dtype!r})"
        )
    shape = view.shape or ()
    if len(shape) > 1 and shape[-1] != format.channels:
        raise BadArgument(
            f"an array of shape {shape} is no frames of {format.channels} channels: the last "
            "number is to be that of the channels"
        )
    size = view.nbytes
    if size % format.frame_bytes:
        raise BadArgument(f"{size} bytes are no whole frames of {format.frame_bytes} bytes")
    return view.cast("B") if size else memoryview(b"")
