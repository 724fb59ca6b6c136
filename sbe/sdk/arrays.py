"""What the SDK does with numpy, which is imported on use and need not be there."""

from __future__ import annotations

import errno
import functools
from typing import Any

from sbe import _native
from sbe.errors import BadArgument, OutOfResources

__all__ = ["array", "buffer_dtype", "numpy", "u64"]


def numpy(feature: str) -> Any:
    """The package, for `feature`. Raises OutOfResources that says how to get it."""
    try:
        import numpy as np
    except ImportError as error:
        from sbe import extras

        words = extras.missing(feature, error, "numpy")
        raise OutOfResources(words or f"{feature} needs numpy: {error}", errno.ENOPKG) from error
    return np


@functools.cache
def buffer_dtype() -> Any:
    """The numpy dtype of one descriptor, as `Connection.batch()` takes them.

    Raises OutOfResources where there is no numpy.
    """
    np = numpy("sbe.buffer_dtype()")
    kinds = {1: "u1", 2: "<u2", 4: "<u4", 8: "<u8"}
    fields = _native.layout()["sbe_wire_buffer"]
    return np.dtype(
        {
            "names": list(fields),
            "formats": [kinds[size] for _, size in fields.values()],
            "offsets": [offset for offset, _ in fields.values()],
        }
    )


def u64(numbers: Any) -> Any:
    """An array of them, unless they would change on the way into a descriptor."""
    given = numpy("Area.descriptors()").asarray(numbers)
    # Python integers beyond 64 bits come as objects.
    if given.dtype.kind not in "iu" or (given.dtype.kind == "i" and (given < 0).any()):
        raise BadArgument("offsets and sizes are integers from 0 to 2^64 - 1")
    return given


def array(memory: _native.Memory, dtype: Any, shape: Any, offset_bytes: int) -> Any:
    """An array over memory, from an offset on. BadArgument where it does not fit.

    PermissionDenied where memory may not be mapped.
    """
    np = numpy("Area.array()")
    if not memory.mapped:
        memoryview(memory)  # numpy would say that it is no buffer
    try:
        kind = np.dtype(dtype)
        fits = (memory.size - offset_bytes) // kind.itemsize if kind.itemsize else 0
        if kind.hasobject or not 0 <= offset_bytes <= memory.size:
            raise ValueError("it would hold Python objects, or start outside")
        return np.ndarray(fits if shape is None else shape, kind, memory, offset_bytes)
    except (TypeError, ValueError) as error:
        raise BadArgument(
            f"no array of dtype {dtype!r} and shape {shape!r} lies at byte {offset_bytes!r} of "
            f"{memory!r}: {error}"
        ) from error
