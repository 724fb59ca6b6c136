# SPDX-License-Identifier: Apache-2.0
"""The bugs of bugs.py can be put into the code as it is; `make prove-tests` does so."""

from __future__ import annotations

import pytest

from tests.proof.bugs import BUGS, CLASSES, Bug
from tests.proof.tree import ROOT

EACH = pytest.mark.parametrize("bug", BUGS, ids=[f"{bug.number}: {bug.breaks}" for bug in BUGS])


@EACH
def test_the_edit_applies(bug: Bug) -> None:
    found = (ROOT / bug.file).read_text().count(bug.old)
    assert found == 1, f"{bug.file} has {found} times, not once: {bug.old!r}. Put the bug elsewhere"
    assert bug.new != bug.old
    assert bug.says


@EACH
def test_the_test_exists(bug: Bug) -> None:
    path, _, name = bug.red.partition("::")
    if name:
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text()
    else:
        assert (ROOT / "tests/core" / f"{path}.c").is_file()


def test_every_class_has_a_bug() -> None:
    assert {bug.number for bug in BUGS} == set(CLASSES)
    assert list(CLASSES) == list(range(1, 30))
