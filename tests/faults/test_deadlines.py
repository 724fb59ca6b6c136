"""A call's timeout holds for all that the call does first: its service looked up, its data staged,
a lost link brought back. The connection's own bound is far away in all of these.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import sbe
from sbe.remotes.process import RemoteProcess
from sbe.transports.seqpacket import SeqpacketTransport
from tests.faults.scripted_daemon import ScriptedDaemon
from tests.integration.varlink_client import daemon

SHORT_S = 0.2
FAR_S = 120.0
SOON_S = 60.0  # far below FAR_S, on a machine that is busy with other tests

Way = Callable[[sbe.Connection, str], object]

ARRAY = np.zeros(1 << 20, np.uint8)  # lies in no area: copied into one
WAYS: dict[str, Way] = {
    "call": lambda link, name: link.call(name, timeout=SHORT_S),
    "submit": lambda link, name: link.submit(name, timeout=SHORT_S),
    "send": lambda link, name: link.send(name, timeout=SHORT_S),
    "batch": lambda link, name: link.batch(
        name, np.zeros((1, 0), sbe.buffer_dtype()), timeout=SHORT_S
    ),
    "acall": lambda link, name: asyncio.run(link.acall(name, timeout=SHORT_S)),
    "abatch": lambda link, name: asyncio.run(
        link.abatch(name, np.zeros((1, 0), sbe.buffer_dtype()), timeout=SHORT_S)
    ),
}


def ends_in_time(way: Way, link: sbe.Connection, name: str, words: str) -> None:
    begun = time.monotonic()
    with pytest.raises(sbe.Timeout, match=words):
        way(link, name)
    assert SHORT_S <= time.monotonic() - begun < SOON_S


@pytest.fixture
def link(scripted: ScriptedDaemon) -> Iterator[sbe.Connection]:
    with sbe.connect(f"unix:{scripted.path}", timeout=FAR_S) as link:
        yield link


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["loopback", "daemon"])
def test_look_up_of_a_name_at_a_frozen_remote(way: str, kind: str, tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        uri = "loopback:" if kind == "loopback" else f"unix:{running.socket}"
        with sbe.connect(uri, timeout=FAR_S) as link:
            pid = link.list()["links"][0]["pid"]
            os.kill(pid, signal.SIGSTOP)
            try:
                ends_in_time(WAYS[way], link, "echo", "the search for service 'echo'|FindService")
            finally:
                os.kill(pid, signal.SIGCONT)
            assert link.call("echo", payload=b"on", timeout=SOON_S).payload == b"on"


@pytest.mark.parametrize("way", WAYS)
def test_look_up_behind_the_operation_of_another_thread(
    way: str, link: sbe.Connection, scripted: ScriptedDaemon
) -> None:
    held = threading.Event()

    def hold(daemon: ScriptedDaemon, reply: dict[str, object], fds: list[int]) -> None:
        daemon.hold(reply, fds)
        held.set()

    scripted.misdeeds["Allocate"] = hold
    other = threading.Thread(target=link.allocate, args=(4096,))
    other.start()
    assert held.wait(SOON_S)
    ends_in_time(WAYS[way], link, "echo", "another thread's operation")
    scripted.release()
    other.join(SOON_S)
    assert not other.is_alive()
    assert link.find("echo").id == 3


@pytest.mark.parametrize(
    "way",
    [
        lambda link: link.call("echo", sbe.In(ARRAY), timeout=SHORT_S),
        lambda link: link.submit("echo", sbe.In(ARRAY), timeout=SHORT_S),
        lambda link: asyncio.run(link.acall("echo", sbe.In(ARRAY), timeout=SHORT_S)),
    ],
    ids=["call", "submit", "acall"],
)
def test_memory_to_stage_in(
    way: Callable[[sbe.Connection], object], link: sbe.Connection, scripted: ScriptedDaemon
) -> None:
    link.find("echo")
    scripted.misdeeds["Allocate"] = lambda daemon, reply, fds: daemon.hold(reply, fds)
    ends_in_time(lambda link, _: way(link), link, "echo", "Allocate")
    scripted.release()
    for _ in range(2):  # the answer that came late is taken, and what follows from it is sent
        link.services()
    assert ("Free", {"area": 1 | 1 << 16}, True) in scripted.called  # nobody wanted it any more


@pytest.mark.parametrize("way", WAYS)
def test_lost_link_of_a_daemon(way: str, link: sbe.Connection, scripted: ScriptedDaemon) -> None:
    link.find("echo")
    link._core.channel.fail(sbe.RemoteRestarted("by the test"))
    scripted.misdeeds["OpenChannel"] = lambda daemon, reply, fds: daemon.hold(reply, fds)
    ends_in_time(WAYS[way], link, "echo", "OpenChannel")
    scripted.release()
    for _ in range(2):
        assert link.find("echo").id == 3
    assert [each for each in scripted.called if each[0] == "CloseChannel"]


class SlowProcess(RemoteProcess):
    """Frozen as soon as it was started, if so wished."""

    freezes = False
    started = 0

    def connect(self) -> SeqpacketTransport:
        transport = super().connect()
        self.started += 1
        if self.freezes:
            assert self.pid is not None
            os.kill(self.pid, signal.SIGSTOP)
        return transport


@pytest.mark.parametrize("way", WAYS)
def test_lost_link_whose_remote_comes_back_slowly(way: str) -> None:
    """Short calls in a row do not start it anew each: it would never be there."""
    remote = SlowProcess()
    with sbe.connect(remote, timeout=FAR_S) as link:
        link.find("echo")
        remote.freezes = True
        remote.kill()
        while link._core.channel.error is None:
            assert select.select([link.control_fd], [], [], SOON_S)[0]
            link._core.process_control()
        for _ in range(3):
            ends_in_time(WAYS[way], link, "echo", "negotiation")
        assert remote.started == 2
        assert remote.pid is not None
        os.kill(remote.pid, signal.SIGCONT)
        assert link.call("echo", payload=b"on", timeout=SOON_S).payload == b"on"
        assert remote.started == 2


@pytest.mark.parametrize("way", ["acall", "abatch", "staged"])
def test_no_thread_to_spare(way: str, link: sbe.Connection) -> None:
    """Others have all of the loop's executor: what is done there for a call has its deadline."""
    go = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        other = asyncio.create_task(asyncio.to_thread(go.wait, FAR_S))
        await asyncio.sleep(0)
        begun = time.monotonic()
        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "acall": lambda: link.acall("echo", timeout=SHORT_S),
            "abatch": lambda: link.abatch(
                "echo", np.zeros((1, 0), sbe.buffer_dtype()), timeout=SHORT_S
            ),
            "staged": lambda: link.acall(3, sbe.In(ARRAY), timeout=SHORT_S),
        }
        with pytest.raises(sbe.Timeout, match="no thread"):
            await ways[way]()
        assert time.monotonic() - begun < SOON_S
        go.set()
        await other

    if way == "staged":
        link.find("echo")
        link._core.ids[3] = 3
    asyncio.run(main())


def test_what_is_left_of_it_is_the_call_s(link: sbe.Connection) -> None:
    """Nobody answers calls here: the look-up is quick, and the call has the rest."""
    for way in ("call", "batch", "acall"):
        ends_in_time(WAYS[way], link, "echo", "echo|batch")
        link._core.ids.clear()


@pytest.mark.parametrize(
    "timeout",
    ["1s", -1, float("nan"), [1], -(10**400)],
    ids=["text", "negative", "nan", "list", "huge"],
)
def test_timeouts_that_are_none(timeout: object, link: sbe.Connection) -> None:
    for _ in range(2):
        with pytest.raises((TypeError, sbe.BadArgument), match="timeout"):
            link.call("echo", timeout=timeout)  # type: ignore[arg-type]
        link.find("echo")
