"""The carve-out heap: offsets only, first fit, nothing lost."""

from __future__ import annotations

import itertools
import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbe import _native, errors
from sbe.heaps import Allocation
from sbe.heaps.carveout import CarveoutHeap

PAGE = mmap.PAGESIZE
SIZE = 64 * PAGE
OFFSET = 3 * PAGE
ADDRESS = 0x80010000


@pytest.fixture
def heap(tmp_path: Path) -> Iterator[CarveoutHeap]:
    (tmp_path / "ram").write_bytes(b"\xa5" * (OFFSET + SIZE))
    fd = os.open(tmp_path / "ram", os.O_RDWR)
    heap = CarveoutHeap(fd, OFFSET, SIZE, address=ADDRESS)
    os.close(fd)
    yield heap
    heap.close()


def test_an_allocation_is_zeroed_and_says_where_it_is(heap: CarveoutHeap) -> None:
    first = heap.allocate(1)
    second = heap.allocate(PAGE + 1)
    assert (first.offset_bytes, first.size_bytes) == (OFFSET, PAGE)
    assert (second.offset_bytes, second.size_bytes) == (OFFSET + PAGE, 2 * PAGE)
    assert second.segments == ((ADDRESS + PAGE, 2 * PAGE),)
    memory = _native.Memory(
        second.fd, second.size_bytes, trusted=second.trusted, offset=second.offset_bytes
    )
    assert bytes(memoryview(memory)) == bytes(2 * PAGE)
    first.close()
    second.close()


def test_a_mapping_outlives_its_allocation(heap: CarveoutHeap) -> None:
    allocation = heap.allocate(PAGE)
    memory = _native.Memory(allocation.fd, PAGE, trusted=True, offset=allocation.offset_bytes)
    allocation.close()
    allocation.close()
    memory[:2] = b"ok"
    assert heap.free_bytes == SIZE


def test_exhaustion_says_how_much_there_is(heap: CarveoutHeap) -> None:
    held = [heap.allocate(16 * PAGE) for _ in range(4)]
    held[0].close()
    held[2].close()
    with pytest.raises(errors.OutOfResources, match=f"{32 * PAGE} are free, {16 * PAGE} in one"):
        heap.allocate(17 * PAGE)
    held[1].close()
    assert heap.largest_bytes == 48 * PAGE  # free neighbours are one
    held[3].close()
    assert heap.largest_bytes == heap.free_bytes == SIZE


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_is_none(heap: CarveoutHeap, size: int) -> None:
    with pytest.raises(errors.BadArgument):
        heap.allocate(size)


def test_no_address_yet(heap: CarveoutHeap) -> None:
    heap.address = None
    with pytest.raises(errors.LinkError, match="has not said"):
        heap.allocate(1)


def test_random_use_never_overlaps_and_loses_nothing(heap: CarveoutHeap) -> None:
    rng = random.Random(1)
    held: list[Allocation] = []
    for _ in range(5000):
        if held and rng.random() < 0.5:
            held.pop(rng.randrange(len(held))).close()
        else:
            try:
                held.append(heap.allocate(rng.randrange(1, 12 * PAGE)))
            except errors.OutOfResources:
                assert heap.largest_bytes < 12 * PAGE
        ranges = sorted((each.offset_bytes, each.size_bytes) for each in held)
        for (begin, size), (after, _) in itertools.pairwise(ranges):
            assert begin + size <= after
        assert heap.free_bytes + sum(each.size_bytes for each in held) == SIZE
    for each in held:
        each.close()
    assert heap.largest_bytes == SIZE
