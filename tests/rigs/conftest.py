"""Boards for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sbe
from tests.rigs.boards import BOARDS, FaultyBoard, connect, faulty_image, require_board


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> Iterator[FaultyBoard]:
    """A board with firmware that can be broken, not started."""
    require_board(request.param)
    with FaultyBoard(request.param, faulty_image(request.param)) as board:
        yield board


@pytest.fixture
def link(board: FaultyBoard) -> Iterator[sbe.Connection]:
    """A connection to the board."""
    with connect(board) as link:
        yield link
