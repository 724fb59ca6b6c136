"""`link.restart()` on every transport: it works, or says that nothing here can and ends nothing."""

from __future__ import annotations

import errno
import zlib

import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S
from tests.conformance.ends import Connector

CANNOT = {"own", "linux", "mps2-an521-unix"}


def test_a_new_life_with_the_same_areas(connect: Connector) -> None:
    link = connect(timeout=LIMIT_S)
    area = link.allocate(4096)
    area[:] = b"kept" * 1024
    assert link.call("echo", payload=b"before", timeout=LIMIT_S).payload == b"before"
    epoch = link.epoch
    if connect.name in CANNOT:
        with pytest.raises(sbe.Error, match="nothing here can restart") as raised:
            link.restart(timeout=LIMIT_S)
        assert raised.value.code == errno.EOPNOTSUPP
        assert link.epoch == epoch
    else:
        link.restart(timeout=LIMIT_S)
        assert link.epoch != epoch
    assert link.call("echo", payload=b"after", timeout=LIMIT_S).payload == b"after"
    if "crc32" not in connect.services:
        pytest.skip("no crc32")
    reply = link.call("crc32", sbe.In(area), timeout=LIMIT_S)
    assert reply.payload == zlib.crc32(b"kept" * 1024).to_bytes(4, "little")
