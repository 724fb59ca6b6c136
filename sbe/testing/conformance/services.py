"""The services of firmware/services in numpy: references, and the services of a Python remote.

Written from the descriptions at the top of each C file, not from the code.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

import sbe

Bytes = Any


def ref_crc32(*buffers: Bytes) -> bytes:
    """As crc32 answers."""
    value = 0
    for buffer in buffers:
        value = zlib.crc32(buffer, value)
    return struct.pack("<I", value)


def ref_sobel(image: Any) -> Any:
    """|gx| + |gy|, saturated; the border is 0."""
    height, width = image.shape
    result = np.zeros((height, width), np.uint8)
    if height < 3 or width < 3:
        return result
    p = image.astype(np.int32)
    above, row, below = p[:-2], p[1:-1], p[2:]
    gx = (
        above[:, 2:] + 2 * row[:, 2:] + below[:, 2:]
        - above[:, :-2] - 2 * row[:, :-2] - below[:, :-2]
    )  # fmt: skip
    gy = (
        below[:, :-2] + 2 * below[:, 1:-1] + below[:, 2:]
        - above[:, :-2] - 2 * above[:, 1:-1] - above[:, 2:]
    )  # fmt: skip
    result[1:-1, 1:-1] = np.minimum(np.abs(gx) + np.abs(gy), 255)
    return result


def ref_fir(samples: Any, taps: Any) -> Any:
    """Exact in 64 bits, rounded, limited to 16."""
    sums = np.convolve(samples.astype(np.int64), taps.astype(np.int64))[: len(samples)]
    return np.clip((sums + 0x4000) >> 15, -32768, 32767).astype(np.int16)


def fir_input(count: int, tap_count: int, loud: bool) -> tuple[Any, Any]:
    """Samples and taps, the same each time. Loud: sums beyond 32 bits, results beyond 16."""
    random = np.random.default_rng(count + tap_count)
    samples = random.integers(-32768, 32768, count).astype(np.int16)
    if loud:
        samples[: count // 2] = -32768
        return samples, np.full(tap_count, -32768, np.int16)
    taps = random.integers(-32768, 32768, tap_count) // max(tap_count, 2)
    return samples, taps.astype(np.int16)


def crc32(payload: bytes, *buffers: memoryview) -> bytes:
    """CRC-32 of all buffers."""
    return ref_crc32(*buffers)


def echo(payload: bytes, *buffers: memoryview) -> bytes:
    """The payload."""
    return payload


def copy(payload: bytes, *buffers: memoryview) -> None:
    """The first buffer into the second."""
    source, target = buffers
    if len(source) > len(target):
        raise sbe.NoRoom("copy")
    target[: len(source)] = source


def fill(payload: bytes, *buffers: memoryview) -> None:
    """The payload's byte into every byte."""
    for buffer in buffers:
        np.frombuffer(buffer, np.uint8)[:] = payload[0]


def invert(payload: bytes, *buffers: memoryview) -> None:
    """Every bit turned over."""
    for buffer in buffers:
        array = np.frombuffer(buffer, np.uint8)
        np.invert(array, out=array)


def sobel(payload: bytes, source: memoryview, target: memoryview) -> None:
    """Edges of an image."""
    width, height = struct.unpack("<II", payload)
    image = np.frombuffer(source, np.uint8).reshape(height, width)
    np.frombuffer(target, np.uint8)[:] = ref_sobel(image).ravel()


def fir(payload: bytes, source: memoryview, target: memoryview) -> None:
    """A filter of 16-bit samples; the taps are the payload."""
    samples = np.frombuffer(source, np.int16)
    np.frombuffer(target, np.int16)[:] = ref_fir(samples, np.frombuffer(payload, np.int16))


PYTHON_SERVICES: dict[str, Callable[..., bytes | None]] = {
    "copy": copy,
    "crc32": crc32,
    "echo": echo,
    "fill": fill,
    "fir": fir,
    "invert": invert,
    "sobel": sobel,
}
