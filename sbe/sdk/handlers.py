"""Functions of the application that answer the other end: what they may be, what errors say."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from typing import Any

from sbe.errors import BadArgument, Error

__all__ = ["Answer", "answer_code", "check_handler", "is_coroutine", "report"]

_CODE_MAX = (1 << 31) - 1  # what a response's status holds


class Answer(bytes):
    """The payload of an answer that says how much was written: bytes of each buffer, in order."""

    written: tuple[int, ...] = ()


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
        logging.getLogger("sbe.sdk").error("%s", message, exc_info=error)
    except BaseException:  # a log handler of the application's
        import traceback

        with contextlib.suppress(BaseException):  # whose standard error does not work either
            traceback.print_exc()
