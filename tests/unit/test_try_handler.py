"""sbe.testing.try_handler: a handler gets what a remote would send, and the test what it raises."""

from __future__ import annotations

import asyncio
import logging
import threading

import numpy as np
import pytest

import sbe
import sbe.testing

LIMIT_S = 30.0


def test_buffers_and_payload_as_serve_gives_them() -> None:
    seen: list[object] = []

    def handler(payload: bytes, given: memoryview, result: memoryview, both: memoryview) -> bytes:
        seen.extend((payload, bytes(given), given.readonly, result.readonly, both.readonly))
        result[:] = bytes(given)[::-1]
        both[0] += 1
        return payload.upper()

    source, result, both = np.arange(100_000, dtype=np.uint8), bytearray(100_000), bytearray(b"a")
    reply = sbe.testing.try_handler(
        handler, sbe.In(source), sbe.Out(result), sbe.InOut(both), payload=b"up", timeout=LIMIT_S
    )
    assert (reply.payload, reply.written) == (b"UP", (100_000, 1))
    assert seen == [b"up", source.tobytes(), True, False, False]
    assert (bytes(result), bytes(both)) == (source.tobytes()[::-1], b"b")


def test_a_coroutine_function_also_within_a_loop() -> None:
    async def handler(payload: bytes) -> bytes:
        await asyncio.sleep(0)
        return payload * 2

    async def program() -> bytes:
        return sbe.testing.try_handler(handler, payload=b"x", timeout=LIMIT_S).payload

    assert sbe.testing.try_handler(handler, payload=b"y", timeout=LIMIT_S).payload == b"yy"
    assert asyncio.run(program()) == b"xx"


@pytest.mark.parametrize(
    "error", [AssertionError("as it is"), sbe.NoRoom("full"), KeyError(1), SystemExit(3)]
)
def test_what_it_raises_is_raised(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    def handler(payload: bytes) -> bytes:
        raise error

    async def awaited(payload: bytes) -> bytes:
        raise error

    with caplog.at_level(logging.DEBUG, "sbe"):
        with pytest.raises(type(error)) as raised:
            sbe.testing.try_handler(handler, timeout=LIMIT_S)
        assert raised.value is error
        if isinstance(error, Exception):
            with pytest.raises(type(error)):
                sbe.testing.try_handler(awaited, timeout=LIMIT_S)
    assert not [each for each in caplog.records if each.name.startswith("sbe")]


def test_answers_that_are_none_or_too_large() -> None:
    with pytest.raises(TypeError, match="bytes or None, not 'text'"):
        sbe.testing.try_handler(lambda payload: "text", timeout=LIMIT_S)  # type: ignore[arg-type]
    with pytest.raises(sbe.NoRoom):
        sbe.testing.try_handler(lambda payload: bytes(1 << 20), timeout=LIMIT_S)


@pytest.mark.parametrize("awaited", [False, True])
def test_one_that_does_not_end(awaited: bool) -> None:
    ends = threading.Event()

    def handler(payload: bytes) -> None:
        ends.wait(LIMIT_S)

    async def coroutine(payload: bytes) -> None:
        await asyncio.to_thread(ends.wait, LIMIT_S)

    with pytest.raises(sbe.Timeout, match="'tried'"):
        sbe.testing.try_handler(coroutine if awaited else handler, timeout=0.1)
    ends.set()


@pytest.mark.parametrize("handler", [None, 5, "text"])
def test_what_is_no_handler(handler: object) -> None:
    with pytest.raises(sbe.BadArgument, match="can't be"):
        sbe.testing.try_handler(handler)  # type: ignore[arg-type]
