"""Fixtures of the conformance suite: every test that takes `link` runs once per transport."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import sbe
from tests.conformance.ends import ENDS, Connector


@pytest.fixture(scope="session")
def _daemons() -> Iterator[tuple[contextlib.ExitStack, dict[str, Connector]]]:
    """What is dear to start: once a session, when first asked for."""
    with contextlib.ExitStack() as stack:
        yield stack, {}


@pytest.fixture(params=ENDS)
def connect(
    request: pytest.FixtureRequest,
    _daemons: tuple[contextlib.ExitStack, dict[str, Connector]],
) -> Iterator[Connector]:
    """Opens links to one kind of remote; they are closed after the test."""
    stack, shared = _daemons
    if request.param != "unix":
        with ENDS[request.param]() as connector:
            yield connector
            connector.close()
        return
    if "unix" not in shared:
        shared["unix"] = stack.enter_context(ENDS["unix"]())
    yield shared["unix"]
    shared["unix"].close()
    shared["unix"].links.clear()


@pytest.fixture
def link(connect: Connector) -> sbe.Connection:
    """One link of the kind."""
    return connect()
