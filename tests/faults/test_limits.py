"""A remote that takes less than this end could send."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sbe
import sbe.testing
from sbe import _native
from sbe.errors import MessageTooLarge


@pytest.mark.parametrize("most", [0, 1, 5, _native.BUFFERS_MAX])
def test_no_more_buffers_than_the_link_agreed_on(most: int):
    def count(payload: bytes, *buffers: memoryview) -> bytes:
        return bytes([len(buffers)])

    words = f"{most + 1} buffers .*takes {most} at most"
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
