"""Calls of submit(): awaited in any loop, and as futures of concurrent.futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import zlib
from typing import Any

import numpy as np
import pytest

import sbe
from sbe import _native
from sbe.sdk.staging import StagedCall
from sbe.testing.conformance.parts import LIMIT_S
from tests.conformance.gate import gated

LARGE = bytes(range(256)) * 400  # staged


def submitted(link: sbe.Connection) -> list[_native.Call | StagedCall]:
    """One of each kind."""
    calls = [link.submit("crc32", sbe.In(LARGE[:size])) for size in (8, len(LARGE))]
    assert [type(call) for call in calls] == [_native.Call, StagedCall]
    return calls


def failing(link: sbe.Connection, service: Any = "copy") -> _native.Call | StagedCall:
    """The remote answers that there is no room."""
    return link.submit(service, sbe.In(b"four"), sbe.Out(bytearray(2)))


SUMS = [zlib.crc32(LARGE[:size]).to_bytes(4, "little") for size in (8, len(LARGE))]


async def test_a_call_is_awaited(link: sbe.Connection) -> None:
    calls = submitted(link)
    assert [(await call).payload for call in calls] == SUMS
    assert [(await call).payload for call in calls] == SUMS  # it has ended
    replies = await asyncio.gather(*(link.submit("echo", payload=bytes([i])) for i in range(50)))
    assert [reply.payload for reply in replies] == [bytes([i]) for i in range(50)]


async def test_results_are_home_when_awaited(link: sbe.Connection) -> None:
    source, target = np.frombuffer(LARGE, np.uint8), np.zeros(len(LARGE), np.uint8)
    await link.submit("copy", sbe.In(source), sbe.Out(target))
    assert np.array_equal(source, target)


def test_futures_of_python(link: sbe.Connection) -> None:
    futures = {
        call.future(): expected for call, expected in zip(submitted(link), SUMS, strict=True)
    }
    for future in concurrent.futures.as_completed(futures, LIMIT_S):
        assert future.result().payload == futures[future]
    done, open_ = concurrent.futures.wait([call.future() for call in submitted(link)], LIMIT_S)
    assert (len(done), len(open_)) == (2, 0)
    target = bytearray(len(LARGE))
    link.submit("copy", sbe.In(LARGE), sbe.Out(target)).future().result(LIMIT_S)
    assert target == LARGE


def test_futures_in_a_loop(link: sbe.Connection) -> None:
    async def main() -> bytes:
        return (await asyncio.wrap_future(link.submit("echo", payload=b"x").future())).payload

    assert asyncio.run(main()) == b"x"


def test_errors_arrive(link: sbe.Connection) -> None:
    async def awaited() -> None:
        with pytest.raises(sbe.RemoteError):
            await failing(link)

    asyncio.run(awaited())
    with pytest.raises(sbe.RemoteError):
        failing(link).future().result(LIMIT_S)


async def dropped(call: _native.Call | StagedCall) -> None:
    """Its task is cancelled once it waits."""

    async def wait() -> None:
        await call

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_deadline_cancel_and_close() -> None:
    with gated() as (gate, link):
        link.call("crc32", sbe.In(LARGE))  # the pool has an area now, which none can ask for below
        late = link.submit("gate", timeout=0.05)
        assert isinstance(late.future().exception(LIMIT_S), sbe.Timeout)
        call = link.submit("gate")
        future = call.future()
        assert future.cancel()
        with pytest.raises(sbe.Cancelled):
            call.result(LIMIT_S)
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(LIMIT_S)
        call = link.submit("gate", sbe.InOut(bytearray(len(LARGE))))
        asyncio.run(dropped(call))
        with pytest.raises(sbe.Cancelled):
            call.result(LIMIT_S)
        open_ = [link.submit("gate", timeout=None) for _ in range(3)]
        futures = [call.future() for call in open_]
        gone = open_[0]
        closing = threading.Thread(target=link.close)  # which waits for the handler
        closing.start()
        for future in futures:
            assert isinstance(future.exception(LIMIT_S), sbe.LinkClosed)
        assert isinstance(gone.future().exception(LIMIT_S), sbe.LinkClosed)
        gate.open()
        closing.join(LIMIT_S)
    assert "sbe-loop" not in {thread.name for thread in threading.enumerate()}


async def test_a_batch_is_awaited(link: sbe.Connection) -> None:
    area = link.allocate(4096)
    area[:] = bytes(4096)
    ranges = area.descriptors(sbe.In, np.arange(100) * 8, 8)
    result = await link.abatch("crc32", ranges, reply_size=4)
    result.check()
    assert result.payload[99].tobytes() == zlib.crc32(bytes(8)).to_bytes(4, "little")


# -- what they say of themselves, and errors of arguments ----------------------------------------


def test_reprs_tell(link: sbe.Connection) -> None:
    area = link.allocate(4096)
    assert repr(sbe.In(area)) == f"sbe.In(<sbe.Area {area.id}: 4096 bytes of {area.heap}>)"
    assert repr(sbe.Out(area[2:8])) == f"sbe.Out(<bytes 2 to 8 of area {area.id}>)"
    assert repr(sbe.InOut(bytearray(5))) == "sbe.InOut(<5 bytes of bytearray>)"
    assert repr(sbe.Shared(np.zeros((2, 2)))) == "sbe.Shared(<32 bytes of ndarray>)"
    calls = submitted(link)
    for call in calls:
        assert "of service 'crc32': " in repr(call)
        call.result()
        assert "of service 'crc32': answered>" in repr(call)
        assert repr(call.result()).startswith("<sbe.Reply of service 'crc32': 4 bytes of payload")
    failed = failing(link)
    failed.exception()
    assert "failed" in repr(failed)


def test_what_was_called_by_number_is_named(link: sbe.Connection) -> None:
    number = {service.name: service.id for service in link.services()}["copy"]
    with pytest.raises(sbe.NoRoom, match="service 'copy'"):
        failing(link, number).result()


def test_a_service_given_as_such_is_named(link: sbe.Connection) -> None:
    service = link.find("copy")
    with pytest.raises(sbe.NoRoom, match="service 'mine'"):
        failing(link, service._replace(name="mine")).result()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "payload": ({"payload": "hi"}, r"payload: .*str.*encode"),
    "payload-number": ({"payload": 5}, r"payload: .*int"),
    "timeout": ({"timeout": "1s"}, r"timeout: .*'1s'"),
    "timeout-nan": ({"timeout": float("nan")}, "a timeout of nan seconds"),
    "service": ({"service": None}, "service: .*NoneType"),
    "service-float": ({"service": 1.5}, "service: .*float"),
    "service-large": ({"service": 1 << 16}, "service: 65536 is not"),
}


@pytest.mark.parametrize("how", ["call", "submit", "send", "acall"])
@pytest.mark.parametrize("kind", WRONG)
def test_the_argument_that_is_wrong_is_named(link: sbe.Connection, how: str, kind: str) -> None:
    arguments, words = WRONG[kind]

    def call() -> None:
        result = getattr(link, how)(**{"service": "echo", **arguments})
        if how == "acall":
            asyncio.run(result)

    with pytest.raises((TypeError, sbe.BadArgument), match=words):
        call()
    assert link.call("echo", payload=b"ok").payload == b"ok"


def test_a_timeout_of_another_kind(link: sbe.Connection) -> None:
    for call in (link.submit("echo"), link.submit("crc32", sbe.In(LARGE))):
        with pytest.raises(TypeError, match="timeout: "):
            call.result("1s")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout: "):
        link.suspend(timeout="1s")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout: "):
        sbe.connect(link.uri, timeout="1s")  # type: ignore[arg-type]
