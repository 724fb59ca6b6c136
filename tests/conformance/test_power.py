"""Suspend and resume: what is called meanwhile waits, and control goes on."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from functools import partial

import pytest

import sbe
from sbe.kernel import remoteproc
from tests.conformance.ends import Connector
from tests.rigs.kernel import parts


@pytest.fixture
def link(connect: Connector) -> Iterator[sbe.Connection]:
    """A link whose remote is firmware; it is not left suspended, for others may share it."""
    if not connect.firmware:
        pytest.skip("a remote of Python functions knows no power")
    link = connect()
    yield link
    if not link.closed:
        link.resume()


def state(link: sbe.Connection) -> str:
    """Of its remote's link, as `sbe list` shows it."""
    [entry] = link.list()["links"]
    return str(entry["state"])


def note(ended: list[int], number: int, _: object) -> None:
    ended.append(number)


def asleep(link: sbe.Connection) -> None:
    """The remote has looked at what came before, if it ever will: it answers a question."""
    link.find("echo")


def test_calls_wait_and_complete_in_order(link: sbe.Connection) -> None:
    link.call("echo")
    link.suspend()
    assert state(link) == "suspended"
    ended: list[int] = []
    calls = [link.submit("echo", payload=bytes([i])) for i in range(20)]
    for i, call in enumerate(calls):
        call.add_done_callback(partial(note, ended, i))
    for _ in range(10):
        asleep(link)
    assert not any(call.done() for call in calls)
    link.resume()
    assert [call.result().payload for call in calls] == [bytes([i]) for i in range(20)]
    assert ended == list(range(20))
    assert state(link) == "connected"


def test_asking_twice_is_fine(link: sbe.Connection) -> None:
    link.resume()
    for _ in range(3):
        link.suspend()
    link.resume()
    link.resume()
    assert link.call("echo", payload=b"x").payload == b"x"


def test_a_deadline_passes_while_suspended(link: sbe.Connection) -> None:
    link.suspend()
    with pytest.raises(sbe.Timeout):
        link.call("echo", payload=b"late", timeout=0.05)
    waits = link.submit("echo", payload=b"waits")
    link.resume()
    assert waits.result().payload == b"waits"


def test_an_area_of_a_waiting_call_is_quarantined(link: sbe.Connection) -> None:
    area, other = link.allocate(4096), link.allocate(4096)
    with memoryview(area) as bytes_of_it:
        bytes_of_it[:] = b"\x01" * 4096
    link.suspend()
    call = link.submit("invert", sbe.InOut(area))
    other.free()
    with pytest.raises(sbe.Busy):
        area.free()
    assert not call.done()
    link.resume()
    assert call.result().written == (4096,)
    area.free()


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
        processor = remoteproc.find(parts.NAME)
        processor.stop()
        processor.start()
        parts.wait_for_service("sbe-control")
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
