"""Arguments of sbe._native that would crash, hang or be cut to size; what a forked child may do."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

import sbe
from sbe import _native, errors
from sbe.heaps.memfd import MemfdHeap
from tests.children import in_child
from tests.unit.channel_pair import LIMIT_S, Pair

BIG = 1 << 32


@pytest.fixture
def fd():
    grant = MemfdHeap().allocate(1 << 16)
    yield grant.fd
    os.close(grant.fd)


def end(fd: int, *, memory: Any = None, **changes: Any) -> _native.Channel:
    settings = {"id": 1, "context": 1, "slots": 4, "slot_size": 256, "line": 64}
    settings |= {"send_offset": 0, "receive_offset": 8192}
    memory = memory or _native.Memory(fd, 1 << 16)
    bell = os.eventfd(0)
    try:
        settings |= {"ring_fd": bell, "wake_fd": bell}
        return _native.Channel(_native.Table(1), memory, **settings | changes)
    finally:
        os.close(bell)


@pytest.mark.parametrize(
    "changes",
    [
        {"send_offset": 4, "opener": True},
        {"receive_offset": 8192 + 32},
        {"max_calls": 0},
        {"max_calls": 65537},
        {"send_offset": (1 << 64) - 64},
        {"slots": 3},
    ],
)
def test_a_channel_that_can_not_be(fd: int, changes: dict[str, Any]):
    with pytest.raises(errors.BadArgument):
        end(fd, **changes)


def test_ring_memory_that_can_not_be_written(fd: int):
    with pytest.raises(errors.BadArgument, match="ring memory is writable"):
        end(fd, memory=_native.Memory(fd, 1 << 16, readonly=True), opener=True)


@pytest.mark.parametrize(
    "work",
    [
        lambda fd: _native.Memory(fd, (1 << 64) + 4096),
        lambda fd: _native.Memory(fd, -4096),
        lambda fd: _native.Table(BIG + 1),
        lambda fd: _native.Table(1).add(_native.Memory(fd, 4096), BIG + (1 << 16), 1),
        lambda fd: _native.ring_size(BIG + 4, 256, 64),
    ],
)
def test_numbers_are_not_cut_to_size(fd: int, work: Callable[[int], object]):
    with pytest.raises(errors.BadArgument, match="is not between 0 and"):
        work(fd)


def test_a_table_has_room_for_what_an_area_id_can_tell():
    assert _native.Table(65535) is not None
    with pytest.raises(errors.BadArgument, match="a table of 65536 areas"):
        _native.Table(65536)


@pytest.mark.parametrize("service", [-1, 1 << 16, 1 << 70])
def test_a_services_id_is_not_cut_to_size(service: int):
    with Pair() as pair:
        for work in (pair.host.submit, pair.host.call, pair.host.send):
            with pytest.raises(errors.BadArgument, match="is not between 0 and 65535"):
                work(service)
        with pytest.raises(errors.BadArgument):
            pair.host.batch(service, 0, 0, b"", b"", 0, bytearray(), bytearray(), bytearray(), 0)


def test_a_direction_takes_one_argument_by_position():
    for kind in (sbe.In, sbe.Out, sbe.InOut, sbe.Shared):
        with pytest.raises(TypeError):
            kind(bytearray(1), size=1)  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            kind()  # type: ignore[call-arg]


def test_memory_that_is_not_an_area(fd: int):
    with Pair() as pair, pytest.raises(errors.AreaFreed, match="not registered as an area"):
        pair.host.submit(1, (_native.In(_native.Memory(fd, 4096)),))


def test_nothing_may_be_assigned_from_anywhere(fd: int):
    memory = _native.Memory(fd, 4096)
    memory[8:8] = memoryview(bytearray())
    memory[0:2] = b"ab"
    with pytest.raises(errors.OutOfRange):
        memory[0:2] = b"abc"
    assert bytes(memory[0:3]) == b"ab\0"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_leaves_the_rings_alone():
    with Pair() as pair:
        call, waiting = pair.host.submit(1), [pair.host.submit(2)]
        first, dropped = pair.take(), [pair.take()]

        def child() -> None:
            for work in (lambda: pair.host.submit(3), pair.host.poll, pair.host.nudge, call.result):
                with pytest.raises(errors.LinkError, match="forked this one: connect again"):
                    work()
            first.respond(b"child")
            dropped.clear()
            waiting[0].cancel()
            pair.host.fail(errors.LinkClosed("in the child"))

        assert in_child(child) == 0
        first.respond(b"parent")
        dropped[0].respond(b"too")
        assert call.result(LIMIT_S).payload == b"parent"
        assert waiting[0].result(LIMIT_S).payload == b"too"
        assert not dropped[0].cancelled


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_can_not_close_its_parents_connection():
    with sbe.connect("loopback:") as link:
        assert link.call("echo", payload=b"before").payload == b"before"

        def child() -> None:
            with pytest.raises(errors.LinkError, match="connect again here"):
                link.call("echo", payload=b"child")
            with pytest.raises(errors.LinkError, match="connect again here"):
                link.allocate(4096)
            link.close()
            link.__del__()

        assert in_child(child) == 0
        assert link.call("echo", payload=b"after").payload == b"after"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_leaves_the_doorbells_of_its_parent_alone():
    near, far = socket.socketpair()
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    doorbells = _native.Doorbells(near.fileno())

    def child() -> None:
        with pytest.raises(errors.LinkError):
            doorbells.add(1, bell, bell)
        doorbells.close()  # the thread that it would wait for is not here

    assert in_child(child) == 0
    doorbells.add(1, bell, bell)
    far.settimeout(LIMIT_S)
    os.eventfd_write(bell, 1)
    assert far.recv(16)
    doorbells.close()
    doorbells.close()
    for end in (near, far):
        end.close()
    os.close(bell)
