"""Every service against zlib and the references in numpy."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import Connector, needs, noise, shown
from sbe.testing.conformance.services import fir_input, ref_crc32, ref_fir, ref_sobel

SIZES = [1, 2, 3, 7, 63, 64, 65, 255, 256, 257, 4095, 4096, 4097, 65_537, 1 << 20, (1 << 20) + 1]
OFFSETS = [0, 1, 3, 63, 64, 4097]


@needs("crc32", room=2 << 20)
def test_crc32_of_every_size_and_offset(link: sbe.Connection) -> None:
    area = link.allocate(max(SIZES) + max(OFFSETS))
    pixels = shown(area)
    pixels[:] = noise(len(area))
    for size in SIZES:
        for offset in OFFSETS:
            part = pixels[offset : offset + size]
            reply = link.call("crc32", sbe.In(part))
            assert reply.payload == struct.pack("<I", zlib.crc32(part)), (size, offset)


@needs("crc32")
def test_crc32_of_several_buffers_is_that_of_all_in_order(link: sbe.Connection) -> None:
    data = noise(10_000)
    parts = np.split(data, [1, 2, 100, 4096, 5000, 9999])
    assert link.call("crc32", *map(sbe.In, parts)).payload == ref_crc32(data)


@needs("crc32")
def test_crc32_of_16_mib_and_of_an_empty_buffer(connect: Connector) -> None:
    link, size = connect(), connect.large_bytes
    area = link.allocate(size)
    pixels = shown(area)
    pixels[:] = noise(size)
    assert link.call("crc32", sbe.In(area)).payload == struct.pack("<I", zlib.crc32(area))
    assert link.call("crc32", sbe.In(area[5:5])).payload == bytes(4)
    assert link.call("crc32", sbe.In(b"")).payload == bytes(4)


@needs("copy", room=4 << 20)
def test_copy_moves_every_size_and_nothing_else(link: sbe.Connection) -> None:
    area = link.allocate(4 << 20)
    pixels = shown(area)
    half = 2 << 20
    pixels[:half] = noise(half)
    for size in SIZES:
        for offset in (0, 1, 67):
            pixels[half:] = 0
            to = half + 129 - offset
            link.call("copy", sbe.In(area[offset : offset + size]), sbe.Out(pixels[to : to + size]))
            assert np.array_equal(pixels[to : to + size], pixels[offset : offset + size])
            assert not pixels[half:to].any(), (size, offset)
            assert not pixels[to + size :].any(), (size, offset)


@needs("fill", "invert")
def test_fill_and_invert(link: sbe.Connection) -> None:
    area = link.allocate(1 << 20)
    pixels = shown(area)
    for size in (1, 7, 8, 9, 4097, (1 << 20) - 5):
        pixels[:] = 1
        reply = link.call("fill", sbe.Out(pixels[3 : 3 + size]), payload=b"\xa5")
        assert reply.written == (size,)
        assert (pixels[3 : 3 + size] == 0xA5).all()
        assert (pixels[:3] == 1).all()
        assert (pixels[3 + size :] == 1).all()
        before = pixels.copy()
        assert link.call("invert", sbe.InOut(pixels[1 : 1 + size])).written == (size,)
        before[1 : 1 + size] ^= 0xFF
        assert np.array_equal(pixels, before)


@needs("fill", "invert")
def test_fill_and_invert_of_several_buffers(link: sbe.Connection) -> None:
    area = link.allocate(4096)
    pixels = shown(area)
    parts = [area[0:1], area[10:20], area[100:4000]]
    reply = link.call("fill", *map(sbe.Out, parts), payload=b"\x0f")
    assert reply.written == (1, 10, 3900)
    assert link.call("invert", *map(sbe.InOut, parts)).written == (1, 10, 3900)
    assert int((pixels == 0xF0).sum()) == 3911
    assert int((pixels == 0).sum()) == 4096 - 3911


@needs("sobel")
@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 1), (2, 9), (9, 2), (3, 3), (4, 3), (17, 5), (255, 31), (256, 8), (258, 9), (640, 480)],
)
def test_sobel(link: sbe.Connection, width: int, height: int) -> None:
    size = width * height
    area = link.allocate(2 * size + 2)
    pixels = shown(area)
    image = noise(size, seed=width).reshape(height, width)
    image[: height // 2] = np.where(image[: height // 2] > 127, 255, 0)  # saturates
    pixels[1 : 1 + size] = image.ravel()
    reply = link.call(
        "sobel",
        sbe.In(area[1 : 1 + size]),
        sbe.Out(area[1 + size : 1 + 2 * size]),
        payload=struct.pack("<II", width, height),
    )
    got = pixels[1 + size : 1 + 2 * size].reshape(height, width)
    assert reply.written == (size,)
    assert np.array_equal(got, ref_sobel(image))


@needs("fir")
@pytest.mark.parametrize(
    ("samples", "taps"), [(1, 1), (1, 5), (5, 1), (127, 3), (128, 16), (129, 128), (5000, 180)]
)
@pytest.mark.parametrize("loud", [False, True])
def test_fir(link: sbe.Connection, samples: int, taps: int, loud: bool) -> None:
    x, h = fir_input(samples, taps, loud)
    area = link.allocate(4 * samples + 1)
    source, target = area[1 : 1 + 2 * samples], area[1 + 2 * samples : 1 + 4 * samples]
    source[:] = x
    link.call("fir", sbe.In(source), sbe.Out(target), payload=h.tobytes())
    got = np.frombuffer(memoryview(target), np.int16)
    assert np.array_equal(got, ref_fir(x, h))


@needs("echo")
def test_echo_returns_every_payload(link: sbe.Connection) -> None:
    for size in range(200):
        payload = noise(size, seed=size).tobytes()
        reply = link.call("echo", payload=payload)
        assert reply.payload == payload
        assert reply.written == ()


@needs("echo")
def test_services_are_found_by_name_and_version(connect: Connector) -> None:
    link = connect()
    listed = {service.name: service for service in link.services()}
    assert set(listed) >= connect.services
    assert len({service.id for service in listed.values()}) == len(listed)
    assert min(service.id for service in listed.values()) > 0
    echo = link.find("echo")
    assert echo == listed["echo"]
    assert link.find("echo", 1) == echo
    assert echo.version == 1
    for service in (echo, echo.id, "echo"):
        assert link.call(service, payload=b"by any name").payload == b"by any name"


@needs("echo")
def test_a_service_of_a_later_version_is_unknown(connect: Connector) -> None:
    with pytest.raises(sbe.UnknownService, match="version 2"):
        connect().find("echo", 2)


@needs("copy")
def test_out_too_small(connect: Connector) -> None:
    link = connect()
    area = link.allocate(1 << 16)
    half = max(50, area.line_bytes)
    end = 3 * half
    pixels = shown(area)
    pixels[: 2 * half] = 9
    with pytest.raises(sbe.NoRoom, match="copy"):
        link.call("copy", sbe.In(area[: 2 * half]), sbe.Out(area[2 * half : end]))
    if connect.tells_written:  # it fills what there is, and says how much
        rows = np.concatenate(
            [area.descriptors(sbe.In, [0], 2 * half), area.descriptors(sbe.Out, [2 * half], half)]
        )
        result = link.batch("copy", rows.reshape(1, 2))
        assert result.status.tolist() == [-28]
        assert result.written.tolist() == [[0, half]]
        assert (pixels[:end] == 9).all()
        assert not pixels[end:].any()
        with pytest.raises(sbe.NoRoom):
            result.check()


@needs("copy")
def test_out_larger_than_what_is_written(connect: Connector) -> None:
    link = connect()
    if not connect.tells_written:
        pytest.skip("Python handlers return no sizes: their buffers count as written in full")
    area = link.allocate(4096)
    area[:100] = b"y" * 100
    for target in (area[1000:2000], bytearray(1000 // 5), bytearray(60_000)):
        before = memoryview(target)[100:].tobytes()
        assert link.call("copy", sbe.In(area[:100]), sbe.Out(target)).written == (100,)
        assert memoryview(target)[:100].tobytes() == b"y" * 100
        assert memoryview(target)[100:].tobytes() == before


@needs("echo", "fill")
def test_a_service_that_says_no(link: sbe.Connection) -> None:
    with pytest.raises(sbe.RemoteError, match="fill") as caught:
        link.call("fill", sbe.In(b"x"), payload=b"")
    assert not isinstance(caught.value, ValueError)  # the service's verdict, not this end's
    assert link.call("echo", payload=b"on").payload == b"on"


@needs("echo")
def test_unknown_service(link: sbe.Connection) -> None:
    with pytest.raises(sbe.UnknownService, match="'teleport'"):
        link.call("teleport")
    with pytest.raises(sbe.UnknownService):
        link.call(4711)
    with pytest.raises(sbe.BadArgument, match="31"):
        link.call("n" * 32)
    assert link.call("echo", payload=b"on").payload == b"on"
