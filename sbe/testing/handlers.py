"""For tests of what an application gives `serve()`: one request, over real rings."""

from __future__ import annotations

from sbe import _native
from sbe.errors import Error
from sbe.sdk.core import DEFAULT_TIMEOUT_S
from sbe.sdk.handlers import check_handler, is_coroutine
from sbe.sdk.serving import CoroutineHandler, Handler
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
    MessageTooLarge, RemoteError for an answer that can't be sent. Timeout after `timeout` seconds.
    """
    check_handler("a test", handler, awaits=True)
    raised: list[BaseException] = []

    def run(payload: bytes, *buffers: memoryview) -> bytes | bytearray | memoryview | None:
        try:
            answer = handler(payload, *buffers)
            if is_coroutine(handler):
                import asyncio

                return asyncio.run(answer)  # type: ignore[arg-type]
            return answer  # type: ignore[return-value]
        except BaseException as error:
            raised.append(error)
            raise _Raised from error

    with Remote({"tried": run}) as remote, remote.link() as link:
        try:
            return link.call("tried", *buffers, payload=payload, timeout=timeout)
        except Error:
            if raised:
                raise raised[0] from None
            raise


class _Raised(Error):
    """Nothing is logged for it: it is raised where the test is."""
