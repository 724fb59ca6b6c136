"""Staged calls: results are not lost, areas go back to the pool however a call ends."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sbe
import sbe.testing
from sbe import errors
from sbe.sdk import staging
from sbe.sdk.staging import StagedCall
from tests.conformance.ends import daemon_process

SIZE = 1 << 16
LIMIT_S = 30.0


@pytest.fixture
def link():
    with sbe.connect("loopback:") as link:
        yield link


def staged(link: sbe.Connection, source: Any, target: Any, service: str = "copy") -> StagedCall:
    call = link.submit(service, sbe.In(source), sbe.Out(target))
    assert isinstance(call, StagedCall)
    return call


def areas(link: sbe.Connection) -> int:
    return len(link.list()["areas"])


def test_a_result_that_comes_just_after_the_wait_for_it_ended(link: sbe.Connection):
    """The reply is taken by whoever looks next; it must still be copied home."""
    source, target = np.full(SIZE, 7, np.uint8), np.zeros(SIZE, np.uint8)
    call = staged(link, source, target)
    native = call.call
    given_up: list[int] = []

    class Late:
        def result(self, timeout: float | None) -> Any:
            if not given_up:
                given_up.append(1)
                while not native.done():
                    pass
                raise errors.Timeout("the call goes on: no answer yet")
            return native.result(timeout)

        def __getattr__(self, name: str) -> Any:
            return getattr(native, name)

    call.call = Late()  # type: ignore[assignment]
    with pytest.raises(errors.Timeout):
        call.result(0)
    call.result()
    assert (target == 7).all()


@pytest.mark.parametrize("end", ["exception", "cancel", "forget", "error"])
def test_the_pool_does_not_grow_however_calls_end(link: sbe.Connection, end: str):
    source, target = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    small = np.zeros(SIZE // 2, np.uint8)
    staged(link, source, target).result()
    before = areas(link)
    for _ in range(20):
        call = staged(link, source, small if end in ("exception", "error") else target)
        if end == "cancel":
            call.cancel()
        elif end == "exception":
            assert isinstance(call.exception(), errors.NoRoom)
        elif end == "error":
            with pytest.raises(errors.NoRoom):
                call.result()
        del call
        gc.collect()
        link.sync()  # whatever was in flight has been answered
    assert areas(link) <= before + 2


# -- what the pool keeps --------------------------------------------------------------------------


def areas_of(link: sbe.Connection) -> int:
    """Without a question to the remote."""
    return int(link.stat()["connection"]["areas"])


def keepers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sbe-staging"]


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_what_lies_idle_is_given_back(link: sbe.Connection, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(staging, "IDLE_S", 0.02)
    source, target = np.full(1 << 24, 7, np.uint8), np.zeros(1 << 24, np.uint8)
    for _ in range(2):
        link.call("copy", sbe.In(source), sbe.Out(target))
        wait_until(lambda: areas(link) == 0)
        assert link.stat()["users"][0]["used"]["bytes"] < 1 << 20  # the rings
        wait_until(lambda: not keepers())  # nothing to look after: no thread, no timer
        target[:] = 0
    link.call("copy", sbe.In(source), sbe.Out(target))
    assert (target == 7).all()


def test_what_is_in_use_is_not_idle(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(staging, "IDLE_S", 0.01)
    opened = threading.Event()

    def gate(payload: bytes, data: memoryview) -> bytes:
        assert opened.wait(LIMIT_S)
        data[:] = b"\7" * len(data)
        return b""

    with sbe.testing.Remote({"gate": gate}) as remote, remote.link() as link:
        target = np.zeros(SIZE, np.uint8)
        call = link.submit("gate", sbe.Out(target))
        for end in (lambda: None, call.cancel):  # in flight, then given up and not yet answered
            end()
            [keeper] = keepers()
            keeper.join(0.1)  # it looks several times
            assert areas_of(link) == 1
        opened.set()
        link.sync()  # whoever looks next takes the late answer
        wait_until(lambda: areas_of(link) == 0)
        assert not target.any()  # the copy is not brought home any more


def test_small_data_keeps_no_large_area(link: sbe.Connection):
    large, small = np.zeros(1 << 24, np.uint8), np.zeros(1 << 16, np.uint8)
    link.call("crc32", sbe.In(large))
    for _ in range(3):
        link.call("crc32", sbe.In(small))
    assert sorted(area["size"] for area in link.list()["areas"]) == [1 << 16, 1 << 24]
    link.call("crc32", sbe.In(large[: 1 << 22]))
    assert areas(link) == 2  # not much smaller: the large one serves


def test_memory_that_is_refused_is_taken_from_the_pool():
    with sbe.testing.Remote({"echo": lambda *_: b""}, areas=3) as remote, remote.link() as link:
        link.call("echo", sbe.In(bytes(SIZE)))
        kept = [link.allocate(4096), link.allocate(4096)]  # one index is that of the rings
        with pytest.raises(sbe.OutOfResources):
            link.allocate(4096)
        kept.pop().free()
        link.call("echo", sbe.In(bytes(SIZE)))


def test_a_quota_is_not_pinned():
    policy = "[policy.default]\nbytes = 4194304\n"
    with daemon_process(f"[[link]]\n{policy}") as uri, sbe.connect(uri, slots=4) as link:
        link.call("crc32", sbe.In(np.zeros(2 << 20, np.uint8)))
        area = link.allocate(3 << 20)
        with pytest.raises(sbe.OutOfResources, match="quota bytes"):
            link.call("crc32", sbe.In(np.zeros(2 << 20, np.uint8)))
        area.free()
        link.call("crc32", sbe.In(np.zeros(2 << 20, np.uint8)))


def test_a_lost_link_is_not_brought_back_for_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(staging, "IDLE_S", 0.01)
    with sbe.connect("loopback:") as link:
        looked = threading.Semaphore(0)
        tend = link._stager.tend

        def look() -> bool:
            looked.release()
            return tend()

        monkeypatch.setattr(link._stager, "tend", look)
        link.call("crc32", sbe.In(bytes(SIZE)))
        [keeper] = keepers()
        link._core.channel.fail(sbe.RemoteRestarted("as if"))
        for _ in range(5):
            assert looked.acquire(timeout=LIMIT_S)
        assert link._core.losses == 0
        assert keeper.is_alive()
        link.call("crc32", sbe.In(bytes(SIZE)))
    keeper.join(LIMIT_S)
    assert not keeper.is_alive()


def test_a_dropped_link_ends_the_thread():
    link = sbe.connect("loopback:")
    link.call("crc32", sbe.In(bytes(SIZE)))
    [keeper] = keepers()
    del link
    keeper.join(LIMIT_S)
    assert not keeper.is_alive()
