"""What is promised is what was recorded: nothing public comes, goes or changes unseen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sbe
from tests.stable import record, services

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", record.PARTS)
def test_the_code_is_as_recorded(name: str) -> None:
    changed = record.difference(name)
    assert not changed, (
        f"what users rely on has changed: tests/stable/{name}. If that is meant, and the page on "
        "compatibility allows it: python -m tests.stable --adopt, and a line in CHANGELOG.md"
    )


def test_a_change_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = record.PARTS["wire.txt"]()
    monkeypatch.setitem(record.PARTS, "wire.txt", lambda: others)
    assert record.difference("wire.txt") == [f"-{first}"]
    monkeypatch.setitem(record.PARTS, "wire.txt", lambda: [first, *others, "new"])
    assert record.difference("wire.txt") == ["+new"]


def test_every_public_name_is_recorded() -> None:
    text = (record.FOLDER / "python.txt").read_text()
    for name in sbe.__all__:
        assert re.search(rf"^(class )?sbe\.{name}\b", text, re.M), name


def test_every_declaration_of_a_header_is_recorded() -> None:
    """Functions, macros and structures by name, however the record splits the text."""
    text = (record.FOLDER / "services.txt").read_text()
    for name in services.HEADERS:
        header = re.sub(r"/\*.*?\*/", "", (services.CORE / name).read_text(), flags=re.S)
        for word in {*re.findall(r"\b(?:sbe|SBE)_\w+", header)} - {
            f"SBE_CORE_{name[:-2].upper()}_H"
        }:
            if not word.startswith(("SBE_VERSION_", "SBE_RELEASE")):
                assert word in text, f"{name}: {word}"
