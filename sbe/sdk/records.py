"""Records of the wire for Python, by the extension's layout: there is no second copy of it."""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable
from typing import Any

from sbe import _native
from sbe.errors import ProtocolError

__all__ = ["Record", "signed"]

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Record:
    """A structure of the wire. Fields are unsigned numbers; others than of 1 to 8 bytes, bytes."""

    def __init__(self, structure: str, *arrays: str) -> None:
        """`arrays`: fields that are bytes though they have a number's size."""
        fields = _native.layout()[structure]
        parts, end = ["<"], 0
        for name, (offset, size) in sorted(fields.items(), key=lambda item: item[1]):
            parts.append(f"{offset - end}x" if offset > end else "")
            parts.append(f"{size}s" if name in arrays else _CODES.get(size, f"{size}s"))
            end = offset + size
        self._names = tuple(sorted(fields, key=lambda name: fields[name]))
        self._struct = struct.Struct("".join(parts))
        self.size = self._struct.size

    def pack(self, **values: int | bytes) -> bytes:
        """Its bytes; what is not given is zero."""
        zeros = self._struct.unpack(bytes(self.size))
        given = [values.pop(field, zero) for field, zero in zip(self._names, zeros, strict=True)]
        assert not values, f"no fields: {sorted(values)}"
        return self._struct.pack(*given)

    def unpack(self, data: bytes, name: str) -> dict[str, Any]:
        """Its fields. For another number of bytes ProtocolError, with that name."""
        if len(data) != self.size:
            raise self._misfit(data, name)
        return dict(zip(self._names, self._struct.unpack(data), strict=True))

    def reader(self, *fields: str) -> Callable[[bytes, str], tuple[Any, ...]]:
        """Unpacks these fields alone, two or more, in this order: for what comes often."""
        size, unpack = self.size, self._struct.unpack
        pick = operator.itemgetter(*map(self._names.index, fields))

        def read(data: bytes, name: str) -> tuple[Any, ...]:
            if len(data) != size:
                raise self._misfit(data, name)
            picked: tuple[Any, ...] = pick(unpack(data))
            return picked

        return read

    def _misfit(self, data: bytes, name: str) -> ProtocolError:
        return ProtocolError(f"{name} of {len(data)} bytes, not {self.size}")


def signed(number: int) -> int:
    """A 32-bit field that has a sign."""
    return number - (1 << 32) if number >> 31 else number
