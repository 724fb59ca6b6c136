"""Exchanges over caches, in lines of any size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sbe
from tests.caches import build
from tests.caches.exchanges import EXCHANGES
from tests.caches.remote import cached_remotes


@pytest.fixture(params=[16, 64, 256])
def link(request: pytest.FixtureRequest) -> Iterator[sbe.Connection]:
    with (
        cached_remotes(build.programs(), request.param) as make,
        sbe.connect(make()) as connection,
    ):
        yield connection


@pytest.mark.parametrize("name", EXCHANGES)
def test_an_exchange(name: str, link: sbe.Connection):
    EXCHANGES[name](link)


def test_pieces_of_a_pool_go_by_reference(link: sbe.Connection):
    area = link.allocate(1 << 16)
    pool = sbe.Pool(area)
    pieces = [pool.allocate(size) for size in (100, 1, 64, 65, 1000)]
    for piece in pieces:
        reply = link.call("fill", sbe.Out(piece), payload=b"x")
        assert reply.cost.copied_bytes == 0
        assert bytes(memoryview(piece)) == b"x" * len(piece)
    lines = [piece.offset // area.line_bytes for piece in pieces]
    assert len(set(lines)) == len(pieces)
    half = pieces[-1][:500]  # the other half may be somebody's
    assert link.call("fill", sbe.Out(half), payload=b"y").cost.copied_bytes == 500


def test_what_nobody_copies_back_is_refused(link: sbe.Connection):
    area = link.allocate(4096)
    words = f"shares a cache line .* multiples of {area.line_bytes} bytes"
    for part in (area[1:4096], memoryview(area)[: area.line_bytes + 1]):
        with pytest.raises(sbe.BadArgument, match=words):
            link.send("fill", sbe.Out(part), payload=b"x")
        with pytest.raises(sbe.BadArgument, match=words):
            link.sync(sbe.InOut(part))
    link.send("crc32", sbe.In(area[1:100]))
    link.sync(sbe.In(area[1:100]), sbe.InOut(area), sbe.Out(area[area.line_bytes : 4096]))
    assert area.holds == 0
