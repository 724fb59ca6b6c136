"""Byte streams of Address Space Graphics, over an area of the link: the sample service `total`."""

from __future__ import annotations

import random
import struct

import pytest

import sbe
from sbe.sdk.byte_stream import ByteStream
from sbe.testing.conformance.parts import LIMIT_S, Connector, needs

SIZE = 1 << 16


def opened(connect: Connector, link: sbe.Connection, size: int = SIZE) -> ByteStream:
    """A stream of `total`, in memory that both ends see at once."""
    heap = connect.coherent_heap
    return link.open_asg("total", size, step=min(4096, size // 4), heap=heap, timeout=LIMIT_S)


def ask(stream: ByteStream, data: bytes) -> None:
    """Adds up so many bytes there."""
    stream.write(struct.pack("<I", len(data)) + data)
    assert stream.read_exactly(4) == struct.pack("<I", sum(data) & 0xFFFFFFFF)


@needs("total", room=SIZE * 2)
@pytest.mark.parametrize("size", [0, 1, 4092, 4093, 3 * SIZE + 5])
def test_bytes_are_added_up(connect: Connector, size: int) -> None:
    link = connect()
    with opened(connect, link) as stream:
        for seed in range(3):
            ask(stream, random.Random(seed).randbytes(size))


@needs("total", room=SIZE * 4)
def test_two_at_a_time(connect: Connector) -> None:
    link = connect()
    with (
        opened(connect, link) as one,
        opened(connect, link) as other,
    ):
        one.write(struct.pack("<I", 8) + b"abc")
        one.flush()
        ask(other, b"x" * 100)
        one.write(b"defgh")
        assert one.read_exactly(4) == struct.pack("<I", sum(b"abcdefgh"))


@needs("total", room=SIZE * 2)
def test_one_ends_and_its_place_is_free(connect: Connector) -> None:
    link = connect()
    for _ in range(20):
        with opened(connect, link) as stream:
            ask(stream, b"abc")
    with pytest.raises(sbe.LinkClosed):
        stream.write(b"x")


@needs("total", room=SIZE * 4)
def test_a_remote_has_so_many(connect: Connector) -> None:
    link = connect()
    streams: list[ByteStream] = []

    def open_many() -> None:
        for _ in range(100):
            streams.append(opened(connect, link, 1 << 12))

    with pytest.raises((sbe.RemoteError, sbe.OutOfResources, sbe.PermissionDenied)):
        open_many()
    assert streams
    for stream in streams:
        stream.close()
    with opened(connect, link, 1 << 12) as stream:
        ask(stream, b"abc")


@needs("total", "echo", room=SIZE * 2)
def test_a_client_that_breaks_the_stream_hurts_itself(connect: Connector) -> None:
    link = connect()
    with opened(connect, link) as stream:
        region = memoryview(stream._area).cast("B")
        struct.pack_into("<2I", region, 128, SIZE, 1)  # a record beyond the buffer
        struct.pack_into("<I", region, 8, 8)
        stream._ring_remote()
        with pytest.raises(sbe.ProtocolError):
            stream.read(1)
    assert link.call("echo", payload=b"x").payload == b"x"


@needs("echo", room=SIZE * 2)
def test_a_service_that_is_no_byte_stream(connect: Connector) -> None:
    link = connect()
    with pytest.raises(sbe.Error):
        link.open_asg("echo", SIZE, timeout=LIMIT_S)
    with pytest.raises(sbe.UnknownService):
        link.open_asg("no such service", SIZE, timeout=LIMIT_S)
