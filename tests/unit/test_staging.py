"""Staged calls: results are not lost, areas go back to the pool however a call ends."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import sbe
from sbe import errors
from sbe.sdk.staging import StagedCall

SIZE = 1 << 16


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
