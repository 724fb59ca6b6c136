"""Functions of the application that answer the other end: what they may be, what errors say."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

from sbe import _native
from sbe.errors import BadArgument, Error, MessageTooLarge

__all__ = [
    "Answer",
    "Handler",
    "Payload",
    "answer",
    "answer_code",
    "check_handler",
    "here",
    "is_coroutine",
    "refuse",
    "report",
    "respond",
]

Payload: TypeAlias = "bytes | bytearray | memoryview | None"
Handler = Callable[..., Payload]
"""handler(payload: bytes, *buffers: memoryview) -> payload of the reply, or None for none."""

_CODE_MAX = (1 << 31) - 1  # what a response's status holds


class Answer(bytes):
    """The payload of an answer that says how much was written: bytes of each buffer, in order."""

    written: tuple[int, ...] = ()


class _Here(threading.local):
    """What this thread is."""

    is_remote = False
    """The one in which a remote lives: to wait for that remote here would be to wait for itself."""


here = _Here()


def is_coroutine(handler: Callable[..., Any]) -> bool:
    """It returns no answer, but what has to be awaited for one."""
    import inspect  # on first use: applications that serve nothing do without its weight

    functions = (handler, getattr(handler, "__call__", None))  # noqa: B004 - its function
    return any(inspect.iscoroutinefunction(function) for function in functions)


def check_handler(subject: str, handler: Callable[..., Any], *, awaits: bool = False) -> None:
    """Raises BadArgument for what can't be called, and for what would answer with no result yet.

    `awaits`: coroutine functions are welcome.
    """
    import inspect  # on first use: applications that serve nothing do without its weight

    if not callable(handler):
        raise BadArgument(f"the handler of {subject} is to be called, and {handler!r} can't be")
    for function in (handler, getattr(handler, "__call__", None)):  # noqa: B004 - its function
        if inspect.iscoroutinefunction(function) and not awaits:
            raise BadArgument(
                f"the handler of {subject} is a coroutine function, and handlers run in a thread: "
                "give a plain function, for example one that returns "
                "asyncio.run_coroutine_threadsafe(coroutine(payload), loop).result()"
            )
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise BadArgument(
                f"the handler of {subject} is a generator: give a plain function that returns its "
                "answer at once"
            )


def answer(request: _native.Request, name: str, handler: Handler | None) -> None:
    """Runs a handler and answers with what it returns or raises, whatever that is.

    The thread is ours, so not even SystemExit ends it; a process that the handler has forked ends.
    What is no answer of the service but a mistake of the application is logged; an `sbe.Error` is
    an answer.
    """
    if request.type == _native.FRAME_CANCEL:
        return  # of a request that was answered meanwhile
    if handler is None:
        request.respond(b"", -errno.ENOENT)
        return
    if request.cancelled:
        request.respond(b"", -errno.ECANCELED)
        return
    owner = os.getpid()
    try:
        result = handler(request.payload, *request.buffers)
    except BaseException as error:
        _end_copy(owner, error)
        refuse(request, name, error)
        return
    _end_copy(owner)
    respond(request, name, result)


def _end_copy(owner: int, error: BaseException | None = None) -> None:
    """Ends a process that a handler has forked where it leaves the handler.

    It would answer as well, and then serve the host's requests beside its parent.
    """
    if os.getpid() == owner:
        return
    code = error.code if isinstance(error, SystemExit) else error and 1
    if error is not None and not isinstance(error, SystemExit):
        report("a process that a handler has forked failed", error)
    os._exit(code & 0xFF if isinstance(code, int) else 1 if code else 0)


def refuse(request: _native.Request, name: str, error: BaseException) -> None:
    """Answers with what a handler has raised."""
    if not isinstance(error, Error):
        report(f"the handler of service {name!r} failed", error)
    request.respond(b"", -answer_code(error))


def respond(request: _native.Request, name: str, result: Payload) -> None:
    """Answers with what a handler has returned."""
    try:
        written = result.written if isinstance(result, Answer) else None
        request.respond(b"" if result is None else result, 0, written)
    except BaseException as error:
        report(f"what the handler of service {name!r} returned can't be sent", error)
        too_large = isinstance(error, MessageTooLarge)
        request.respond(b"", -(errno.ENOSPC if too_large else errno.EIO))


def answer_code(error: BaseException) -> int:
    """What the other end is told of an error: a positive errno, never 0.

    An `sbe.Error` and an OSError keep theirs, whichever sign it was given; all else is EIO, and so
    is a file that the handler has not found: at the other end ENOENT says that there is no such
    service.
    """
    code: object = None
    with contextlib.suppress(Exception):  # a class of the application's may say anything here
        if isinstance(error, Error):
            code = error.code
        elif isinstance(error, OSError) and error.errno != errno.ENOENT:
            code = error.errno
    number = int.__abs__(code) if isinstance(code, int) else 0
    return number if 0 < number <= _CODE_MAX else errno.EIO


def report(message: str, error: BaseException) -> None:
    """Logs a mistake of the application: there is nobody to raise it to. Never raises."""
    import logging  # only when there is something to say

    try:
        logging.getLogger("sbe.serve").error("%s", message, exc_info=error)
    except BaseException:  # a log handler of the application's
        import traceback

        with contextlib.suppress(BaseException):  # whose standard error does not work either
            traceback.print_exc()
