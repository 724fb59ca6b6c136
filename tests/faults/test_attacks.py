"""Every class of attack has cases, and each case says of which it is."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults.attacks import BY, FOUND, ROOT, Case, cases, table
from tests.proof.bugs import CLASSES

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def found() -> list[Case]:
    return cases()


def test_every_class_is_tried_by_an_application(found: list[Case]) -> None:
    tried = {number for case in found if case.by == "application" for number in case.classes}
    assert tried == set(CLASSES), table(found)


def test_there_are_as_many_as_were_promised(found: list[Case]) -> None:
    count = Counter(case.by for case in found)
    assert count["application"] >= 60
    assert count["remote"] >= 30


def test_marks_are_legal(found: list[Case]) -> None:
    for case in found:
        assert case.by in BY
        assert case.classes
        assert set(case.classes) <= set(CLASSES), case


@pytest.mark.parametrize("words", FOUND)
def test_what_fell_has_tests(words: str) -> None:
    for test in FOUND[words]:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text()
        assert (f"def {name}(" if path.endswith(".py") else name) in text
