# SPDX-License-Identifier: Apache-2.0
"""What the firmware of this folder takes, over any link that reaches it."""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import sbe
from sbe.raw import AddressOf, ById, CountOf, SegmentsOf, SizeOf

# Command, id; OPT, SRC, BCNT:ACNT, DST, DSTBIDX:SRCBIDX, BCNTRLD:LINK, DSTCIDX:SRCCIDX, CCNT.
PARAM = struct.Struct("<2I 2I 2H I 2H 2H 2H 2H")
RUN, RUN_LATE, RUN_TWICE, LOSE, FOREIGN = 1, 2, 3, 4, 5
DMA_FIXUPS = (AddressOf(12), SizeOf(16, width=16), AddressOf(20, buffer=1))
DMA_ID = ById(position=4)
KICK_ID = ById(position=2, width=16, answer_position=0, answer_width=32)
TEXT_FIXUPS = (AddressOf(3, order="hex"), SizeOf(12, order="hex"))
TEXT = b"B0A00000000L00000000"


def param(command: int = RUN) -> bytes:
    """One copy of as many bytes as the buffers have."""
    return PARAM.pack(command, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0)


def same_number(sent: bytes, came: bytes) -> bool:
    """The text format's: B and a digit."""
    return sent[:2] == came[:2]


def dma(link: sbe.Connection, area: sbe.Area) -> None:
    """32-bit addresses, little-endian."""
    area[:1024] = bytes(range(256)) * 4
    area[4096:5120] = bytes(1024)
    with link.raw("dumb-dma", DMA_ID) as raw:
        calls = [
            raw.submit(
                param(),
                DMA_FIXUPS,
                sbe.In(area[at : at + 256]),
                sbe.Out(area[4096 + at : 4352 + at]),
                timeout=5,
            )
            for at in range(0, 1024, 256)
        ]
        for call in calls:
            assert call.result()[:4] == bytes(4)
    assert bytes(memoryview(area)[4096:5120]) == bytes(memoryview(area)[:1024])


def dma_once(link: sbe.Connection, area: sbe.Area) -> None:
    """Any message, so that one which came before is answered."""
    with link.raw("dumb-dma", DMA_ID) as raw:
        raw.call(param(), DMA_FIXUPS, sbe.In(area[:64]), sbe.Out(area[64:128]), timeout=5)


def kick(link: sbe.Connection, area: sbe.Area) -> None:
    """64-bit descriptors; two to be read, one to be written."""
    area[:300] = bytes(range(100)) * 3
    template = struct.pack("<HHI", 0, 0, 3)
    template += struct.pack("<QIHH", 0, 0, 1, 1)
    template += struct.pack("<QIHH", 0, 0, 1, 2)
    template += struct.pack("<QIHH", 0, 0, 2, 0)
    fixups = [
        fixup
        for i in range(3)
        for fixup in (AddressOf(8 + 16 * i, 64, i), SizeOf(16 + 16 * i, 32, i))
    ]
    buffers = sbe.In(area[:100]), sbe.In(area[100:300]), sbe.Out(area[4096:4396])
    with link.raw("dumb-kick", KICK_ID) as raw:
        answer = raw.call(template, fixups, *buffers, timeout=5)
    assert int.from_bytes(answer[4:], "little") == 300
    expected = bytes(255 - byte for byte in memoryview(area)[:300])
    assert bytes(memoryview(area)[4096:4396]) == expected


def text(link: sbe.Connection, area: sbe.Area) -> None:
    """Addresses as digits; the answer is known by a predicate."""
    with link.raw("dumb-text", same_number) as raw:
        assert raw.call(TEXT, TEXT_FIXUPS, sbe.Out(area[:128]), timeout=5) == b"B0L00000080"
        assert bytes(memoryview(area)[:128]) == b"sampled " * 16
        for wrong in (b"B0A1L", b"B0A123456789L00000010", TEXT[:-1], TEXT + b"0", b"B" * 496):
            raw.send(wrong)
            assert raw.receive(5) == b"E"


@contextmanager
def pages_apart() -> Iterator[None]:
    """The kernel's next single pages are no neighbours: each lies between two that are in use."""
    size = 16 << 20
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(bytes(size))
        for page in range(0, size, 2 * mmap.PAGESIZE):
            memory.madvise(mmap.MADV_DONTNEED, page, mmap.PAGESIZE)
        yield


def scattered(link: sbe.Connection, area: sbe.Area) -> None:
    """Memory in pieces: as a list, or refused."""
    size = 1 << 16
    area[4096 : 4096 + size] = bytes(range(256)) * (size // 256)
    template = struct.pack("<HHI", 1, 0, 0) + bytes(30 * 16)
    with link.raw("dumb-kick", KICK_ID) as raw:
        fixups = CountOf(4), SegmentsOf(8, 30, 64)
        answer = raw.call(template, fixups, sbe.In(area[4096 : 4096 + size]), timeout=5)
        assert int.from_bytes(answer[4:], "little") == sum(range(256)) * (size // 256)
        with pytest.raises(sbe.BadArgument, match=r"pieces, and one address can't say so"):
            raw.call(template, [AddressOf(8, 64)], sbe.In(area))


def exchange(link: sbe.Connection) -> None:
    """All formats. Its mappings end with this function."""
    with link.allocate(8192, heap="coherent") as area:
        dma(link, area)
        kick(link, area)
        text(link, area)
    with pages_apart():
        pieces = link.allocate(1 << 19, heap="udmabuf")
    with pieces:  # more than a control message lists
        scattered(link, pieces)


def misbehave(link: sbe.Connection) -> None:
    """Answers that are late, doubled or foreign, and those that never come."""
    area = link.allocate(8192, heap="coherent")
    buffers = sbe.In(area[:64]), sbe.Out(area[4096:4160])
    with link.raw("dumb-dma", DMA_ID) as raw:
        with pytest.raises(sbe.Timeout):
            raw.call(param(RUN_LATE), DMA_FIXUPS, *buffers, timeout=0.05)
        with pytest.raises(sbe.Busy):
            area.free()
        area[:64] = b"?" * 64  # the firmware copies only now
        raw.call(param(RUN_TWICE), DMA_FIXUPS, sbe.In(area[64:65]), sbe.Out(area[8191:]), timeout=5)
        assert bytes(memoryview(area)[4096:4160]) == b"?" * 64
        twice = raw.receive(5)
        one = raw.call(param(FOREIGN), DMA_FIXUPS, *buffers, timeout=5)
        assert raw.receive(5) == bytes.fromhex("00000000 efbeadde")
        assert one[4:] > twice[4:]
        area.free()
