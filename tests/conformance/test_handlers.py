"""Handlers of the application that fail: each is answered, shown by its name, survived."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import sbe
import sbe.testing
from sbe import _native
from sbe.link.pending import Pending
from sbe.sdk import serving
from sbe.testing.conformance.parts import LIMIT_S, Endless
from tests.conformance.ends import Connector
from tests.faults.raw_remote import RawRemote
from tests.unit.channel_pair import Pair

Ask = Callable[[str], bytes]


@contextlib.contextmanager
def asking(connect: Connector, handlers: dict[str, Any]) -> Iterator[Ask]:
    """Calls the handlers: those of this end through the remote's relay, or those of the remote."""
    if connect.firmware:
        link = connect()
        for name, handler in handlers.items():
            link.serve(name, handler)
        yield lambda name: link.call("relay", payload=name.encode() + b"\0x").payload
        return
    with sbe.testing.Remote(handlers) as remote, remote.link() as link:
        yield lambda name: link.call(name, payload=b"x").payload


_thrown: list[BaseException] = []


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    """What is thrown outlives its test, and shows the frames that it came through: a link's."""
    yield
    for error in _thrown:
        error.__traceback__ = error.__context__ = None


def throw(error: BaseException) -> Callable[..., bytes]:
    _thrown.append(error)

    def handler(payload: bytes) -> bytes:
        raise error

    return handler


def leave(payload: bytes) -> bytes:
    sys.exit(3)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even its text")


class Bare(sbe.Error):
    def __init__(self) -> None:
        pass  # and so without a code


class Lying(sbe.Error):
    @property
    def code(self) -> int:
        raise ValueError("not even its code")

    @code.setter
    def code(self, value: int) -> None:
        pass


MISTAKES: dict[str, tuple[Any, int]] = {
    "exit": (leave, errno.EIO),
    "exit-0": (throw(SystemExit(0)), errno.EIO),
    "interrupt": (throw(KeyboardInterrupt()), errno.EIO),
    "generator": (throw(GeneratorExit()), errno.EIO),
    "cancelled": (throw(asyncio.CancelledError()), errno.EIO),
    "bug": (throw(ZeroDivisionError()), errno.EIO),
    "unprintable": (throw(Unprintable()), errno.EIO),
    "os": (throw(OSError(errno.EXDEV, "a number of its own")), errno.EXDEV),
    "os-negative": (throw(OSError(-errno.EXDEV, "the kernel's way")), errno.EXDEV),
    "os-missing": (throw(FileNotFoundError(errno.ENOENT, "no file")), errno.EIO),
    "os-bare": (throw(OSError("no number")), errno.EIO),
    "str": (lambda payload: "text", errno.EIO),
    "int": (lambda payload: 5, errno.EIO),
    "list": (lambda payload: [1, 2], errno.EIO),
    "strided": (lambda payload: memoryview(b"abcdef")[::2], errno.EIO),
    "objects": (lambda payload: np.array([None]), errno.EIO),
    "records": (lambda payload: np.zeros(1, [("t", "M8[s]"), ("k", "O")]), errno.EIO),
    "large": (lambda payload: bytes(1 << 20), errno.ENOSPC),
    "no-arguments": (lambda: b"", errno.EIO),
}
ANSWERS = {
    "ours": (sbe.NoRoom("no room"), errno.ENOSPC),
    "negative": (sbe.Error("the kernel's way", -errno.EINVAL), errno.EINVAL),
    "zero": (sbe.Error("no number", 0), errno.EIO),
    "huge": (sbe.Error("no errno", 1 << 40), errno.EIO),
    "bare": (Bare(), errno.EIO),
    "lying": (Lying(), errno.EIO),
    "no-number": (sbe.Error("no errno", "EINVAL"), errno.EIO),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_answered_shown_and_survived(
    connect: Connector, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler, code = MISTAKES[kind]
    with asking(connect, {"good": lambda payload: payload, kind: handler}) as ask:
        for _ in range(2):
            with pytest.raises(sbe.RemoteError) as caught:
                ask(kind)
            assert caught.value.code == code
            assert ask("good") == b"x"
    shown = [record for record in caplog.records if f"service {kind!r}" in record.getMessage()]
    assert [record.levelno for record in shown] == [logging.ERROR] * 2
    assert all(record.exc_info for record in shown)


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_error_of_ours_is_an_answer(
    connect: Connector, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    error, code = ANSWERS[kind]
    handlers = {"good": lambda payload: payload, kind: throw(error)}
    with asking(connect, handlers) as ask:
        for _ in range(2):
            with pytest.raises(sbe.RemoteError) as caught:
                ask(kind)
            assert caught.value.code == code
            assert ask("good") == b"x"
    assert not caplog.records


def test_a_log_handler_that_raises_is_survived(
    connect: Connector, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("no log")

    broken = Broken()
    logging.getLogger("sbe.serve").addHandler(broken)
    try:
        with asking(connect, {"good": lambda payload: payload, "bug": leave}) as ask:
            with pytest.raises(sbe.RemoteError):
                ask("bug")
            assert ask("good") == b"x"
    finally:
        logging.getLogger("sbe.serve").removeHandler(broken)
    assert "no log" in capfd.readouterr().err


# -- what can't be a handler ----------------------------------------------------------------------


async def coroutine(*_: object) -> bytes:
    return b""


async def stream(*_: object) -> Any:
    yield b""


def pieces(*_: object) -> Any:
    yield b""


class Callable_:
    async def __call__(self, *_: object) -> bytes:
        return b""


NO_HANDLERS: dict[str, tuple[Any, str]] = {
    "None": (None, "can't be"),
    "bytes": (b"answer", "can't be"),
    "coroutine": (coroutine, "run_coroutine_threadsafe"),
    "partial": (functools.partial(coroutine, 1), "run_coroutine_threadsafe"),
    "method": (Callable_().__call__, "run_coroutine_threadsafe"),
    "object": (Callable_(), "run_coroutine_threadsafe"),
    "stream": (stream, "generator"),
    "generator": (pieces, "generator"),
}


@pytest.mark.parametrize("kind", NO_HANDLERS)
def test_what_is_no_handler_is_refused(connect: Connector, kind: str) -> None:
    handler, words = NO_HANDLERS[kind]
    link = connect()
    if "coroutine" not in words:
        with pytest.raises(sbe.BadArgument, match=words):
            link.serve("it", handler)
        assert "it" not in {item["name"] for item in link.list()["services"]}
    if handler is not None:
        with pytest.raises(sbe.BadArgument, match=words):
            link.on_power(handler)
    with pytest.raises(sbe.BadArgument, match=words):
        sbe.testing.Remote({"it": handler})


# -- coroutine functions --------------------------------------------------------------------------


async def later(payload: bytes, *buffers: memoryview) -> bytes:
    await asyncio.sleep(0)
    if payload == b"bug":
        raise ZeroDivisionError
    if payload == b"no":
        raise sbe.NoRoom("none")
    return payload.upper()


class Later:
    async def __call__(self, payload: bytes) -> bytes:
        return await later(payload)


@pytest.mark.parametrize("handler", [later, functools.partial(later), Later(), Later().__call__])
def test_a_coroutine_function_answers(
    connect: Connector, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    if not connect.firmware:
        pytest.skip("a remote of Python functions calls nobody")
    link = connect()
    link.serve("later", handler)
    assert link.call("relay", payload=b"later\0x").payload == b"X"
    with pytest.raises(sbe.RemoteError) as caught:
        link.call("relay", payload=b"later\0no")
    assert caught.value.code == errno.ENOSPC
    assert not caplog.records
    with pytest.raises(sbe.RemoteError) as caught:
        link.call("relay", payload=b"later\0bug")
    assert caught.value.code == errno.EIO
    assert "service 'later' failed" in caplog.text
    link.unserve("later")


async def test_a_coroutine_function_runs_in_the_loop_of_serve(connect: Connector) -> None:
    if not connect.firmware:
        pytest.skip("a remote of Python functions calls nobody")
    link, ran = connect(), []

    async def here(payload: bytes) -> bytes:
        ran.append(asyncio.get_running_loop())
        return payload

    link.serve("here", here)
    assert (await link.acall("relay", payload=b"here\0x")).payload == b"x"
    assert ran == [asyncio.get_running_loop()]


def test_a_coroutine_function_is_cancelled_and_others_go_on() -> None:
    with Pair() as pair:
        loop = asyncio.new_event_loop()
        running = threading.Thread(target=loop.run_forever)
        running.start()
        closing, endless = threading.Event(), Endless()
        server = serving.Server(lambda: pair.remote, closing)
        server.add("waits", endless.handle, lambda: 7, loop)
        server.add("plain", lambda payload: payload, lambda: 8)
        closed = pair.host.submit(7, (), b"")
        endless.wait_begun()
        assert pair.host.submit(8, (), b"x").result(LIMIT_S).payload == b"x"
        server.give_up()
        endless.wait_ended()
        with pytest.raises(sbe.Error) as caught:
            closed.result(LIMIT_S)
        assert caught.value.code == errno.ECANCELED
        loop.call_soon_threadsafe(loop.stop)
        running.join(LIMIT_S)
        loop.close()
        with pytest.raises(sbe.RemoteError) as late:
            pair.host.submit(7, (), b"").result(LIMIT_S)
        assert late.value.code == errno.EIO
        closing.set()
        pair.remote.fail(sbe.LinkClosed("the test is over"))
        server.join(LIMIT_S)


def test_a_coroutine_ends_with_the_remote_that_asked() -> None:
    """And no cancel of the next remote, which counts transactions anew, is for it."""
    endless = Endless()
    with sbe.connect("loopback:") as link:
        link.serve("waits", endless.handle)
        for _ in range(2):
            call = link.submit("relay", payload=b"waits\0", timeout=LIMIT_S)
            endless.wait_begun()
            os.kill(link.list()["links"][0]["pid"], signal.SIGKILL)
            with pytest.raises(sbe.RemoteRestarted):
                call.result()
            endless.wait_ended()
            link.find("relay")
        assert endless.ended == 2


def test_a_coroutine_ends_with_a_remote_that_is_back_before_the_thread_that_serves_looks() -> None:
    endless = Endless()
    with sbe.connect("loopback:") as link:

        def start_anew(payload: bytes) -> None:
            os.kill(link.list()["links"][0]["pid"], signal.SIGKILL)
            with pytest.raises(sbe.RemoteRestarted):
                waiting.result()
            link.find("relay")  # brings the link back, in the thread that serves

        link.serve("waits", endless.handle)
        link.serve("restarts", start_anew)
        waiting = link.submit("relay", payload=b"waits\0", timeout=LIMIT_S)
        endless.wait_begun()
        with pytest.raises(sbe.RemoteRestarted):
            link.call("relay", payload=b"restarts\0", timeout=LIMIT_S)
        endless.wait_ended()


def test_closing_cancels_what_is_awaited() -> None:
    endless = Endless()
    with sbe.connect("loopback:") as link:
        link.serve("waits", endless.handle)
        call = link.submit("relay", payload=b"waits\0x", timeout=None)
        until = time.monotonic() + LIMIT_S
        while not link._server._awaited and time.monotonic() < until:
            call.done()
        assert link._server._awaited
    endless.wait_ended()


# -- power, callbacks -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SystemExit(0), errno.EIO),
        (KeyboardInterrupt(), errno.EIO),
        (sbe.Error("", -errno.EBUSY), errno.EBUSY),
        (sbe.Error("", 0), errno.EIO),
        (OSError(-errno.EACCES, ""), errno.EACCES),
        (ZeroDivisionError(), errno.EIO),
    ],
    ids=repr,
)
def test_a_handler_of_power_that_fails_is_survived(error: BaseException, code: int) -> None:
    def decide(request: str, khz: int) -> None:
        if request == "suspend":
            raise error

    remote = RawRemote(lambda rings, frame: rings.put(frame.response()))
    with contextlib.closing(remote), remote.link() as link:
        link.on_power(decide)
        for _ in range(2):
            assert remote.events.ask(_native.EVENT_SUSPEND) == code
            assert remote.events.ask(_native.EVENT_RESUME) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError()], ids=repr)
def test_a_callback_ends_no_thread(link: sbe.Connection, error: BaseException) -> None:
    """Whoever takes the answer runs it: here it may be the thread that serves, or this one."""

    def bad(call: object) -> None:
        raise error

    link.serve("idle", lambda payload: payload)  # its thread sleeps on the same doorbell
    for i in range(50):
        call = link.submit("echo", payload=bytes([i]))
        call.add_done_callback(bad)
        assert call.result().payload == bytes([i])
        call.add_done_callback(bad)  # at once, by this thread
    assert any(thread.name == "sbe-serve" for thread in threading.enumerate())


def test_what_is_no_callback_is_refused(link: sbe.Connection) -> None:
    for call in (link.submit("echo"), link.submit("crc32", sbe.In(bytes(100_000)))):
        with pytest.raises(sbe.BadArgument, match="can't be called"):
            call.add_done_callback(5)  # type: ignore[arg-type]
        call.result()


def test_every_callback_of_an_operation_is_called() -> None:
    heard: list[int] = []
    pending: Pending[None] = Pending("something")

    def bad(_: object) -> None:
        raise KeyboardInterrupt

    for i in range(3):
        pending.add_done_callback(bad)
        pending.add_done_callback(lambda _, i=i: heard.append(i))  # type: ignore[misc]
    with pytest.raises(KeyboardInterrupt):
        pending.resolve(None)
    assert heard == [0, 1, 2]


# -- the thread that serves -----------------------------------------------------------------------


def test_a_request_that_comes_before_its_handler() -> None:
    """The remote knows of a service before this end has noted which handler it has."""
    with Pair() as pair:
        closing = threading.Event()
        server = serving.Server(lambda: pair.remote, closing)
        calls: list[_native.Call] = []

        def offer() -> int:
            calls.append(pair.host.submit(7, (), b"x"))
            until = time.monotonic() + 0.1  # for an answer that comes too early
            while time.monotonic() < until:
                assert not calls[0].done()
            return 7

        server.add("early", lambda payload: payload + b"y", offer)
        assert calls[0].result(LIMIT_S).payload == b"xy"
        closing.set()
        pair.remote.fail(sbe.LinkClosed("the test is over"))
        server.join(LIMIT_S)


def test_an_operating_system_without_descriptors_ends_no_serving(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "_RETRY_S", 0.001)
    with sbe.connect("loopback:") as link:
        link.serve("good", lambda payload: payload)
        failed = threading.Semaphore(0)
        recover = link._core.backend.recover

        def short() -> None:
            failed.release()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(link._core.backend, "recover", short)
        link._core.backend._remote.kill()  # type: ignore[attr-defined]
        for _ in range(5):
            assert failed.acquire(timeout=LIMIT_S)
        monkeypatch.setattr(link._core.backend, "recover", recover)
        assert link.call("relay", payload=b"good\0x", timeout=LIMIT_S).payload == b"x"
    assert "nothing is served" in caplog.text


def test_pauses_stay_bounded() -> None:
    pauses = [serving._pause_s(failures) for failures in range(1, 5000)]
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == serving._RETRY_MAX_S


def test_no_thread_no_offer(monkeypatch: pytest.MonkeyPatch, link: sbe.Connection) -> None:
    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        with pytest.raises(sbe.OutOfResources, match="can't start new thread"):
            link.serve("late", lambda payload: payload)
    assert "late" not in {item["name"] for item in link.list()["services"]}
    link.serve("late", lambda payload: payload)


async def test_a_call_ends_by_closing_not_by_what_closing_ends(connect: Connector) -> None:
    """A handler is given up, which is an answer to the remote: not one to its caller any more."""
    if not connect.firmware:
        pytest.skip("a remote of Python functions calls nobody")
    link, began = connect(), threading.Event()

    async def forever(payload: bytes) -> None:
        began.set()
        await asyncio.Event().wait()

    link.serve("forever", forever)
    call = link.submit("relay", payload=b"forever\0x", timeout=None)
    assert await asyncio.to_thread(began.wait, LIMIT_S)
    # the last thing that an end does before its link is closed: time for any answer
    link._core.at_end.insert(0, lambda: call.exception(LIMIT_S))
    await asyncio.to_thread(link.close)
    assert isinstance(call.exception(), sbe.LinkClosed)
