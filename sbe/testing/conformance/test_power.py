"""Suspend and resume: what is called meanwhile waits, and control goes on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from functools import partial

import pytest

import sbe
from sbe.testing.conformance.parts import Connector, needs


@pytest.fixture
def link(connect: Connector) -> Iterator[sbe.Connection]:
    """A link to a remote that knows power; it is not left suspended, for others may share it."""
    link = connect()
    try:
        link.resume()
    except sbe.PermissionDenied as error:
        pytest.skip(str(error))
    except sbe.Error as error:
        if error.code != errno.EOPNOTSUPP:
            raise
        pytest.skip("the remote can't be suspended")
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


@needs("echo")
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


@needs("echo")
def test_asking_twice_is_fine(link: sbe.Connection) -> None:
    link.resume()
    for _ in range(3):
        link.suspend()
    link.resume()
    link.resume()
    assert link.call("echo", payload=b"x").payload == b"x"


@needs("echo")
def test_a_deadline_passes_while_suspended(link: sbe.Connection) -> None:
    link.suspend()
    with pytest.raises(sbe.Timeout):
        link.call("echo", payload=b"late", timeout=0.05)
    waits = link.submit("echo", payload=b"waits")
    link.resume()
    assert waits.result().payload == b"waits"


@needs("invert")
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
