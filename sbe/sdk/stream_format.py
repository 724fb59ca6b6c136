"""What the frames of a stream are. In a file of its own: programs without streams load no more."""

from __future__ import annotations

from typing import NamedTuple

from sbe.errors import BadArgument

__all__ = ["StreamFormat"]

_FORMATS = {"int16": "S16_LE", "int32": "S32_LE", "uint8": "U8", "float32": "FLOAT_LE"}


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
            if not isinstance(getattr(self, name), int) or not 0 < getattr(self, name) <= most:
                raise BadArgument(f"{name}: {getattr(self, name)!r} is not between 1 and {most}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        sizes = {"uint8": 1, "int16": 2}
        return self.channels * sizes.get(self.dtype, 4)

    @property
    def name(self) -> str:
        """As services know it."""
        return _FORMATS[self.dtype]
