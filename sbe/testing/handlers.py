"""For tests of what an application gives `serve()`: one request, over real rings."""

from __future__ import annotations

from typing import Any

from sbe import _native
from sbe.errors import Error, Timeout
from sbe.sdk.serving import CoroutineHandler
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S, seconds
from sbe.serve.handlers import Handler, check_handler, is_coroutine
from sbe.testing.remote import Remote

__all__ = ["try_handler"]


def try_handler(
    handler: Handler | CoroutineHandler,
    *buffers: _native.Buffer,
    payload: bytes = b"",
    timeout: float | None = DEFAULT_TIMEOUT_S,
) -> _native.Reply:
    """Runs a handler of `serve()` on one request, as a remote's: the reply that this would get.

    `buffers` are as in `Connection.call()`, seen from the handler: sbe.In(x) is what it may read,
    sbe.Out(x) what it writes. It runs in another thread, a coroutine function in a loop of its own.

    What it raises is raised here as it is, where the remote would get a status: an `sbe.Error` too.
    TypeError for an answer that is none, NoRoom for one that fits no frame. Timeout after `timeout`
    seconds, also when the handler never ends.
    """
    check_handler("a test", handler, awaits=True)
    if timeout is not None:
        timeout = seconds(timeout)
    raised: list[BaseException] = []

    def run(payload: bytes, *buffers: memoryview) -> bytes | bytearray | memoryview | None:
        try:
            answer: Any = handler(payload, *buffers)
            if is_coroutine(handler):
                import asyncio

                answer = asyncio.run(answer)
            if not isinstance(answer, bytes | bytearray | memoryview | None):
                raise TypeError(f"an answer is bytes or None, not {answer!r}")
            return answer
        except BaseException as error:
            raised.append(error)
            raise _Raised from error

    remote = Remote({"tried": run})
    link = remote.link()
    service = link.find("tried")
    try:
        return link.call(service, *buffers, payload=payload, timeout=timeout)
    except Timeout:
        remote.leave()  # the handler may never end
        raise
    except Error:
        if raised:
            raise raised[0] from None
        raise
    finally:
        link.close()


class _Raised(Error):
    """Nothing is logged for it: it is raised where the test is."""
