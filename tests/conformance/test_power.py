"""Suspend and resume, of remotes whose end can be told and made."""

from __future__ import annotations

import errno
import os
import signal

import pytest

import sbe
from sbe.kernel import remoteproc
from sbe.testing.conformance.test_power import *
from sbe.testing.conformance.test_power import state
from tests.conformance.ends import Connector
from tests.rigs.kernel import parts as rig


def test_a_context_ends_while_suspended(connect: Connector, link: sbe.Connection) -> None:
    link.suspend()
    if not connect.name.endswith("unix"):
        link.submit("echo")
        link.close()  # the goodbye is answered
        return
    other = connect()
    area = other.allocate(4096)
    other.submit("invert", sbe.InOut(area))
    other.close()  # returns when the daemon has destroyed its context, or is about to
    assert state(link) == "suspended"
    connect().close()  # a channel is opened and closed meanwhile


def test_a_remote_that_restarts_is_not_suspended_any_more(
    connect: Connector, link: sbe.Connection
) -> None:
    link.suspend()
    waits = link.submit("echo")
    if connect.board is not None:
        connect.board.reset()
    elif (pid := link.list()["links"][0]["pid"]) is not None:
        os.kill(pid, signal.SIGKILL)
    else:
        processor = remoteproc.find(rig.NAME)
        processor.stop()
        processor.start()
        rig.wait_for_service("sbe-control")
    with pytest.raises(sbe.RemoteRestarted):
        waits.result()
    assert link.call("echo", payload=b"again").payload == b"again"
    assert state(link) == "connected"


def test_a_frequency_that_the_board_cannot(link: sbe.Connection) -> None:
    for khz in (0, 48_000, 0xFFFFFFFF):
        with pytest.raises(sbe.Error, match="refused") as refused:
            link.request_frequency(khz)
        assert refused.value.code == errno.EOPNOTSUPP
    with pytest.raises(sbe.BadArgument):
        link.request_frequency(-1)
    link.call("echo")
