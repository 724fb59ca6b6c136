"""docs/performance.md is what the committed figures make: it can't go stale by hand."""

from __future__ import annotations

import json

import pytest

from tests.bench import instructions, report_md
from tests.bench.rows import CURVES, ROWS


def reference() -> report_md.Reference:
    found: report_md.Reference = json.loads(report_md.REFERENCE.read_text())
    return found


def test_the_page_is_what_the_reference_makes() -> None:
    assert report_md.DOCUMENT.read_text() == report_md.made(), (
        "docs/performance.md differs from its figures: python -m tests.bench.report_md"
    )


def test_the_reference_has_every_row_and_curve() -> None:
    found = reference()
    assert found.keys() == {"meta", "curves"} | {row.key for row in ROWS}
    assert found["curves"].keys() == {curve.key for curve in CURVES}


@pytest.mark.parametrize("change", [{"quick": True}, {}])
def test_only_a_whole_run_is_adopted(change: dict[str, bool]) -> None:
    found = reference()
    found["meta"] |= change
    if not change:
        del found["call_block"]
    with pytest.raises(SystemExit, match="whole run"):
        report_md.adopted(found)


def test_figures_that_were_not_measured_leave_the_page_whole() -> None:
    found = reference()
    for key in ("part_trip", "call_block", "part_host_syscalls"):
        found[key] |= {"value": None, "p99": None, "tail": {}, "goal_met": None, "ratio": None}
    page = report_md.document(found, json.loads(instructions.RECORD.read_text()))
    assert "Not all parts were measured" in page
    goals = [row.key for row in ROWS if row.group == "sbe" and row.goal is not None]
    unmeasured = sum(found[key]["goal_met"] is None for key in goals)
    assert f"{len(goals)} goals" in page
    assert f"{unmeasured} not measured" in page
