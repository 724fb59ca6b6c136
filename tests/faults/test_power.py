"""What a remote asks of an application about power, and remotes that ask or answer strangely."""

from __future__ import annotations

import errno
import gc
import os
import threading
from collections.abc import Iterator

import pytest

import sbe
from sbe import _native
from tests.faults.raw_remote import RawRemote
from tests.faults.raw_rings import Frame, Rings

SUSPEND, RESUME, FREQUENCY = (
    _native.EVENT_SUSPEND,
    _native.EVENT_RESUME,
    _native.EVENT_FREQUENCY,
)
LIMIT_S = 20.0


def respond(rings: Rings, frame: Frame) -> None:
    rings.put(frame.response())


@pytest.fixture
def remote() -> Iterator[RawRemote]:
    made = RawRemote(respond)
    yield made
    made.close()


@pytest.fixture
def link(remote: RawRemote) -> Iterator[sbe.Connection]:
    with remote.link() as made:
        yield made


def answered(kind: int, code: int = 0) -> int:
    return kind << _native.ANSWERED_SHIFT | code


def bad_messages(link: sbe.Connection) -> int:
    [entry] = link.stat()["links"]
    return int(entry["bad_messages"])


def settle(remote: RawRemote, link: sbe.Connection) -> None:
    """All that the remote was told to say is taken: it said so before it answers the last find."""
    while remote.events.to_send:
        link.find("anything")
    link.find("anything")


def test_the_application_decides(remote: RawRemote, link: sbe.Connection) -> None:
    heard: list[tuple[str, int, str]] = []

    def decide(request: str, khz: int) -> None:
        heard.append((request, khz, threading.current_thread().name))
        if khz == 1:
            raise sbe.Busy("not now")
        if khz == 2:
            raise PermissionError(errno.EACCES, "no")
        if khz == 3:
            raise ValueError("bug of the application")

    link.on_power(decide)
    events = remote.events
    assert events.ask(SUSPEND) == 0  # nobody calls anything meanwhile
    assert events.ask(RESUME) == 0
    asked = [(khz, events.ask(FREQUENCY, khz)) for khz in (0, 1, 2, 3, 0xFFFFFFFF)]
    assert asked == [(0, 0), (1, errno.EBUSY), (2, errno.EACCES), (3, errno.EIO), (0xFFFFFFFF, 0)]
    assert heard[:3] == [
        ("suspend", 0, "sbe-power"),
        ("resume", 0, "sbe-power"),
        ("frequency", 0, "sbe-power"),
    ]
    link.on_power(None)
    assert link.call("anything").payload == b""
    remote.events.say(SUSPEND)
    settle(remote, link)
    assert events.next() == (_native.EVENT_ANSWERED, answered(SUSPEND, errno.EOPNOTSUPP))


def test_a_handler_may_use_the_connection(remote: RawRemote, link: sbe.Connection) -> None:
    sizes: list[int] = []

    def decide(request: str, khz: int) -> None:
        sizes.append(len(link.allocate(4096)))

    link.on_power(decide)
    assert remote.events.ask(SUSPEND) == 0
    assert sizes == [4096]


def test_closing_while_a_handler_runs(remote: RawRemote) -> None:
    begun, end = threading.Event(), threading.Event()

    def decide(request: str, khz: int) -> None:
        begun.set()
        assert end.wait(LIMIT_S)

    before = threading.active_count()
    link = remote.link()
    link.on_power(decide)
    remote.events.say(SUSPEND)
    assert begun.wait(LIMIT_S)
    closing = threading.Thread(target=link.close)
    closing.start()
    end.set()
    closing.join(LIMIT_S)
    remote.close()
    assert threading.active_count() == before


def test_a_dropped_connection_ends_its_thread(remote: RawRemote) -> None:
    remote.link().close()
    remote.close()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    link = remote.link()
    for _ in range(3):
        link.on_power(lambda request, khz: None)
    link.on_power(None)
    for item in threading.enumerate():
        if item.name == "sbe-power":
            item.join(LIMIT_S)
    link.on_power(lambda request, khz: None)
    [thread] = [item for item in threading.enumerate() if item.name == "sbe-power"]
    del link
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    remote.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_flood_of_requests(remote: RawRemote, link: sbe.Connection) -> None:
    """Eight wait, the rest is dropped and counted; the application is not overrun."""
    go, running, most = threading.Event(), 0, 0

    def decide(request: str, khz: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        assert go.wait(LIMIT_S)
        running -= 1

    link.on_power(decide)
    for khz in range(1000):
        remote.events.say(FREQUENCY, khz)
    settle(remote, link)
    assert bad_messages(link) == 992
    go.set()
    for _ in range(8):
        assert remote.events.next() == (_native.EVENT_ANSWERED, answered(FREQUENCY))
    assert most == 1
    assert remote.events.ask(RESUME) == 0


def test_answers_to_nothing(remote: RawRemote, link: sbe.Connection) -> None:
    for value in (0, 0xFFFFFFFF, answered(SUSPEND), answered(RESUME), answered(99)):
        remote.events.say(_native.EVENT_ANSWERED, value)
    settle(remote, link)
    assert bad_messages(link) == 5
    assert link.list()["links"][0]["state"] == "connected"
    assert link.call("anything").payload == b""


def test_a_frequency_is_answered(remote: RawRemote, link: sbe.Connection) -> None:
    remote.events.say(_native.EVENT_ANSWERED, answered(SUSPEND))  # crosses the request
    for code in (0, errno.EBUSY):
        helper = threading.Thread(target=_answer, args=(remote, code))
        helper.start()
        if code:
            with pytest.raises(sbe.Busy, match="48000 kHz"):
                link.request_frequency(48_000)
        else:
            link.request_frequency(48_000)
        helper.join()
    assert link.list()["links"][0]["state"] == "connected"


def _answer(remote: RawRemote, code: int) -> None:
    assert remote.events.next() == (FREQUENCY, 48_000)
    remote.events.say(_native.EVENT_ANSWERED, answered(FREQUENCY, code))


def test_a_remote_that_does_not_answer(remote: RawRemote, link: sbe.Connection) -> None:
    for _ in range(8):
        with pytest.raises(sbe.Timeout, match="has not answered"):
            link.suspend(timeout=0.01)
    with pytest.raises(sbe.Busy, match="have no answer"):
        link.resume(timeout=0.01)
    remote.events.say(_native.EVENT_ANSWERED, answered(SUSPEND))  # late
    settle(remote, link)
    assert link.list()["links"][0]["state"] == "suspended"
    with pytest.raises(sbe.Timeout):
        link.resume(timeout=0.01)


def test_a_remote_that_dies_suspended(remote: RawRemote, link: sbe.Connection) -> None:
    helper = threading.Thread(target=_suspend, args=(remote,))
    helper.start()
    link.suspend()
    helper.join()
    assert link.list()["links"][0]["state"] == "suspended"
    remote.close()
    with pytest.raises(sbe.RemoteRestarted):
        link.find("anything")
    assert link.call("anything").payload == b""  # of the next life
    assert link.list()["links"][0]["state"] == "connected"


def _suspend(remote: RawRemote) -> None:
    assert remote.events.next() == (SUSPEND, 0)
    remote.events.say(_native.EVENT_ANSWERED, answered(SUSPEND))
