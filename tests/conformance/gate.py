"""A remote whose service `gate` answers when the test says so: what is slow, made exactly slow."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import sbe
import sbe.testing
from sbe.link.rings import DEFAULT_GEOMETRY, Geometry
from sbe.testing.conformance.parts import LIMIT_S
from sbe.testing.conformance.services import PYTHON_SERVICES


class Gate:
    """`gate` writes its payload to the first buffer once the gate is open; `seen` tells it came."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.seen = threading.Semaphore(0)
        self.remote = sbe.testing.Remote({**PYTHON_SERVICES, "gate": self._handle})

    def _handle(self, payload: bytes, *buffers: memoryview) -> bytes:
        self.seen.release()
        assert self.opened.wait(LIMIT_S)
        if buffers:
            buffers[0][: len(payload)] = payload
        return payload

    def wait_seen(self) -> None:
        """Until one more call has reached the handler."""
        assert self.seen.acquire(timeout=LIMIT_S)

    def open(self) -> None:
        self.opened.set()

    def shut(self) -> None:
        self.opened.clear()


@contextlib.contextmanager
def gated(geometry: Geometry = DEFAULT_GEOMETRY, **how: Any) -> Iterator[tuple[Gate, Any]]:
    """A gate and a link to it."""
    gate = Gate()
    with gate.remote, gate.remote.link(geometry=geometry, **how) as link:
        for name in gate.remote.services:
            link.find(name)  # control operations would wait for the handler
        try:
            yield gate, link
        finally:
            gate.open()
