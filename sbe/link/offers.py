"""The services that this end offers to a remote in one context."""

from __future__ import annotations

import errno

from sbe._native import NAME_SIZE
from sbe.errors import BadArgument, OutOfResources

__all__ = ["Offers"]

_IDS = 0xFFFF  # an id fits 16 bits, and 0 is none


class Offers:
    """By name, with ids from 1; one that was given back is taken again last.

    Not thread-safe: the owner of the link serialises.
    """

    def __init__(self, most: int = _IDS) -> None:
        self._offered: dict[str, tuple[int, int]] = {}  # id and version
        self._last = 0
        self._most = most

    def add(self, name: str, version: int) -> int:
        """The id of a new service.

        BadArgument if the name is taken or can't be one, OutOfResources if there are too many.
        """
        if not (name.isprintable() and 0 < len(name.encode()) < NAME_SIZE):
            raise BadArgument(
                f"{name!r:.80} can't be a service's name, which has 1 to {NAME_SIZE - 1} bytes"
            )
        if name in self._offered:
            raise BadArgument(f"service {name!r} is served already", errno.EEXIST)
        if len(self._offered) >= self._most:
            raise OutOfResources(f"a context may offer {self._most} services at most")
        ids = {number for number, _ in self._offered.values()}
        self._last = self._last % _IDS + 1
        while self._last in ids:
            self._last = self._last % _IDS + 1
        self._offered[name] = (self._last, version)
        return self._last

    def remove(self, name: str) -> None:
        """Withdraws a service. BadArgument if there is none."""
        if self._offered.pop(name, None) is None:
            raise BadArgument(f"service {name!r:.80} is not served", errno.ENOENT)

    def look_up(self, name: str | None, index: int) -> tuple[int, int, str] | None:
        """(id, version, name) by name or by position: the answer to the remote's question."""
        if name is None:
            names = list(self._offered)
            if not 0 <= index < len(names):
                return None
            name = names[index]
        found = self._offered.get(name)
        return None if found is None else (*found, name)

    def all(self) -> list[tuple[int, int, str]]:
        """(id, version, name) of every service."""
        return [(*found, name) for name, found in self._offered.items()]
