"""Memory: areas of the application, regions of the remote."""

from __future__ import annotations

import operator

from sbe.errors import BadArgument
from sbe.sdk.area import Area
from sbe.sdk.core import Core
from sbe.sdk.staging import Stager

__all__ = ["Memory"]


class Memory:
    """Areas over a connection. Thread-safe."""

    _core: Core
    _stager: Stager

    def allocate(self, size_bytes: int, *, heap: str | None = None) -> Area:
        """Memory that both ends reach, zeroed. `heap` names where from, None the default.

        Raises BadArgument for a size that can't be, PermissionDenied beyond the quota,
        OutOfResources when there is none.
        """
        size_bytes = operator.index(size_bytes)
        if size_bytes <= 0:
            raise BadArgument(f"an area of {size_bytes} bytes")
        return self._stager.allocate(size_bytes, heap)

    def regions(self) -> dict[str, int]:
        """Memory that the remote owns and offers, its log or a sensor's buffer: bytes by name."""
        with self._core.control() as backend:
            return backend.regions()

    def region(self, name: str) -> Area:
        """Memory that the remote owns and offers, as an area that only the remote writes.

        It may change at any time: `bytes(area)` is a copy that stays. Calls take it as sbe.In.
        Raises BadArgument for a name that is not in `regions()`.
        """
        return self._core.new_area(lambda backend: backend.open_region(name))
