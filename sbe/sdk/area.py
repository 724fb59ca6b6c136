"""Area: memory that both ends reach. A buffer for numpy, a descriptor for calls."""

from __future__ import annotations

import functools
import weakref
from typing import Any, Protocol

from sbe import _native
from sbe.errors import BadArgument

__all__ = ["Area", "buffer_dtype"]


@functools.cache
def buffer_dtype() -> Any:
    """The numpy dtype of one descriptor, as `Connection.batch()` takes them."""
    import numpy as np

    kinds = {1: "u1", 2: "<u2", 4: "<u4", 8: "<u8"}
    fields = _native.layout()["sbe_wire_buffer"]
    return np.dtype(
        {
            "names": list(fields),
            "formats": [kinds[size] for _, size in fields.values()],
            "offsets": [offset for offset, _ in fields.values()],
        }
    )


def _u64(numbers: Any) -> Any:
    """An array of them, unless they would change on the way into a descriptor."""
    import numpy as np

    given = np.asarray(numbers)
    # Python integers beyond 64 bits come as objects.
    if given.dtype.kind not in "iu" or (given.dtype.kind == "i" and (given < 0).any()):
        raise BadArgument("offsets and sizes are integers from 0 to 2^64 - 1")
    return given


class _Owner(Protocol):
    def free(self, area: Area) -> None:
        """Has the remote let go of it."""


class Area(_native.Memory):
    """Memory shared with the remote, from `Connection.allocate()`.

    It has the buffer protocol: `np.frombuffer(area, np.uint8)` shows it without a copy, and
    `area[a:b]` is a range of it that a call takes as it is, as it takes a contiguous numpy slice.
    It is freed by `free()`, at the end of a `with` block, or when its connection closes; arrays
    that still show it stay valid until they are gone. One that is dropped, and that no array,
    memoryview, slice, pool or call in flight shows any more, is freed with the connection's next
    control operation, such as `allocate()`. Any thread may use it.
    """

    heap: str
    _owner: weakref.ref[_Owner]

    @property
    def size_bytes(self) -> int:
        """Bytes, as `size`."""
        return self.size

    def free(self) -> None:
        """Unregisters the area; the remote has let go of it when this returns.

        Raises `Busy` while a transaction that names it is unanswered: the remote may still
        write it. Raises `Timeout` when the remote does not let go in time, and may be called
        again then. Once it has succeeded, a further call does nothing. Called by a signal handler
        or a finaliser in the middle of a control operation, it is done when that ends.
        """
        owner = self._owner()
        if owner is not None:
            owner.free(self)

    def descriptors(self, direction: type[_native.Buffer], offsets: Any, sizes: Any) -> Any:
        """A numpy array of descriptors for `Connection.batch()`.

        `direction` is sbe.In, sbe.Out, sbe.InOut or sbe.Shared; offsets and sizes are in bytes,
        scalars or arrays of one shape, which is the result's. They name the area and do not keep
        it: keep it until the batch has ended.
        """
        import numpy as np

        codes = {
            _native.In: _native.DIR_IN,
            _native.Out: _native.DIR_OUT,
            _native.InOut: _native.DIR_INOUT,
            _native.Shared: _native.DIR_SHARED,
        }
        if direction not in codes:
            raise BadArgument("the direction is sbe.In, sbe.Out, sbe.InOut or sbe.Shared")
        offsets, sizes = np.broadcast_arrays(_u64(offsets), _u64(sizes))
        result = np.zeros(offsets.shape, buffer_dtype())
        result["area"] = self.id
        result["direction"] = codes[direction]
        result["offset"] = offsets
        result["size"] = sizes
        return result

    def __enter__(self) -> Area:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()

    def __repr__(self) -> str:
        state = "freed" if self.freed else f"{self.size} bytes"
        return f"<sbe.Area {self.id}: {state}>"
