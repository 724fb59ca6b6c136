"""Fixtures of the conformance suite: every test that takes `link` runs once per transport.

The tests of sbe.testing.conformance, and beside them in the file of the same name those that need
more than a link: a rig, a remote that waits for the test, what is private.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import sbe
from sbe.testing.conformance.parts import lacks
from tests.conformance.ends import DAEMONS, DATA_ONLY, ENDS, KERNEL, Connector


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Ends that differ from another one in the memory of buffers run what is about buffers."""
    left = [item for item in items if _is_left_out(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        gone = set(left)
        items[:] = [item for item in items if item not in gone]


def _is_left_out(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    end = callspec.params.get("connect") if callspec is not None else None
    return end in DATA_ONLY and item.path.stem not in DATA_ONLY[end]


class Shared:
    """Ends that are dear to start, while they are asked for; `at_once` of them at a time."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._started: dict[str, tuple[contextlib.ExitStack, Connector]] = {}

    def get(self, name: str) -> Connector:
        if name not in self._started:
            while len(self._started) >= self._at_once:
                self._end(next(iter(self._started)))
            stack = contextlib.ExitStack()
            self._started[name] = stack, stack.enter_context(ENDS[name]())
        return self._started[name][1]

    def _end(self, name: str) -> None:
        self._started.pop(name)[0].close()

    def close(self) -> None:
        for name in list(self._started):
            self._end(name)


@pytest.fixture(scope="session")
def _daemons() -> Iterator[Shared]:
    with contextlib.closing(Shared(at_once=len(DAEMONS))) as shared:
        yield shared


@pytest.fixture(scope="module")
def _processors() -> Iterator[Shared]:
    """There is one remote processor, which other modules' tests want as well."""
    with contextlib.closing(Shared(at_once=1)) as shared:
        yield shared


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.kernel) if name in KERNEL else name for name in ENDS
    ]
)
def connect(
    request: pytest.FixtureRequest, _daemons: Shared, _processors: Shared
) -> Iterator[Connector]:
    """Opens links to one kind of remote; they are closed after the test."""
    for connector in opened(request.param, _processors if request.param in KERNEL else _daemons):
        if reason := lacks(request.node.iter_markers("needs"), connector):
            pytest.skip(reason)
        yield connector


def opened(name: str, shared: Shared) -> Iterator[Connector]:
    """One kind of remote for one test."""
    if name in DAEMONS or name in KERNEL:
        connector = shared.get(name)
        yield connector
        connector.close()
        connector.links.clear()
        return
    with ENDS[name]() as connector:
        yield connector
        connector.close()


@pytest.fixture
def link(connect: Connector) -> sbe.Connection:
    """One link of the kind."""
    return connect()
