"""Cache maintenance at this end, where it can't be done. Where it can: tests/rigs/kernel."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from sbe import _native, errors
from tests.unit.channel_pair import Pair, Thread
from tests.unit.test_native_batch import batch, descriptors


@pytest.fixture
def nothing() -> Iterator[int]:
    """A descriptor that maintains no caches."""
    fd = os.open(os.devnull, os.O_RDWR)
    yield fd
    os.close(fd)


def kind(sync_fd: int) -> Any:
    return lambda fd, size: _native.Memory(fd, size, sync_fd=sync_fd)


def test_what_could_not_be_maintained_is_not_sent(nothing: int):
    with Pair() as pair:
        area, _ = pair.area(kind=kind(nothing))
        with pytest.raises(errors.Error) as caught:
            pair.host.call(1, (_native.In(area[:64]),), b"", 5.0)
        assert caught.value.code == errno.EIO
        assert area.holds == 0
        assert batch(pair.host, 2, descriptors(area, 2)) == [-errno.EIO, -errno.EIO]
        assert area.holds == 0
        other, _ = pair.area()  # the channel lives on
        server = Thread(pair.answer)
        pair.host.call(1, (_native.In(other[:64]),), b"", 5.0)
        server.outcome()


def test_it_keeps_a_descriptor_of_its_own(nothing: int):
    before = len(os.listdir("/proc/self/fd"))
    with Pair() as pair:
        area, _ = pair.area(kind=kind(nothing))
        assert area.size == 4096
        del area, _
    del pair
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        _native.Memory(nothing, 4096, trusted=True, sync_fd=1 << 20)


@pytest.mark.parametrize("how", ["silent", "gone", "refuses", "talks nonsense"])
def test_a_socket_that_does_not_maintain(how: str):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Pair() as pair, ours, theirs:
        area, _ = pair.area(kind=kind(ours.fileno()))
        if how == "gone":
            theirs.close()
        if how == "refuses":
            theirs.send(struct.pack("=i", -errno.EIO))
        if how == "talks nonsense":
            theirs.send(b"?")
        with pytest.raises(errors.Error) as caught:
            pair.host.call(1, (_native.In(area[:64]),), b"", 5.0)
        assert caught.value.code == errno.EIO
        assert area.holds == 0
