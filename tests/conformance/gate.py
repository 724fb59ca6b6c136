"""A remote whose service `gate` answers when the test says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import sbe.testing
from sbe.link.rings import DEFAULT_GEOMETRY, Geometry
from sbe.testing.conformance.parts import Gate
from sbe.testing.conformance.services import PYTHON_SERVICES


class RemoteGate(Gate):
    """A gate that is the service `gate` of a remote."""

    def __init__(self) -> None:
        super().__init__()
        self.remote = sbe.testing.Remote({**PYTHON_SERVICES, "gate": self.handle})


@contextlib.contextmanager
def gated(geometry: Geometry = DEFAULT_GEOMETRY, **how: Any) -> Iterator[tuple[RemoteGate, Any]]:
    """A gate and a link to it."""
    gate = RemoteGate()
    with gate.remote, gate.remote.link(geometry=geometry, **how) as link:
        for name in gate.remote.services:
            link.find(name)  # control operations would wait for the handler
        try:
            yield gate, link
        finally:
            gate.open()
