"""Arms the points of another process, by a file that it has mapped as well (failing_calls.c)."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Gate"]

_GATE = struct.Struct("=5i16s64s")


class Gate:
    """One file; processes whose program begins with the armed name pass through it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(_GATE.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _GATE.size)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find it."""
        return {"SBE_GATE": os.fspath(self.path)}

    def arm(self, program: str, point: int, *, again: int = 0, error: int = 0) -> None:
        """The so many-th point from now on is the one, then once more the `again`-th."""
        # `left` comes last: the others are read once it has come down.
        name = program.encode()
        self._map[4 : _GATE.size] = _GATE.pack(0, again, error, 0, 0, name, b"")[4:]
        self._map[:4] = struct.pack("=i", point)

    def disarm(self) -> None:
        """Nothing happens any more; what has stays to be read."""
        self._map[:8] = bytes(8)

    @property
    def left(self) -> int:
        """Points until the one: calls that can fail, where one is to fail."""
        return self._fields()[0]

    @property
    def done(self) -> int:
        """How often a process was killed or a call failed since it was armed."""
        return self._fields()[3]

    @property
    def passed(self) -> int:
        """Points since it was armed."""
        return self._fields()[4]

    @property
    def name(self) -> str:
        """Of the last point at which something was done."""
        return self._fields()[6].split(b"\0")[0].decode()

    def _fields(self) -> tuple[int, int, int, int, int, bytes, bytes]:
        left, again, error, done, passed, program, name = _GATE.unpack(self._map[: _GATE.size])
        return left, again, error, done, passed, program, name

    @contextmanager
    def armed(self, program: str, point: int, *, again: int = 0, error: int = 0) -> Iterator[None]:
        """For as long as the block lasts."""
        self.arm(program, point, again=again, error=error)
        try:
            yield
        finally:
            self.disarm()
