"""What tests/tools/stack.py makes of gcc's call graphs and of instructions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.stack import INDIRECT, CallGraph, _pushed


def graph(tmp_path: Path, frames: dict[str, str], calls: list[tuple[str, str]]) -> CallGraph:
    """A graph as gcc writes it."""
    nodes = [
        f'node: {{ title: "{name}" label: "{name}\\nf.c:1:1\\n{frame}" }}'
        for name, frame in frames.items()
    ]
    edges = [f'edge: {{ sourcename: "{a}" targetname: "{b}" label: "f.c:1:1" }}' for a, b in calls]
    path = tmp_path / "f.ci"
    path.write_text("\n".join([*nodes, *edges]))
    made = CallGraph()
    made.read(path)
    return made


FRAMES = {
    "main": "8 bytes (static)",
    "serve": "16 bytes (static)",
    "handler": "100 bytes (static)",
    "answer": "24 bytes (static)",
    "send": "4 bytes (static)",
}
CALLS = [
    ("main", "serve"),
    ("serve", INDIRECT),
    ("handler", "answer"),
    ("answer", INDIRECT),
    ("serve", "memcpy"),
]


def test_calls_by_pointer_go_down_the_floors(tmp_path: Path) -> None:
    made = graph(tmp_path, FRAMES, CALLS)
    assert made.deepest("main") == (24, ["main", "serve"])  # a call by pointer: nothing
    made = graph(tmp_path, FRAMES, CALLS)
    made.by_pointer = {"handler": 1, "send": 5}
    # The handler's own call by pointer leads to `send`, not to a handler again.
    assert made.deepest("main") == (152, ["main", "serve", "handler", "answer", "send"])
    assert made.deepest("answer", 5) == (24, ["answer"])
    assert not made.recursion
    assert made.external == ["memcpy"]


def test_what_has_no_bound_is_told(tmp_path: Path) -> None:
    made = graph(
        tmp_path,
        {"a": "8 bytes (static)", "b": "8 bytes (dynamic)", "c": "8 bytes (dynamic,bounded)"},
        [("a", "b"), ("b", "a")],
    )
    made.deepest("a")
    assert made.recursion == {"a -> b -> a"}
    assert made.unbounded == {"b"}


@pytest.mark.parametrize(
    ("instruction", "taken"),
    [
        ("push\t{r3, r4, r5, lr}", 16),
        ("push\t{r4-r7, lr}", 20),
        ("stmdb\tsp!, {r3, r4, r5, r6, r7, r8, r9, sl, fp, lr}", 40),
        ("sub\tsp, #16", 16),
        ("sub.w\tsp, sp, #1024", 1024),
        ("subw\tsp, sp, #1028", 1028),
        ("str.w\tlr, [sp, #-4]!", 4),
        ("strd\tr4, r5, [sp, #-16]!", 16),
        ("str\tr3, [sp, #4]", 0),
        ("pop\t{r3, r4, r5, pc}", 0),
        ("subs\tr2, #4", 0),
    ],
)
def test_bytes_that_an_instruction_takes(instruction: str, taken: int) -> None:
    assert _pushed(instruction) == taken
