"""A remote that asks for more than there is, and one that takes less than this end could send."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import sbe
import sbe.testing
from sbe import _native
from sbe.errors import MessageTooLarge, RemoteError
from sbe.link.rings import Geometry, Rings, attach, create_rings
from tests.faults.attacks import remote

OPEN_REQUESTS = 4096  # that the host keeps for one channel
SLOTS = 64
SECONDS = 20.0


@pytest.fixture
def rings() -> Iterator[Rings]:
    made = create_rings(Geometry(SLOTS, 256), 64)
    yield made
    made.close()


def remote_end(rings: Rings) -> _native.Channel:
    """The other end of the channel: what a remote would be."""
    return _native.Channel(
        _native.Table(1),
        _native.Memory(rings.memory_fd, rings.size_bytes),
        1,
        0,
        *rings.geometry,
        rings.line_bytes,
        rings.receive_offset,
        rings.send_offset,
        rings.wake_fd,
        rings.ring_fd,
        max_calls=2 * OPEN_REQUESTS,  # more than an honest end has
    )


@remote(20, 29)
def test_requests_beyond_the_bound_are_answered_busy(rings: Rings):
    host, remote = attach(rings, _native.Table(1), 1, 0), remote_end(rings)
    kept = []
    for _ in range(OPEN_REQUESTS):
        kept.append(remote.submit(7))
        assert host.poll()
    refused = [remote.submit(7) for _ in range(SLOTS)]
    assert host.poll()
    # The answers fill the ring, since the remote does not read: there is no room for another.
    unheard = [remote.submit(7) for _ in range(3)]
    remote.send(7)
    assert host.poll()
    counters = host.counters()
    assert (counters["requests"], counters["refused"], counters["lost"]) == (
        OPEN_REQUESTS,
        SLOTS + 4,
        4,
    )
    for call in refused:
        with pytest.raises(RemoteError, match="EBUSY") as raised:
            call.result(SECONDS)
        assert raised.value.code == errno.EBUSY
    assert not any(call.done() for call in [*kept, *unheard])
    for call in kept:  # those that were taken are answered as ever
        request = host.next_request(SECONDS)
        assert request is not None
        request.respond(b"yes")
        assert call.result(SECONDS).payload == b"yes"
    late = remote.submit(7)  # and there is room again
    request = host.next_request(SECONDS)
    assert request is not None
    request.respond()
    late.result(SECONDS)
    assert host.counters()["requests"] == 0


@pytest.mark.parametrize("most", [0, 1, 5, _native.BUFFERS_MAX])
def test_no_more_buffers_than_the_link_agreed_on(most: int):
    def count(payload: bytes, *buffers: memoryview) -> bytes:
        return bytes([len(buffers)])

    words = f"{most + 1} buffers .*takes at most {most}"
    with sbe.testing.Remote({"count": count}, buffers=most) as remote, remote.link() as link:
        with pytest.raises(MessageTooLarge, match=words):
            link.call("count", *[sbe.In(b"x")] * (most + 1))
        area = link.allocate(4096)
        lines = np.zeros((3, most + 1), np.int64)
        with pytest.raises(MessageTooLarge, match=words):
            link.batch("count", area.descriptors(sbe.In, lines, 1))
        assert link.call("count", *[sbe.In(b"x")] * most).payload == bytes([most])


def test_an_end_can_not_take_more_buffers_than_there_is_room_for():
    handler: Any = object()
    with pytest.raises(ValueError, match="buffers is at most"):
        _native.Session(handler, role=_native.ROLE_HOST, buffers=_native.BUFFERS_MAX + 1)
