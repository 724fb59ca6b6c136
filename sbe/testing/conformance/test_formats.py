"""What a buffer's elements are: numbers and text go out, references of this process never do."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import Connector, in_a_loop, needs


class Record(ctypes.Structure):
    _fields_ = [("O", ctypes.c_int), ("X", ctypes.c_int)]


class Pointing(ctypes.Structure):
    _fields_ = [("count", ctypes.c_int), ("items", ctypes.POINTER(ctypes.c_int))]


class Text(ctypes.Structure):
    _fields_ = [("text", ctypes.c_wchar_p)]


def objects(count: int = 4) -> Any:
    return np.array([None] * count, object)


REFERENCES: dict[str, Callable[[], Any]] = {
    "objects": objects,
    "record": lambda: np.zeros(3, [("k", "O"), ("v", "<i8")]),
    "nested": lambda: np.zeros(3, [("n", "<i4"), ("in", [("deep", [("k", "O")])])]),
    "subarray": lambda: np.zeros(3, [("k", "O", (2, 3))]),
    "one-record": lambda: np.zeros(1, [("k", "O")])[0],
    "with-dates": lambda: np.zeros(3, [("k", "O"), ("t", "M8[s]")]),  # has no format to be said
    "empty": lambda: objects(0),
    "ctypes": lambda: (ctypes.py_object * 4)(),
    "pointers": lambda: (Pointing * 2)(),
    "text": lambda: (Text * 2)(),
    "strings": lambda: (ctypes.c_char_p * 2)(),
}

NUMBERS: dict[str, Callable[[], Any]] = {
    "names": lambda: np.ones(3, [("O", "<i4"), ("z&X", "<f8"), ("Z", "<i2")]),
    "ctypes-names": lambda: (Record * 3)(Record(1, 2)),
    "dates": lambda: np.arange(3).astype("M8[s]"),
    "dates-in-records": lambda: np.ones(3, [("t", "m8[s]"), ("v", "<i4")]),
    "complex": lambda: np.ones(3, complex),
    "complex-in-records": lambda: np.ones(3, [("z", "<c8", (2,)), ("w", "<c16")]),
    "halves": lambda: np.ones(3, np.float16),
    "text": lambda: np.array(["ab", "c"]),
    "void": lambda: np.zeros(3, "V7"),
    "large-endian": lambda: np.ones(3, ">i4"),
    "wide-characters": lambda: (ctypes.c_wchar * 3)("O"),
    "addresses": lambda: (ctypes.c_void_p * 3)(1),  # numbers, of a device perhaps
}


def bytes_of(value: Any) -> bytes:
    return value.tobytes() if isinstance(value, np.ndarray) else bytes(value)


@needs("echo")
@pytest.mark.parametrize("kind", REFERENCES)
@in_a_loop
async def test_references_are_refused(connect: Connector, kind: str) -> None:
    link = connect()
    value = REFERENCES[kind]()
    area = link.allocate(4096)

    def refused() -> Any:
        return pytest.raises(sbe.BadArgument, match="Python objects or pointers")

    read_only = isinstance(value, np.void)
    for direction in (sbe.In,) if read_only else (sbe.In, sbe.Out, sbe.InOut):
        given = direction(value)
        with refused():
            link.call("echo", given)
        with refused():
            link.submit("echo", sbe.In(area[:8]), given)
        with refused():
            await link.acall("echo", given)
        with refused():
            link.send("echo", given)
        with refused():
            link.sync(given)
        with refused():
            memoryview(given)  # what staging copies
    with refused():
        link.call("echo", payload=value)
    with refused():
        await link.acall("echo", payload=value)
    with refused():
        link.send("echo", payload=value)
    with refused():
        area[:8] = value
    assert link.call("echo", payload=b"on").payload == b"on"
    assert area.holds == 0


@needs("echo")
def test_references_are_refused_at_any_size(connect: Connector) -> None:
    """Large ones would be staged, those in an area go by reference."""
    link = connect()
    area = link.allocate(4096)
    in_area = (ctypes.py_object * 8).from_buffer(area)
    for value in (objects(100_000), np.zeros(9000, [("k", "O"), ("v", "<i8")]), in_area):
        for direction in (sbe.In, sbe.Out, sbe.InOut, sbe.Shared):
            with pytest.raises(sbe.BadArgument, match="Python objects or pointers"):
                link.call("echo", direction(value))
    assert link.stat()["connection"]["areas"] == 1  # nothing was staged


@needs("echo")
def test_a_batch_takes_no_references(link: sbe.Connection) -> None:
    descriptors = np.zeros((4, 0), sbe.buffer_dtype())
    with pytest.raises(sbe.BadArgument, match="payloads are uint8"):
        link.batch("echo", descriptors, np.zeros((4, 2), object))
    for wrong in (np.zeros((4, 1), object), np.zeros((4, 1), [("k", "O")])):
        with pytest.raises(sbe.BadArgument, match="buffer_dtype"):
            link.batch("echo", wrong)


@needs("crc32", "echo", "invert")
@pytest.mark.parametrize("kind", NUMBERS)
@in_a_loop
async def test_numbers_go_out_and_come_back(link: sbe.Connection, kind: str) -> None:
    value = NUMBERS[kind]()
    want = bytes_of(value)
    assert link.call("echo", payload=value).payload == want
    assert (await link.acall("echo", payload=value)).payload == want
    # Read and written there, inline; then in an area, and staged.
    link.call("invert", sbe.InOut(value))
    assert bytes_of(value) == bytes(255 - byte for byte in want)
    link.call("invert", sbe.InOut(value))
    area = link.allocate(4096)
    area[: len(want)] = value
    assert bytes(area[: len(want)]) == want
    assert link.call("crc32", sbe.In(value)).payload == (
        link.call("crc32", sbe.In(area[: len(want)])).payload
    )


@needs("invert")
def test_dates_are_staged(link: sbe.Connection) -> None:
    dates = np.arange(20_000).astype("M8[s]")
    link.call("invert", sbe.InOut(dates))
    assert (dates.view(np.int64) == ~np.arange(20_000)).all()
