"""Batches: thousands of calls of one service from numpy descriptor arrays."""

from __future__ import annotations

import errno
import zlib
from typing import Any

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S, Connector, needs, shown


def rows(*columns: Any) -> Any:
    """Descriptor columns side by side: one row a call."""
    return np.stack(columns, axis=1)


@needs("crc32")
def test_ten_thousand_calls(link: sbe.Connection) -> None:
    count, size = 10_000, 40
    area = link.allocate(count * size)
    pixels = shown(area)
    pixels[:] = np.random.default_rng(7).integers(0, 256, len(pixels))
    given = area.descriptors(sbe.In, np.arange(count) * size, size)
    result = link.batch("crc32", given, reply_size=4)
    result.check()
    assert not result.status.any()
    assert not result.written.any()
    got = result.payload.view("<u4").ravel()
    assert got.tolist() == [zlib.crc32(pixels[i * size : (i + 1) * size]) for i in range(count)]
    assert area.holds == 0


@needs("fill")
def test_outputs_and_sizes_written(link: sbe.Connection) -> None:
    area = link.allocate(2 << 20)
    pixels = shown(area)
    sizes = np.arange(1, 51) * area.line_bytes  # written in place: whole lines where they matter
    offsets = np.cumsum(sizes) - sizes
    values = np.arange(50, dtype=np.uint8).reshape(50, 1) + 100
    result = link.batch("fill", area.descriptors(sbe.Out, offsets, sizes), values)
    result.check()
    assert result.written.ravel().tolist() == sizes.tolist()
    assert np.array_equal(pixels[: sizes.sum()], np.repeat(values.ravel(), sizes))
    assert not pixels[sizes.sum() :].any()


@needs("copy")
def test_several_buffers_a_call(link: sbe.Connection) -> None:
    area = link.allocate(1 << 16)
    pixels = shown(area)
    pixels[: 1 << 15] = np.random.default_rng(1).integers(0, 256, 1 << 15)
    size = max(64, area.line_bytes)
    offsets = np.arange((1 << 15) // size) * size
    both = rows(
        area.descriptors(sbe.In, offsets, size),
        area.descriptors(sbe.Out, offsets + (1 << 15), size),
    )
    result = link.batch("copy", both)
    result.check()
    assert result.written.shape == (len(offsets), 2)
    assert (result.written == [0, size]).all()
    assert np.array_equal(pixels[: 1 << 15], pixels[1 << 15 :])


@needs("echo")
def test_payloads_only(link: sbe.Connection) -> None:
    sent = np.random.default_rng(2).integers(0, 256, (1000, 16), np.uint8)
    none = np.zeros((1000, 0), sbe.buffer_dtype())
    result = link.batch("echo", none, sent, reply_size=16)
    result.check()
    assert np.array_equal(result.payload, sent)
    assert result.written.shape == (1000, 0)
    longer = link.batch("echo", none, sent, reply_size=20)
    assert np.array_equal(longer.payload[:, :16], sent)
    assert not longer.payload[:, 16:].any()
    shorter = link.batch("echo", none, sent, reply_size=3)
    assert np.array_equal(shorter.payload, sent[:, :3])


@needs("echo")
@pytest.mark.parametrize("shape", [(0,), (0, 0), (0, 3)])
def test_an_empty_batch(link: sbe.Connection, shape: tuple[int, ...]) -> None:
    result = link.batch("echo", np.zeros(shape, sbe.buffer_dtype()), reply_size=4)
    result.check()
    assert len(result.status) == 0


@needs("fill")
def test_slices_and_views_of_descriptor_arrays(link: sbe.Connection) -> None:
    area = link.allocate(1 << 18)
    line = area.line_bytes
    given = area.descriptors(sbe.Out, np.arange(1000) * line, line)
    values = np.arange(1000).astype(np.uint8).reshape(1000, 1)
    link.batch("fill", given[::-2], values[::-2]).check()
    pixels = shown(area)[: 1000 * line].reshape(1000, line)
    assert np.array_equal(pixels[1::2], values[1::2].repeat(line, axis=1))
    assert not pixels[::2].any()


@needs("fill")
def test_a_wrong_row_fails_alone(link: sbe.Connection) -> None:
    size = max(10, link.allocate(1).line_bytes)
    area, gone = link.allocate(100 * size), link.allocate(1000)
    given = area.descriptors(sbe.Out, np.arange(10) * size, size)
    freed = gone.descriptors(sbe.Out, 0, 10)
    gone.free()
    given[1]["offset"] = 99 * size + 1
    given[2]["size"] = 1 << 63
    given[3] = freed
    given[4]["area"] = 0
    given[5]["direction"] = 9
    given[6]["flags"] = 1
    given[7]["offset"] = (1 << 64) - 5
    result = link.batch("fill", given, np.full((10, 1), 7, np.uint8))
    assert [errno.errorcode[-status] if status else "" for status in result.status] == [
        *("", "ERANGE", "ERANGE", "EFAULT", "EFAULT", "EINVAL", "EINVAL", "ERANGE", "", "")
    ]
    assert result.written.ravel().tolist() == [size, 0, 0, 0, 0, 0, 0, 0, size, size]
    with pytest.raises(sbe.Error, match=r"call 1 of 10 \(7 failed\)"):
        result.check()
    assert shown(area).sum() == 3 * size * 7
    assert area.holds == 0


@needs("fill")
def test_a_row_that_shares_a_cache_line_fails_alone(link: sbe.Connection) -> None:
    area = link.allocate(4096)
    if area.line_bytes == 1:
        pytest.skip("nothing is cached here that the remote does not see")
    line = area.line_bytes
    given = area.descriptors(sbe.Out, [0, line, 2 * line + 1, 4096 - line], [line, 1, line, line])
    result = link.batch("fill", given, np.full((4, 1), 7, np.uint8))
    assert result.status.tolist() == [0, -errno.EINVAL, -errno.EINVAL, 0]
    assert np.flatnonzero(shown(area)).tolist() == [*range(line), *range(4096 - line, 4096)]


@needs("fill")
def test_a_wrong_call_is_the_services_word(link: sbe.Connection) -> None:
    area = link.allocate(100)
    result = link.batch("fill", area.descriptors(sbe.Out, [0, 1], 1))  # no value to fill in
    assert (result.status != 0).all()
    with pytest.raises(sbe.UnknownService):
        link.batch("teleport", area.descriptors(sbe.In, [0], 1))
    unknown = link.batch(4711, area.descriptors(sbe.In, [0, 1], 1))
    assert unknown.status.tolist() == [-errno.ENOENT] * 2


@needs("crc32")
def test_shapes_that_cant_be(link: sbe.Connection) -> None:
    area = link.allocate(100)
    good = area.descriptors(sbe.In, [0, 1], 1)
    for bad in (np.zeros(4), [1, 2], good.reshape(1, 1, 2), np.zeros((), sbe.buffer_dtype())):
        with pytest.raises(sbe.BadArgument, match="buffer_dtype"):
            link.batch("crc32", bad)
    for wrong in (np.zeros((3, 1), np.uint8), np.zeros(2, np.uint8), np.zeros((2, 1), np.int32)):
        with pytest.raises(sbe.BadArgument, match=r"uint8 of shape \(2, bytes\)"):
            link.batch("crc32", good, wrong)
    with pytest.raises(sbe.MessageTooLarge, match="do not fit a frame"):
        link.batch("crc32", good, np.zeros((2, 5000), np.uint8))
    with pytest.raises(sbe.MessageTooLarge, match="17 buffers"):
        link.batch("crc32", np.zeros((2, 17), sbe.buffer_dtype()))
    with pytest.raises(sbe.BadArgument, match="reply_size"):
        link.batch("crc32", good, reply_size=-1)
    with pytest.raises(sbe.BadArgument, match="direction"):
        area.descriptors(bytes, 0, 1)  # type: ignore[arg-type]
    for offset, size in ((-1, 1), (0, -1), (1 << 64, 1), (0.5, 1)):
        with pytest.raises(sbe.BadArgument, match="offsets and sizes"):
            area.descriptors(sbe.In, [offset], size)


@needs("echo")
@pytest.mark.parametrize("slots", [2, 4, 1024])
def test_on_rings_of_any_size(connect: Connector, slots: int) -> None:
    link = connect(slots=min(slots, connect.slots), slot_size=128)
    sent = np.arange(3000, dtype="<u4").view(np.uint8).reshape(3000, 4)
    result = link.batch("echo", np.zeros((3000, 0), sbe.buffer_dtype()), sent, reply_size=4)
    result.check()
    assert np.array_equal(result.payload, sent)


@needs("echo")
def test_a_batch_saves_doorbells(link: sbe.Connection) -> None:
    none = np.zeros((5000, 0), sbe.buffer_dtype())
    link.batch("echo", none)
    before = link.stat()["connection"]
    link.batch("echo", none).check()
    after = link.stat()["connection"]
    assert after["sent"] - before["sent"] == 5000
    assert after["received"] - before["received"] == 5000
    assert after["doorbells"] - before["doorbells"] < 1000


@needs("echo")
def test_waiting_is_bounded(link: sbe.Connection) -> None:
    none = np.zeros((100, 0), sbe.buffer_dtype())
    with pytest.raises(sbe.BadArgument):
        link.batch("echo", none, timeout=-1)
    link.batch("echo", none, timeout=LIMIT_S).check()
    link.batch("echo", none, timeout=None).check()
