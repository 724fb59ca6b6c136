"""The tables of docs/spec/death.md: no cell is empty, and each row names tests that are there."""

from __future__ import annotations

import re

from tests.caches.build import ROOT
from tests.unit.test_spec import tables

PAGE = ROOT / "docs/spec/death.md"
COLUMNS = [
    "event",
    "what is safe",
    "what is partial",
    "when memory may be reused",
    "what the caller sees",
    "shown by",
]
NAMED = re.compile(r"`?(tests/[\w/]+\.(?:py|c))(?:::(test_\w+))?`?")


def rows() -> list[list[str]]:
    found = []
    for heading, (columns, *each) in tables(PAGE.read_text()):
        assert columns == COLUMNS, heading
        found += each
    return found


def test_no_cell_is_undefined() -> None:
    found = rows()
    assert len(found) >= 25
    for row in found:
        assert len(row) == len(COLUMNS), row
        for cell in row:
            assert len(cell) > 3, row
            assert not re.search(r"undefined|unspecified|TODO|\?", cell), row


def test_each_row_names_tests_that_are_there() -> None:
    for row in rows():
        named = NAMED.findall(row[-1])
        assert named, row
        assert NAMED.sub("", row[-1]).strip(" ,") == "", row
        for file, function in named:
            text = (ROOT / file).read_text()
            assert not function or re.search(rf"^(async )?def {function}\(", text, re.M), row
