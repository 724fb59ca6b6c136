"""Area: memory that both ends reach. A buffer for numpy, a descriptor for calls."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from sbe import _native
from sbe.errors import BadArgument
from sbe.sdk import arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

    _Scalar = TypeVar("_Scalar", bound=np.generic)

__all__ = ["Area"]


class _Owner(Protocol):
    def free(self, area: Area) -> None:
        """Has the remote let go of it."""


class Area(_native.Memory):
    """Memory shared with the remote, from `Connection.allocate()`.

    `area.array(np.uint8)` shows it to numpy without a copy, as its buffer protocol does elsewhere;
    `area[a:b]` is a range of it that a call takes as it is, as it takes a contiguous numpy slice.
    It is freed by `free()`, at the end of a `with` block, or when its connection closes; arrays
    that still show it stay valid until they are gone. One that is dropped, and that no array,
    memoryview, slice, pool or call in flight shows any more, is freed with the connection's next
    control operation, such as `allocate()`. Any thread may use it.

    `line_bytes` is more than 1 where caches are maintained: what the remote writes goes by copy
    unless it begins and ends at multiples of that, and a message's, which nobody copies back, is
    refused.

    Where `mapped` is False only devices reach the memory, as that of a protected heap: calls take
    the area and ranges of it, and whatever would show its bytes raises PermissionDenied.
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

    @overload
    def array(
        self,
        dtype: type[_Scalar],
        shape: int | tuple[int, ...] | None = None,
        *,
        offset_bytes: int = 0,
    ) -> NDArray[_Scalar]: ...

    @overload
    def array(
        self,
        dtype: DTypeLike,
        shape: int | tuple[int, ...] | None = None,
        *,
        offset_bytes: int = 0,
    ) -> NDArray[Any]: ...

    def array(
        self,
        dtype: DTypeLike,
        shape: int | tuple[int, ...] | None = None,
        *,
        offset_bytes: int = 0,
    ) -> NDArray[Any]:
        """A numpy array over this memory, without a copy: what is written there the remote sees.

        It begins `offset_bytes` into the area; without a shape it is one row of all that fits. It
        stays valid when the area is freed, and is read-only where the remote alone writes. Raises
        BadArgument for what does not fit and for Python objects, PermissionDenied for memory that
        may not be mapped, OutOfResources without numpy.
        """
        made: NDArray[Any] = arrays.array(self, dtype, shape, offset_bytes)
        return made

    def descriptors(self, direction: type[_native.Buffer], offsets: Any, sizes: Any) -> Any:
        """A numpy array of descriptors for `Connection.batch()`.

        `direction` is sbe.In, sbe.Out, sbe.InOut or sbe.Shared; offsets and sizes are in bytes,
        scalars or arrays of one shape, which is the result's. They name the area and do not keep
        it: keep it until the batch has ended. Rows that the remote writes begin and end at
        multiples of `line_bytes`, or fail with EINVAL. Raises OutOfResources without numpy.
        """
        np = arrays.numpy("Area.descriptors()")
        codes = {
            _native.In: _native.DIR_IN,
            _native.Out: _native.DIR_OUT,
            _native.InOut: _native.DIR_INOUT,
            _native.Shared: _native.DIR_SHARED,
        }
        if direction not in codes:
            raise BadArgument("the direction is sbe.In, sbe.Out, sbe.InOut or sbe.Shared")
        offsets, sizes = np.broadcast_arrays(arrays.u64(offsets), arrays.u64(sizes))
        result = np.zeros(offsets.shape, arrays.buffer_dtype())
        result["area"] = self.id
        result["direction"] = codes[direction]
        result["offset"] = offsets
        result["size"] = sizes
        return result

    def __enter__(self) -> Area:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()

    async def __aenter__(self) -> Area:
        return self

    async def __aexit__(self, *_: object) -> None:
        """As `free()`, for asyncio: the loop goes on while the remote lets go."""
        import asyncio

        await asyncio.shield(asyncio.to_thread(self.free))

    def __repr__(self) -> str:
        access = ", not mapped" if not self.mapped else ", read-only" if self.readonly else ""
        state = "freed" if self.freed else f"{self.size} bytes of {self.heap}{access}"
        return f"<sbe.Area {self.id}: {state}>"
