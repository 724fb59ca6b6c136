"""sbe.Pool: pieces of one area."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import sbe


@pytest.fixture
def link() -> Iterator[sbe.Connection]:
    with sbe.connect("loopback:") as link:
        yield link


def test_a_piece_is_a_buffer_of_a_call(link):
    pool = sbe.Pool(link.allocate(1 << 16))
    source, target = pool.allocate(1000), pool.allocate(1000)
    source[:] = bytes(range(250)) * 4
    reply = link.call("copy", sbe.In(source), sbe.Out(target))
    assert (bytes(target), reply.written, reply.cost.copied_bytes) == (bytes(source), (1000,), 0)


def test_pieces_share_no_cache_line_and_lie_in_the_area(link):
    area = link.allocate(4096)
    pool = sbe.Pool(area)
    pieces = [pool.allocate(size) for size in (1, 63, 64, 65, 200)]
    lines = [set(range(p.offset // 64, (p.offset + p.size - 1) // 64 + 1)) for p in pieces]
    assert sum(map(len, lines)) == len(set().union(*lines))
    assert all(p.area is area and p.offset % 64 == 0 for p in pieces)


def test_what_is_freed_is_handed_out_again(link):
    pool = sbe.Pool(link.allocate(8192))
    first, second = pool.allocate(4096), pool.allocate(4096)
    with pytest.raises(sbe.OutOfResources, match="2 pieces are in use"):
        pool.allocate(64)
    place = first.offset
    pool.free(first)
    assert pool.allocate(3000).offset == place
    pool.free(second)


def test_a_piece_may_fill_its_rounded_size_to_the_end_of_the_area(link):
    pool = sbe.Pool(link.allocate(10_000))
    pieces = [pool.allocate(size) for size in (8192, 1000)]
    pool.free(pieces[1])
    assert len(pool.allocate(1024)) == 1024
    with pytest.raises(sbe.OutOfResources, match="a piece of 1024 bytes: 2 pieces"):
        pool.allocate(1000)


@pytest.mark.parametrize("size", [0, -1, 8193])
def test_a_size_that_can_not_be(link, size):
    with pytest.raises(sbe.BadArgument, match=f"a piece of {size} bytes"):
        sbe.Pool(link.allocate(8192)).allocate(size)


def test_freeing_twice_or_something_else(link):
    area = link.allocate(8192)
    pool = sbe.Pool(area)
    piece = pool.allocate(100)
    pool.free(piece)
    for wrong in (piece, area[64:128], link.allocate(8192)[0:100]):
        with pytest.raises(sbe.BadArgument, match="not in use here"):
            pool.free(wrong)


def test_threads_never_get_the_same_piece(link):
    pool = sbe.Pool(link.allocate(1 << 20))
    begin = threading.Barrier(4)
    shared: list[int] = []

    def work() -> None:
        begin.wait()
        for _ in range(500):
            pieces = [pool.allocate(64) for _ in range(4)]
            for piece in pieces[1:]:
                pool.free(piece)
            shared.append(pieces[0].offset)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shared) == len(set(shared)) == 2000
