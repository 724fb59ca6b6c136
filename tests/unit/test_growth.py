"""What one client does costs the same however many there are: counted in steps of Python."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import sbe
from sbe import errors
from sbe.daemon import supervisor
from sbe.heaps.memfd import MemfdHeap
from sbe.link.link import Link, _AreaIds
from sbe.link.pending import Pending
from tests.unit.session_pair import PythonRemote

OURS = str(Path(sbe.__file__).parent)
RINGS: dict[str, Any] = {"slots": 2, "slot_size": 64, "send_offset": 0, "receive_offset": 2048}
FEW, MANY = 2, 300


def steps(work: Callable[[], object]) -> int:
    """Instructions of the interpreter in the package's own code."""
    count = 0

    def look(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.fixture
def memory() -> Iterator[int]:
    with MemfdHeap().allocate(8192) as allocation:
        yield allocation.fd


class Crowd:
    """A link with so many contexts, each with two areas and a channel."""

    def __init__(self, count: int, memory: int) -> None:
        tables: dict[str, Any] = {"areas": 1000, "contexts": 400, "channels": 400}
        self.remote = PythonRemote(**tables)
        self.link = Link(self.remote.connect, **tables)
        self.link.reconnect()
        self.memory = memory
        for _ in range(count):
            self.come()

    def done(self, pending: Pending[Any]) -> Any:
        return self.link.wait(pending, 10)

    def come(self) -> tuple[int, int, int, int]:
        """A client's context, its area, its rings and its channel."""
        context = self.done(self.link.create_context())
        area = self.done(self.link.map_area(context, self.memory, 8192))
        rings = self.done(self.link.map_area(context, self.memory, 8192, sbe._native.AREA_RING))
        channel = self.done(self.link.open_channel(context, rings, **RINGS))
        return context, area, rings, channel

    def tidy(self, context: int, area: int, rings: int, channel: int) -> None:
        """A client takes back one thing after the other."""
        with pytest.raises(errors.Busy, match=f"holds the rings of channel {channel}"):
            self.link.unmap_area(rings)
        self.done(self.link.close_channel(channel))
        self.done(self.link.unmap_area(rings))
        self.done(self.link.unmap_area(area))
        self.done(self.link.destroy_context(context))

    def close(self) -> None:
        self.link.close()
        self.remote.die()


def steps_beside(count: int, memory: int) -> list[int]:
    """Of a client that comes, tidies up, comes again and leaves."""
    crowd = Crowd(count, memory)
    came: list[tuple[int, int, int, int]] = []

    def come() -> None:
        came.append(crowd.come())

    def tidy() -> None:
        crowd.tidy(*came.pop())

    def leave() -> None:
        crowd.done(crowd.link.destroy_context(came.pop()[0]))

    come()
    leave()  # what is done once is done
    counts = [steps(work) for work in (come, tidy, come, leave)]
    assert len(crowd.link.contexts) == len(crowd.link.channels) == count
    assert len(crowd.link.areas) == len(crowd.remote.handler.areas) == 2 * count
    crowd.close()
    return counts


def test_a_client_that_comes_and_goes(memory: int):
    counts = [steps_beside(count, memory) for count in (FEW, MANY)]
    assert counts[0] == counts[1]
    assert min(counts[0]) > 100  # something was counted


def test_the_end_of_a_context_takes_its_own(memory: int):
    """Whatever was taken back before, and also what a former remote knew."""
    crowd = Crowd(0, memory)
    clients = [crowd.come() for _ in range(3)]
    crowd.done(crowd.link.unmap_area(clients[0][1]))
    crowd.done(crowd.link.close_channel(clients[1][3]))
    crowd.done(crowd.link.destroy_context(clients[1][0]))
    assert {area.context for area in crowd.link.areas} == {clients[0][0], clients[2][0]}
    assert [channel.id for channel in crowd.link.channels] == [clients[0][3], clients[2][3]]
    crowd.link.reconnect()  # channels end with the remote
    crowd.done(crowd.link.unmap_area(clients[0][2]))
    channel = crowd.done(crowd.link.open_channel(clients[2][0], clients[2][2], **RINGS))
    with pytest.raises(errors.Busy, match=f"channel {channel}"):
        crowd.link.unmap_area(clients[2][2])
    crowd.done(crowd.link.destroy_context(clients[2][0]))
    assert not crowd.link.areas
    assert not crowd.link.channels
    assert crowd.link.contexts == [clients[0][0]]
    crowd.close()


def test_all_contexts_of_a_daemon_may_end_at_once():
    """Before the remote has answered the first of them."""
    count = supervisor._CONTEXTS
    remote = PythonRemote(contexts=count)
    link = Link(remote.connect, contexts=count, pending=supervisor._PENDING)
    link.reconnect()
    contexts = [link.wait(link.create_context(), 10) for _ in range(count)]
    remote.deaf = True
    ends = [link.destroy_context(context) for context in contexts]
    ping = link.ping()
    remote.deaf = False
    while not ping.done:
        remote.pump()
        link.process()
    for end in ends:
        end.result()
    assert link.contexts == []
    link.close()
    remote.die()


def test_indexes_beyond_what_the_remote_holds_cost_nothing():
    """A former remote could hold more; one to come may again."""
    ids = _AreaIds()
    for area in [ids.take(MANY) for _ in range(MANY)]:
        ids.give(area)
    assert {ids.take(2) & 0xFFFF for _ in range(2)} == {0, 1}

    def refused() -> None:
        with pytest.raises(errors.OutOfResources, match="all 2 areas"):
            ids.take(2)

    refused()
    assert steps(refused) < MANY
    again = [ids.take(MANY) & 0xFFFF for _ in range(MANY - 2)]
    assert sorted(again) == list(range(2, MANY))
    with pytest.raises(errors.OutOfResources, match=f"all {MANY} areas"):
        ids.take(MANY)
