"""Buffers: by reference, inline and staged are the same to a service; what may be a descriptor."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import numpy as np
import pytest

import sbe
from sbe import _native
from sbe.testing.conformance.parts import Connector, in_a_loop, needs, noise, shown
from sbe.testing.conformance.services import ref_crc32

FRAME = _native.layout()["sbe_wire_frame"]
HEADER = sum(FRAME["handled_ns"])
DESCRIPTOR = sum(_native.layout()["sbe_wire_buffer"]["size"])


class Forms:
    """The same bytes as everything a buffer may be."""

    def __init__(self, link: sbe.Connection, size: int) -> None:
        self.link, self.size = link, size
        # Where there are caches, what the remote writes goes by copy if it shares a line.
        self.written_in_place = IN_AREA if link.allocate(1).line_bytes == 1 else {"area"}

    def area(self) -> Any:
        return self.link.allocate(self.size)

    def slice(self) -> Any:
        return self.link.allocate(self.size + 77)[33 : 33 + self.size]

    def slice_of_slice(self) -> Any:
        return self.link.allocate(self.size + 77)[3:][30 : 30 + self.size]

    def shown(self) -> Any:
        return shown(self.link.allocate(self.size + 5))[5:]

    def view(self) -> Any:
        return memoryview(self.link.allocate(self.size + 1))[1:]

    def bytearray(self) -> Any:
        return bytearray(self.size)

    def numpy(self) -> Any:
        return np.zeros(self.size, np.uint8)


WRITABLE = ["area", "slice", "slice_of_slice", "shown", "view", "bytearray", "numpy"]
IN_AREA = {"area", "slice", "slice_of_slice", "shown", "view"}


@needs("crc32")
@pytest.mark.parametrize("size", [1, 100, 256, 257, 900, 5000, 300_000])
def test_every_form_of_input_is_the_same(link: sbe.Connection, size: int) -> None:
    data = noise(size).tobytes()
    wanted = ref_crc32(data)
    assert link.call("crc32", sbe.In(data)).payload == wanted
    assert link.call("crc32", sbe.In(memoryview(data))).payload == wanted
    for form in WRITABLE:
        source = getattr(Forms(link, size), form)()
        source[:] = np.frombuffer(data, np.uint8) if isinstance(source, np.ndarray) else data
        assert link.call("crc32", sbe.In(source)).payload == wanted, form
        cost = link.call("crc32", sbe.In(source)).cost
        assert cost.copied_bytes == (0 if form in IN_AREA else size), form


@needs("copy")
@pytest.mark.parametrize("size", [1, 200, 256, 257, 5000, 100_001])
def test_every_form_of_output_is_the_same(link: sbe.Connection, size: int) -> None:
    data = noise(size, seed=size).tobytes()
    forms = Forms(link, size)
    for source, target in itertools.product(["slice", "numpy"], WRITABLE):
        given = getattr(forms, source)()
        given[:] = np.frombuffer(data, np.uint8) if source == "numpy" else data
        taken = getattr(forms, target)()
        reply = link.call("copy", sbe.In(given), sbe.Out(taken))
        assert bytes(memoryview(taken)) == data, (source, target)
        assert reply.written == (size,)
        copied = (source == "numpy") + (target not in forms.written_in_place)
        assert reply.cost.copied_bytes == size * copied, (source, target)


@needs("invert")
@pytest.mark.parametrize("size", [1, 200, 256, 257, 5000, 100_001])
def test_every_form_of_inout_is_the_same(link: sbe.Connection, size: int) -> None:
    data = noise(size, seed=size)
    forms = Forms(link, size)
    for form in WRITABLE:
        both = getattr(forms, form)()
        both[:] = data if isinstance(both, np.ndarray) else data.tobytes()
        reply = link.call("invert", sbe.InOut(both))
        assert bytes(memoryview(both)) == np.invert(data).tobytes(), form
        assert reply.written == (size,)
        assert reply.cost.copied_bytes == (0 if form in forms.written_in_place else 2 * size), form


@needs("invert")
def test_the_same_through_submit_and_acall(link: sbe.Connection) -> None:
    for size in (100, 10_000):
        both = noise(size)
        wanted = np.invert(both)
        link.submit("invert", sbe.InOut(both)).result()
        assert np.array_equal(both, wanted)


@needs("invert")
@in_a_loop
async def test_staged_results_are_home_when_acall_returns(link: sbe.Connection) -> None:
    for size in (100, 10_000, 1_000_000):
        both = noise(size)
        wanted = np.invert(both)
        reply = await link.acall("invert", sbe.InOut(both))
        assert np.array_equal(both, wanted)
        assert reply.written == (size,)


@needs("crc32", "invert")
@pytest.mark.parametrize(
    "dtype",
    [
        "<u2",
        ">u4",
        "<i8",
        "f2",
        "f4",
        "f8",
        "c16",
        "?",
        "S3",
        "U2",
        "M8[s]",
        [("a", "u1"), ("b", "<f8")],
    ],
)
@pytest.mark.parametrize("count", [0, 3, 1000])
def test_arrays_of_any_type_are_bytes(link: sbe.Connection, dtype: Any, count: int) -> None:
    made = np.dtype(dtype)
    size = made.itemsize * count
    area = link.allocate(max(size, 1))
    raw = noise(size)
    for base in (np.zeros(size, np.uint8), shown(area)[:size]):
        base[:] = raw
        array = base.view(made)
        assert link.call("crc32", sbe.In(array)).payload == ref_crc32(raw)
        # A large neighbour makes this one be staged as well.
        assert link.call("crc32", sbe.In(array), sbe.In(bytes(5000))).payload == ref_crc32(
            raw, bytes(5000)
        )
        big = np.zeros(5000, np.uint8)
        link.call("invert", sbe.InOut(array), sbe.InOut(big))
        assert np.array_equal(base, np.invert(raw))
        assert (big == 255).all()


@needs("crc32")
def test_views_of_an_area_are_descriptors(link: sbe.Connection) -> None:
    area = link.allocate(1 << 16)
    grid = shown(area).reshape(256, 256)
    grid[:] = noise(1 << 16).reshape(256, 256)
    views = [
        grid,
        grid[10:20],
        grid[7],
        grid[7, 3:99],
        grid.T.T[200:],
        grid.ravel()[13:].view(np.uint8),
        grid.view("<u4")[100],
        grid.reshape(16, 16, 256)[3],
        grid.reshape(-1)[::1],
        np.lib.stride_tricks.as_strided(grid, (10,), (1,)),
        grid[5:5],
    ]
    for view in views:
        reply = link.call("crc32", sbe.In(view))
        assert reply.payload == ref_crc32(view.tobytes()), view.shape
        assert reply.cost.copied_bytes == 0


@needs("echo")
def test_what_is_not_contiguous_is_refused(link: sbe.Connection) -> None:
    area = link.allocate(1 << 16)
    grid = shown(area).reshape(256, 256)
    small, large = np.zeros((8, 8), np.uint8), np.zeros((500, 500), np.uint8)
    for array in (grid, small, large):
        for bad in (array[:, 1:4], array[::2], array.T, array[::-1], array[:, 0]):
            for direction in (sbe.In, sbe.Out, sbe.InOut):
                with pytest.raises(sbe.BadArgument, match=r"0 is not contiguous.*ascontiguous"):
                    link.call("echo", direction(bad))
                # Found also behind a buffer that has to be staged.
                with pytest.raises(sbe.BadArgument, match=r"buffer 1 .*not contiguous"):
                    link.call("echo", sbe.In(bytes(5000)), direction(bad))
    with pytest.raises(sbe.BadArgument, match="not contiguous"):
        area[::2]
    assert link.call("echo", payload=b"on").payload == b"on"
    assert area.holds == 0


@needs("crc32", "invert")
def test_read_only_memory_is_no_output(link: sbe.Connection) -> None:
    small, large = np.zeros(10, np.uint8), np.zeros(10_000, np.uint8)
    for array in (small, large):
        array.flags.writeable = False
        for bad in (array, array.tobytes(), memoryview(array.tobytes())):
            for direction in (sbe.Out, sbe.InOut):
                with pytest.raises(sbe.BadArgument, match=r"buffer 0 is not writable"):
                    link.call("invert", direction(bad))
                with pytest.raises(sbe.BadArgument, match=r"buffer 1 is not writable"):
                    link.call("invert", sbe.InOut(np.zeros(10_000, np.uint8)), direction(bad))
        assert link.call("crc32", sbe.In(array)).payload == ref_crc32(array)


@needs("echo")
def test_what_is_no_buffer_is_refused(link: sbe.Connection) -> None:
    area = link.allocate(100)
    for bad in (None, 3, "text", [1, 2]):
        with pytest.raises(TypeError, match="buffer protocol"):
            sbe.In(bad)
    with pytest.raises(TypeError, match=r"sbe\.In"):
        link.call("echo", area)  # type: ignore[arg-type]
    with pytest.raises(sbe.BadArgument, match="buffer of a buffer"):
        sbe.In(sbe.In(area))
    with pytest.raises(TypeError, match=r"area\[a:b\]"):
        area[3]  # type: ignore[index]
    with pytest.raises(TypeError):
        link.call("echo", payload="text")
    with pytest.raises(sbe.BadArgument, match="Shared"):
        link.call("echo", sbe.Shared(b"not in an area"))
    with pytest.raises(sbe.BadArgument, match="Shared"):
        link.call("echo", sbe.Shared(bytearray(10_000)))


@needs("echo")
def test_shared_buffers_ride_along(connect: Connector) -> None:
    link = connect()
    area = link.allocate(8192, heap=connect.coherent_heap)
    assert link.call("echo", sbe.Shared(area[4096:]), payload=b"s").payload == b"s"


@needs("echo")
def test_empty_payload_and_frames_of_buffers_only(link: sbe.Connection) -> None:
    area = link.allocate(4096)
    reply = link.call("echo")
    assert reply.payload == b""
    assert reply.written == ()
    assert link.call("echo", sbe.In(area)).payload == b""
    assert link.call("echo", sbe.Out(area[:0]), sbe.InOut(area[4096:])).written == (0, 0)
    assert link.call("echo", *[sbe.In(area)] * _native.BUFFERS_MAX).payload == b""


@needs("echo")
@pytest.mark.parametrize("slot_size", [64, 128, 1024, 16384])
def test_payload_limits_are_exact(connect: Connector, slot_size: int) -> None:
    link = connect(slots=4, slot_size=min(slot_size, connect.slot_bytes))
    slot_size = link.slot_size
    area = link.allocate(64)
    for count in (0, 1, 2, 16):
        room = slot_size - HEADER - DESCRIPTOR * count
        buffers = [sbe.In(area[i : i + 1]) for i in range(count)]
        if room < 0:
            with pytest.raises(sbe.MessageTooLarge):
                link.call("echo", *buffers)
            continue
        payload = noise(room).tobytes()
        assert link.call("echo", *buffers, payload=payload).payload == payload
        with pytest.raises(sbe.MessageTooLarge, match=rf"{room + 1} bytes.*{room} bytes.*sbe\.In"):
            link.call("echo", *buffers, payload=payload + b"x")
    assert link.call("echo", payload=b"on").payload == b"on"


@needs("crc32", "fill")
def test_buffer_count_limit_is_exact(link: sbe.Connection) -> None:
    area = link.allocate(4096)
    most = _native.BUFFERS_MAX
    parts = [area[i : i + 1] for i in range(most + 1)]
    reply = link.call("fill", *map(sbe.Out, parts[:most]), payload=b"z")
    assert reply.written == (1,) * most
    with pytest.raises(sbe.MessageTooLarge, match=rf"{most + 1} buffers.*at most {most}"):
        link.call("fill", *map(sbe.Out, parts), payload=b"z")
    inline = [bytes([i]) for i in range(most)]
    assert link.call("crc32", *map(sbe.In, inline)).payload == ref_crc32(*inline)


@needs("crc32", "invert")
def test_inline_buffers_share_a_frame_or_are_staged(link: sbe.Connection) -> None:
    """Each is small, together they are not: the SDK stages what does not fit."""
    for count in range(1, 17):
        data = [noise(200, seed=i) for i in range(count)]
        assert link.call("crc32", *map(sbe.In, data)).payload == ref_crc32(*data)
        targets = [noise(200, seed=i) for i in range(count)]
        link.call("invert", *map(sbe.InOut, targets))
        for target, before in zip(targets, data, strict=True):
            assert np.array_equal(target, np.invert(before))


@needs("fill")
def test_payload_beside_inline_output(link: sbe.Connection) -> None:
    """Room is counted there and back: the answer carries the outputs and no payload."""
    for size in (1, 100, 255, 256):
        taken = [np.zeros(size, np.uint8) for _ in range(3)]
        link.call("fill", *map(sbe.Out, taken), payload=b"\x07")
        assert all((array == 7).all() for array in taken)


@needs("fill")
def test_an_area_is_zeroed_and_has_the_size_asked_for(link: sbe.Connection) -> None:
    for size in (1, 4095, 4096, 4097, 100_000):
        with link.allocate(size) as area:
            assert len(area) == area.size == area.size_bytes == size
            assert not shown(area).any()
            assert link.call("fill", sbe.Out(area), payload=b"\1").written == (size,)
            assert shown(area).all()
        assert area.freed


def test_slices_of_an_area(link: sbe.Connection) -> None:
    area = link.allocate(100)
    area[:] = bytes(range(100))
    assert bytes(area[10:20]) == bytes(range(10, 20))
    assert bytes(area[-10:]) == bytes(range(90, 100))
    assert bytes(area[90:200]) == bytes(range(90, 100))
    assert len(area[50:40]) == 0
    part = area[10:20][2:4]
    assert (part.area, part.offset, part.size) == (area, 12, 2)
    assert "12 to 14" in repr(part)
    part[:] = b"xy"
    assert bytes(area[12:14]) == b"xy"
    with pytest.raises(sbe.OutOfRange, match="3 bytes don't fit a slice of 2"):
        part[:] = b"xyz"
    with pytest.raises(TypeError):
        del area[1:2]  # type: ignore[attr-defined]


@needs("crc32")
def test_many_areas(link: sbe.Connection) -> None:
    try:
        areas = [link.allocate(64 + i) for i in range(1000)]
    except sbe.OutOfResources as error:
        pytest.skip(f"1000 areas are too many: {error}")
    assert len({area.id for area in areas}) == 1000
    for i, area in enumerate(areas):
        area[:8] = i.to_bytes(8, "little")
    for i in range(0, 1000, 37):
        assert link.call("crc32", sbe.In(areas[i])).payload == ref_crc32(
            i.to_bytes(8, "little") + bytes(56 + i)
        )
    for area in areas[::2]:
        area.free()
    later = [link.allocate(64) for _ in range(500)]
    assert not {area.id for area in later} & {area.id for area in areas}
    for area in (areas[1], areas[999], later[0], later[499]):
        assert link.call("crc32", sbe.In(area)).payload == ref_crc32(area)
    for area in areas[1::2] + later:
        area.free()
    assert link.stat()["connection"]["areas"] == 0


def test_arrays_outlive_their_area_and_link(connect: Connector) -> None:
    link = connect()
    freed, closed, kept = link.allocate(4096), link.allocate(4096), link.allocate(4096)
    for area in (freed, closed, kept):
        area[:5] = b"bytes"
    views = [shown(area) for area in (freed, closed)]
    parts = [memoryview(freed[1:3]), memoryview(closed)[1:3]]
    freed.free()
    assert views[0][:5].tobytes() == b"bytes"
    link.close()
    del freed, closed, area
    for view in views:
        view[5:10] = 7
        assert view[:10].tobytes() == b"bytes" + b"\7" * 5
    for part in parts:
        assert bytes(part) == b"yt"
    assert bytes(kept[:5]) == b"bytes"
    kept.free()  # a second time does nothing
    assert kept.freed


@needs("crc32", room=4 << 20)
def test_crc_of_a_staged_gigantic_message_reuses_its_pool(link: sbe.Connection) -> None:
    data = noise(3 << 20)
    wanted = zlib.crc32(data).to_bytes(4, "little")
    for _ in range(5):
        assert link.call("crc32", sbe.In(data)).payload == wanted
    assert link.stat()["connection"]["areas"] == 1


# -- arrays ---------------------------------------------------------------------------------------


@needs("fill", "crc32")
def test_an_array_shows_the_area(link: sbe.Connection) -> None:
    area = link.allocate(1024)
    row = area.array(np.uint16)
    assert row.shape == (512,)
    assert row.dtype == np.dtype(np.uint16)
    link.call("fill", sbe.Out(area[:8]), payload=b"\x01")
    assert row[:5].tolist() == [0x0101] * 4 + [0]
    part = area.array("f4", (2, 3), offset_bytes=8)
    part[:] = 1.5
    assert area.array(np.float32, 6, offset_bytes=8).tolist() == [1.5] * 6
    assert link.call("crc32", sbe.In(part)).cost.copied_bytes == 0  # it lies in the area
    assert area.array(np.uint8, offset_bytes=1024).size == 0


@needs()
@pytest.mark.parametrize(
    "arguments",
    [
        {"dtype": np.uint8, "shape": 1025},
        {"dtype": np.uint8, "shape": (32, 33)},
        {"dtype": np.uint8, "shape": (-1, 2)},
        {"dtype": np.uint8, "shape": "x"},
        {"dtype": object},
        {"dtype": "no type"},
        {"dtype": np.uint8, "offset_bytes": -1},
        {"dtype": np.uint8, "offset_bytes": 1025},
    ],
    ids=str,
)
def test_an_array_that_does_not_fit(link: sbe.Connection, arguments: dict[str, Any]) -> None:
    with pytest.raises(sbe.BadArgument, match=r"no array of dtype .*Area"):
        link.allocate(1024).array(**arguments)
