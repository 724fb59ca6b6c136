"""What the suite's tests share: the connector, what a test needs of a remote, small helpers."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.services import PYTHON_SERVICES

__all__ = [
    "LIMIT_S",
    "STANDARD",
    "STREAMS",
    "Connector",
    "Endless",
    "Gate",
    "answered",
    "in_a_loop",
    "lacks",
    "needs",
    "noise",
    "shown",
]

LIMIT_S: Final = 30.0  # turns a hang into a failure
STREAMS: Final = frozenset({"tone", "meter", "loop"})
STANDARD: Final = frozenset(PYTHON_SERVICES) | {"relay", "total"} | STREAMS
"""The services that the suite calls, where a remote has them."""


@dataclass
class Connector:
    """Opens links of one kind, as `sbe.connect()` does. Used by one thread."""

    name: str
    open: Callable[..., sbe.Connection]
    services: frozenset[str] = STANDARD  # what the remote has of them
    tells_written: bool = True  # a service says how many bytes it wrote; Python functions do not
    coherent: bool = True  # no cache is ever maintained
    coherent_heap: str | None = None  # where memory of both ends at once is from, if not the first
    large_bytes: int = 16 << 20  # of a large area
    rings_bytes: int = 32 << 20  # that one channel may take
    clock_error: float = 0.0  # of the remote's, which may be another clock
    slots: int = 1024  # of the longest ring that the tests ask for
    slot_bytes: int = 16384  # of the largest slot
    links: list[sbe.Connection] = field(default_factory=list)

    def __call__(self, **how: Any) -> sbe.Connection:
        """One more link; `close()` closes it if the test does not."""
        link = self.open(**how)
        self.links.append(link)
        return link

    def close(self) -> None:
        """Closes what was opened."""
        for link in self.links:
            link.close()


class Gate:
    """A handler that answers when the test says so: what is slow, made exactly slow."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._seen = threading.Semaphore(0)
        self.begun: list[bytes] = []
        """Payloads of the calls that reached the handler."""

    def handle(self, payload: bytes, *buffers: memoryview) -> bytes:
        """Writes the payload to the first buffer, if there is one, once the gate is open."""
        self.begun.append(payload)
        self._seen.release()
        assert self._opened.wait(LIMIT_S)
        if buffers:
            buffers[0][: len(payload)] = payload
        return payload

    def wait_seen(self) -> None:
        """Until one more call has reached the handler."""
        assert self._seen.acquire(timeout=LIMIT_S)

    def open(self) -> None:
        """Calls are answered from now on."""
        self._opened.set()

    def shut(self) -> None:
        """Calls wait from now on."""
        self._opened.clear()


class Endless:
    """A coroutine as handler, which never answers: it ends when it is cancelled."""

    def __init__(self) -> None:
        self._begun = threading.Semaphore(0)
        self._over = threading.Semaphore(0)
        self.ended = 0
        """How many calls of it have."""

    async def handle(self, payload: bytes) -> bytes:
        """Waits to be cancelled."""
        self._begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1
            self._over.release()
        return payload

    def wait_begun(self) -> None:
        """Until one more call has reached the handler."""
        assert self._begun.acquire(timeout=LIMIT_S)

    def wait_ended(self) -> None:
        """Until one more call has ended."""
        assert self._over.acquire(timeout=LIMIT_S)


def needs(*services: str, room: int = 0) -> pytest.MarkDecorator:
    """What a test calls, and the bytes of the areas that it has at once; else it is skipped."""
    return pytest.mark.needs(*services, room=room)


def lacks(marks: Iterable[pytest.Mark], connector: Connector) -> str | None:
    """Why a test with these marks can't run against this remote; None when it can."""
    for mark in marks:
        missing = [name for name in mark.args if name not in connector.services]
        if missing:
            return f"the remote has no service {' and no '.join(missing)}"
        if mark.kwargs["room"] > connector.large_bytes:
            return f"the remote has no {mark.kwargs['room']} bytes for areas"
    return None


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine as a test, whichever plugins there are."""

    @functools.wraps(test)
    def run(*given: Any, **named: Any) -> None:
        asyncio.run(test(*given, **named))

    return run


def answered(link: sbe.Connection) -> None:
    """Until everything sent before has been answered: the ring keeps its order."""
    link.call("echo", timeout=LIMIT_S)


def shown(area: Any) -> Any:
    """The area as an array, without a copy; numpy types this argument from Python 3.12 on."""
    return np.frombuffer(area, np.uint8)


def noise(size: int, seed: int = 1) -> Any:
    """Bytes that look random and are the same each time."""
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)
