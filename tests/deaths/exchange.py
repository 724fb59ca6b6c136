"""What an application does with a link, one step after the other, while somebody may die.

Each step ends within its deadline: with what it must come to, or with an error that says who died.
"""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np

import sbe

__all__ = ["Exchange", "Wrong"]

TIMEOUT_S = 30.0  # of each step, which none of them reaches
SOON_S = 8.0  # a step that lasts longer was a hang, on a machine however busy
SIZE = 8192
ATTEMPTS = 4  # to connect, or to do what must come to work again: two of them may meet a death


_T = TypeVar("_T")


class Wrong(AssertionError):
    """A wrong answer, an error that says nothing, or one that came late."""


class Exchange:
    """One application. `explains` says whether an error is one that a death explains.

    Used by one thread. `errors` are those that were raised so far, in words.
    """

    def __init__(self, uri: str, explains: Callable[[sbe.Error], bool]) -> None:
        self.uri = uri
        self.explains = explains
        self.errors: list[str] = []
        self.held: sbe.Area | None = None

    def run(self) -> None:
        """All of it, then proof that all works."""
        link = self._until_well(partial(sbe.connect, self.uri, timeout=TIMEOUT_S))
        with link:
            self._steps(link)
            self._until_well(partial(self._prove, link))

    def run_once(self) -> None:
        """As far as it goes, with who does not come back."""
        for link in self._attempt(partial(sbe.connect, self.uri, timeout=TIMEOUT_S)):
            with link:
                self._steps(link)

    def _steps(self, link: sbe.Connection) -> None:
        for step in (
            self._serve,
            self._allocate,
            self._plain,
            self._relay,
            self._batch,
            self._several,
            self._withdraw,
            self._free,
            self._ask,
        ):
            self._attempt(partial(step, link))

    # -- how a step may end --------------------------------------------------------------------

    def _attempt(self, step: Callable[[], _T]) -> list[_T]:
        """What it came to, nothing when it failed with reason."""
        begun = time.monotonic()
        results = []
        try:
            results.append(step())
        except sbe.Error as error:
            if not self.explains(error):
                raise Wrong(f"{type(error).__name__}: {error}") from error
            self.errors.append(f"{type(error).__name__}: {error}")
        took = time.monotonic() - begun
        if took > SOON_S:
            raise Wrong(f"it took {took:.1f} s: {self.errors}")
        return results

    def _until_well(self, step: Callable[[], _T]) -> _T:
        """What has to come to work again."""
        for _ in range(ATTEMPTS):
            for result in self._attempt(step):
                return result
        raise Wrong(f"it does not come back: {self.errors}")

    # -- steps ---------------------------------------------------------------------------------

    def _serve(self, link: sbe.Connection) -> None:
        link.serve("double", lambda payload: bytes(payload) * 2)

    def _allocate(self, link: sbe.Connection) -> None:
        area = link.allocate(SIZE)
        area[:] = bytes(range(256)) * (SIZE // 256)
        self.held = area

    def _plain(self, link: sbe.Connection) -> None:
        check(link.call("echo", payload=b"plain").payload == b"plain")
        self._crc(link)
        out = link.allocate(SIZE)
        try:
            check(link.call("fill", sbe.Out(out), payload=b"\7").written == (SIZE,))
            check(bytes(out) == b"\7" * SIZE)
        finally:
            out.free()

    def _crc(self, link: sbe.Connection) -> None:
        if self.held is None:
            return
        wanted = zlib.crc32(bytes(range(256)) * (SIZE // 256)).to_bytes(4, "little")
        check(link.call("crc32", sbe.In(self.held)).payload == wanted)

    def _relay(self, link: sbe.Connection) -> None:
        check(link.call("relay", payload=b"double\0ab").payload == b"abab")

    def _batch(self, link: sbe.Connection) -> None:
        if self.held is None:
            return
        result = link.batch("crc32", self.held.descriptors(sbe.In, np.arange(16), 1), reply_size=4)
        check(not result.status.any())
        for i, reply in enumerate(result.payload):
            check(bytes(reply) == zlib.crc32(bytes([i])).to_bytes(4, "little"))

    def _several(self, link: sbe.Connection) -> None:
        futures = [link.submit("echo", payload=bytes([i])) for i in range(8)]
        futures += [link.submit("relay", payload=b"double\0" + bytes([i])) for i in range(3)]
        ends = [self._attempt(lambda each=each: each.result(TIMEOUT_S)) for each in futures]  # type: ignore[misc]
        for i, replies in enumerate(ends):
            wanted = bytes([i]) if i < 8 else bytes([i - 8]) * 2
            check(all(each.payload == wanted for each in replies))

    def _withdraw(self, link: sbe.Connection) -> None:
        future = link.submit("mulaw", sbe.In(bytes(64)), sbe.Out(bytearray(32)))
        future.cancel()
        with contextlib.suppress(sbe.Cancelled):
            future.result(TIMEOUT_S)

    def _free(self, link: sbe.Connection) -> None:
        if self.held is not None:
            self._crc(link)
            self.held.free()

    def _ask(self, link: sbe.Connection) -> None:
        check("echo" in {each.name for each in link.services()})
        check(link.list() is not None)

    def _prove(self, link: sbe.Connection) -> None:
        """All of it works, and nothing but what is in hand is there."""
        fresh = link.allocate(SIZE)
        try:
            check(link.call("fill", sbe.Out(fresh), payload=b"\5").written == (SIZE,))
            check(bytes(fresh) == b"\5" * SIZE)
            self._relay(link)
        finally:
            fresh.free()


def check(right: bool) -> None:
    if not right:
        raise Wrong("an answer is wrong")
