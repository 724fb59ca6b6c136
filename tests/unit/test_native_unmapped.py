"""Memory that may not be mapped: an area like any other, and nobody sees its bytes."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sbe import _native, errors
from sbe.heaps import dmabuf
from tests.unit.channel_pair import Pair, Thread

WORDS = "may not be mapped: only devices reach it"


def make(fd: int, size: int) -> _native.Memory:
    return _native.Memory(fd, size, offset=_native.MEMORY_UNMAPPED)


unmapped: Any = make  # in the place of the class


def test_calls_name_it_and_nothing_shows_it():
    with Pair() as pair:
        area, _ = pair.area(kind=unmapped)
        assert (area.mapped, area.readonly, area.line_bytes) == (False, True, 1)
        server = Thread(pair.answer)
        pair.host.call(1, (_native.In(area[:64]), _native.Out(area[64:100])), b"", 5.0)
        server.outcome()
        assert area.holds == 0
        for look in (
            lambda: memoryview(area),
            lambda: bytes(area[3:5]),
            lambda: area.__setitem__(slice(0, 1), b"a"),
        ):
            with pytest.raises(errors.PermissionDenied, match=WORDS):
                look()


def test_it_carries_no_ring_and_no_block():
    """A daemon that says so of rings must not make its client fault."""
    fd = os.open(os.devnull, os.O_RDWR)
    memory = unmapped(fd, 1 << 20)
    os.close(fd)
    with pytest.raises(errors.BadArgument):
        _native.Bootstrap(memory, 1)
    with pytest.raises(errors.BadArgument):
        _native.StreamBlock(memory, 64)


def test_a_place_in_a_map_is_a_devices():
    fd = os.memfd_create("no-device", os.MFD_CLOEXEC)
    os.ftruncate(fd, 8192)
    with pytest.raises(errors.BadArgument, match="the descriptor is no device's"):
        _native.Memory(fd, 4096, trusted=True, offset=_native.MEMORY_MAP)
    with pytest.raises(errors.Error):
        _native.Memory(fd, 4096, trusted=True, offset=_native.MEMORY_UNMAPPED + 4096)
    os.close(fd)


@pytest.mark.parametrize(
    ("name", "protected"),
    [
        ("protected,secure-video", True),
        ("restricted_mtk_cma", True),
        ("qcom,secure-pixel", True),
        ("mtk_svp_region-aligned", True),
        ("system", False),
        ("reserved", False),
        ("insecure", False),
    ],
)
def test_names_of_protected_heaps(name: str, protected: bool):
    assert dmabuf.is_protected(name) is protected
