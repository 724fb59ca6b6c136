"""Exchanges over caches, in lines of any size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sbe
from tests.caches import build
from tests.caches.exchanges import EXCHANGES
from tests.caches.remote import cached_remotes


@pytest.fixture(params=[16, 64, 256])
def link(request: pytest.FixtureRequest) -> Iterator[sbe.Connection]:
    with (
        cached_remotes(build.programs(), request.param) as make,
        sbe.connect(make()) as connection,
    ):
        yield connection


@pytest.mark.parametrize("name", EXCHANGES)
def test_an_exchange(name: str, link: sbe.Connection):
    EXCHANGES[name](link)
