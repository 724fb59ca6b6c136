"""A signal handler or a finaliser uses the link in the middle of what its own thread does there.

It is run between any two lines of ours, which is where the interpreter may run one: every place
that there is, each time, without waiting for luck.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S
from tests.conformance.ends import Connector
from tests.conformance.gate import gated

OURS = os.path.dirname(sbe.__file__)

Operation = Callable[[sbe.Connection], object]


@contextlib.contextmanager
def between_lines(handler: Callable[[], object]) -> Iterator[None]:
    """Runs it before each line of ours that this thread comes to."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line":
            handler()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def around_calls(handler: Callable[[], object]) -> Iterator[None]:
    """Runs it before and after each call in ours: where signals are looked for, no more.

    Between two lines without a call nothing comes, which what asks nobody may rely on.
    """

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if frame.f_code.co_filename.startswith(OURS):
            handler()

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)


def areas(link: sbe.Connection) -> set[int]:
    return {each["id"] for each in link.list()["areas"] if each["context"] == link.context}


def offer(link: sbe.Connection) -> None:
    link.serve("mine", lambda payload, *buffers: payload)
    link.unserve("mine")


def regions(link: sbe.Connection) -> None:
    for name in link.regions():
        link.region(name).free()


OPERATIONS: dict[str, Operation] = {
    "find": lambda link: link.find("echo"),
    "services": lambda link: link.services(),
    "allocate": lambda link: link.allocate(4096).free(),
    "regions": regions,
    "serve": offer,
    "list": lambda link: link.list(),
    "stat": lambda link: link.stat(),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_free_is_done_at_the_latest_when_the_operation_ends(
    link: sbe.Connection, name: str
) -> None:
    OPERATIONS[name](link)
    before = areas(link)
    kept = [link.allocate(64) for _ in range(400)]
    freed: list[sbe.Area] = []

    def handler() -> None:
        if kept:
            freed.append(kept.pop())
            freed[-1].free()

    with between_lines(handler):
        OPERATIONS[name](link)
    assert all(area.freed for area in freed)
    assert areas(link) == before | {area.id for area in kept}
    assert len(freed) > 10
    with pytest.raises(sbe.AreaFreed):
        link.call("echo", sbe.In(freed[0]))


def echo(link: sbe.Connection) -> None:
    assert link.call("echo", payload=b"inner", timeout=LIMIT_S).payload == b"inner"


def batch(link: sbe.Connection) -> None:
    nothing = np.zeros((3, 0), sbe.buffer_dtype())
    assert not link.batch("echo", nothing, timeout=LIMIT_S).status.any()


def staged(link: sbe.Connection) -> None:
    data = bytes(20000)
    assert len(link.call("crc32", sbe.In(data), timeout=LIMIT_S).payload) == 4


INNER: dict[str, Operation] = {
    **OPERATIONS,
    "call": echo,
    "submit": lambda link: link.submit("echo").result(LIMIT_S),
    "acall": lambda link: asyncio.run(link.acall("echo")),
    "batch": batch,
    "send": lambda link: link.send("echo"),
    "sync": lambda link: link.sync(),
    "staged": staged,
}


@pytest.mark.parametrize("outer", ["find", "allocate", "list"])
@pytest.mark.parametrize("inner", INNER)
def test_anything_else_works_or_is_refused_before_it_begins(
    link: sbe.Connection, outer: str, inner: str
) -> None:
    link.find("echo"), link.find("crc32")
    staged(link)
    before = areas(link)
    refused: list[sbe.BadArgument] = []
    places = 0

    def handler() -> None:
        nonlocal places
        places += 1
        if inner in ("acall", "services", "serve", "list", "staged") and places % 7:
            return  # they take long
        try:
            INNER[inner](link)
        except sbe.BadArgument as error:
            refused.append(error)

    with between_lines(handler):
        result = OPERATIONS[outer](link)
    assert refused
    for error in refused:
        assert error.code == errno.EDEADLK
        assert "only free() and close() may be called there" in str(error)
    if outer == "find":
        assert isinstance(result, sbe.Service)
        assert result.name == "echo"
    if outer == "list":
        assert isinstance(result, dict)
        assert result["links"]
    echo(link)
    assert areas(link) == before


@pytest.mark.parametrize("name", ["find", "allocate"])
def test_close_is_done_at_the_latest_when_the_operation_ends(connect: Connector, name: str) -> None:
    if connect.board is not None or connect.name.startswith("mps2"):
        pytest.skip("starting so many takes long, and the code is that of the others")
    ended: Counter[str] = Counter()
    place = 0
    while True:
        link = connect.open()
        link.find("echo")
        call = link.submit("echo")
        left = place

        def handler(link: sbe.Connection = link) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                link.close()

        with between_lines(handler):
            try:
                OPERATIONS[name](link)
                ended["well"] += 1
            except sbe.LinkClosed:
                ended["closed"] += 1
        reached = left < 0
        link.close()
        assert link.closed
        with pytest.raises(sbe.LinkClosed):
            link.list()
        with contextlib.suppress(sbe.LinkClosed):
            call.result(LIMIT_S)
        if not reached:
            break
        place += 5 if connect.name == "loopback" else 17
    assert ended["closed"] > 0


def test_a_finaliser_in_a_cycle_frees(link: sbe.Connection) -> None:
    failed: list[BaseException] = []

    class Frame:
        def __init__(self) -> None:
            self.area = link.allocate(64)
            self.cycle = self

        def __del__(self) -> None:
            try:
                self.area.free()
            except sbe.Error as error:
                failed.append(error)

    before = areas(link)
    usual = gc.get_threshold()
    gc.set_threshold(3, 2, 2)  # the collector runs in the middle of anything
    try:
        for _ in range(100):
            Frame()
            link.find("echo")
    finally:
        gc.set_threshold(*usual)
    gc.collect()
    assert failed == []
    assert areas(link) == before


def test_the_thread_of_a_remote_in_this_process_frees() -> None:
    """As a finaliser may that the collector runs there: it would wait for its own answer."""
    kept: list[sbe.Area] = []
    with (
        sbe.testing.Remote({"free": lambda payload: kept.pop().free()}) as remote,
        remote.link() as link,
    ):
        before = areas(link)
        kept.append(link.allocate(64))
        link.call("free", timeout=5)
        assert kept == []
        assert areas(link) == before


# -- in the middle of a call ---------------------------------------------------------------------


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("name", ["call", "submit", "batch", "acall"])
def test_a_signal_handler_uses_the_link_while_its_thread_waits_for_an_answer(
    name: str, closes: bool
) -> None:
    went: list[object] = []
    with gated() as (gate, link):
        doomed = link.allocate(64)
        nothing = np.zeros((1, 0), sbe.buffer_dtype())

        def use() -> None:
            second = link.submit("gate", payload=b"second")
            gate.open()  # this remote does one thing at a time
            doomed.free()
            area = link.allocate(64)
            assert second.result(LIMIT_S).payload == b"second"
            assert link.call("gate", sbe.Out(area), payload=b"third").written == (64,)
            assert link.find("echo").name == "echo"
            if closes:
                link.close()

        def handler(*_: object) -> None:
            try:
                use()
                went.append("well")
            except BaseException as error:
                went.append(error)

        def interrupt() -> None:
            gate.wait_seen()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        def wait() -> object:
            if name == "call":
                return link.call("gate", payload=b"first", timeout=LIMIT_S).payload
            if name == "submit":
                return link.submit("gate", payload=b"first").result(LIMIT_S).payload
            if name == "acall":
                return asyncio.run(link.acall("gate", payload=b"first", timeout=LIMIT_S)).payload
            result = link.batch("gate", nothing, reply_size=5, timeout=LIMIT_S)
            result.check()
            return b"first"

        usual = signal.signal(signal.SIGUSR1, handler)
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            assert wait() == b"first"  # answered before the handler ended
        finally:
            thread.join()
            signal.signal(signal.SIGUSR1, usual)
        assert went == ["well"]
        assert link.closed is closes


@pytest.mark.parametrize("name", ["call", "submit", "batch"])
def test_a_signal_handler_closes_the_link_while_its_thread_waits(name: str) -> None:
    with sbe.connect("loopback:") as link:
        nothing = np.zeros((1, 0), sbe.buffer_dtype())
        link.find("echo")
        os.kill(link.list()["links"][0]["pid"], signal.SIGSTOP)

        def interrupt() -> None:
            while link._core.channel.in_flight == 0:
                time.sleep(0.001)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        usual = signal.signal(signal.SIGUSR1, lambda *_: link.close())
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            if name == "batch":
                with pytest.raises(sbe.LinkClosed):
                    link.batch("echo", nothing, timeout=LIMIT_S)
            elif name == "call":
                with pytest.raises(sbe.LinkClosed):
                    link.call("echo", timeout=LIMIT_S)
            else:
                call = link.submit("echo")
                with pytest.raises(sbe.LinkClosed):
                    call.result(LIMIT_S)
        finally:
            thread.join()
            signal.signal(signal.SIGUSR1, usual)
        assert link.closed


# -- memory that asks nobody ---------------------------------------------------------------------


def test_a_pool_in_the_middle_of_itself() -> None:
    with sbe.connect("loopback:") as link:
        pool = sbe.Pool(link.allocate(1 << 20))
        held = [pool.allocate(64) for _ in range(50)]
        inner = []

        def handler() -> None:
            if held:
                pool.free(held.pop())
            inner.append(pool.allocate(100))

        with around_calls(handler):
            outer = [pool.allocate(100), pool.allocate(64)]
            pool.free(outer.pop())
        offsets = [piece.offset for piece in outer + inner]
        assert len(offsets) == len(set(offsets)) > 10
        for piece in outer + inner + held:
            pool.free(piece)
        assert "0 pieces" in repr(pool)


def test_staging_in_the_middle_of_staging() -> None:
    data = np.arange(20000, dtype=np.uint8)
    with sbe.connect("loopback:") as link:
        places = 0
        inner: list[int] = []

        def handler() -> None:
            nonlocal places
            places += 1
            if places % 9 or places > 900:
                return  # each may make the pool of areas larger
            mine = data + np.uint8(places % 256)
            with contextlib.suppress(sbe.BadArgument):  # it may be allocating
                link.call("invert", sbe.InOut(mine), timeout=LIMIT_S)
                assert (mine == ~(data + np.uint8(places % 256))).all()
                inner.append(places)

        for _ in range(2):  # with a pool that is empty, and with one that is not
            outer = data.copy()
            with around_calls(handler):
                link.call("invert", sbe.InOut(outer), timeout=LIMIT_S)
            assert (outer == ~data).all()
        assert len(inner) > 10
