# SPDX-License-Identifier: Apache-2.0
"""A proof of what the C code calculates: expressions, taken by their text, and what they must do.

What must hold is said in numbers that never wrap: an index counts on from any word in a number of
36 bits, of which the code sees the last 32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import z3

from tests.model.expressions import fewer

__all__ = [
    "COUNT",
    "PROOFS",
    "SLOTS",
    "WIDE",
    "Claims",
    "Cut",
    "ahead",
    "count",
    "low",
    "proof",
    "rising",
    "some",
    "wide",
    "word",
]

COUNT = 36
BASE = z3.BitVec("base", 32)
WIDE = 67  # bits in which nothing here can wrap
SLOTS = [1 << bits for bits in range(1, 17)]


@dataclass(frozen=True)
class Cut:
    """An expression in a file, between braces in the text around it if that is not unique."""

    file: str
    around: str

    @property
    def text(self) -> str:
        found = re.search(r"\{(.*)\}", self.around, re.DOTALL)
        return found[1] if found else self.around

    @property
    def line(self) -> str:
        return self.around.replace("{", "").replace("}", "")


Claims = Iterator[tuple[Sequence[Any], Any]]  # what holds before, what must follow


@dataclass(frozen=True)
class Proof:
    """Expressions and what they must do; wrong forms, as (text, text instead)."""

    cuts: Sequence[Cut]
    claims: Callable[..., Claims]
    wrong: Sequence[tuple[str, str]]

    def refuted(self, *texts: str) -> str | None:
        """A case in which the texts don't do what they must, or None."""
        for given, claim in self.claims(*texts):
            solver = z3.SolverFor("QF_BV")
            solver.add(*given, z3.Not(claim))
            said = solver.check()
            assert said != z3.unknown, solver.reason_unknown()
            if said == z3.sat:
                return f"{given}, not {claim}: {solver.model()}"
        return None


PROOFS: dict[str, Proof] = {}


def proof(*cuts: tuple[str, str], wrong: Sequence[tuple[str, str]]) -> Callable[[Any], Any]:
    def keep(claims: Callable[..., Claims]) -> Callable[..., Claims]:
        PROOFS[claims.__name__] = Proof([Cut(*cut) for cut in cuts], claims, wrong)
        return claims

    return keep


def word(name: str, bits: int = 32) -> Any:
    return z3.BitVec(name, bits)


def count(name: str) -> Any:
    """An index that never wraps."""
    return z3.BitVec(name, COUNT)


def low(value: Any) -> Any:
    """What the code sees of it."""
    return BASE + z3.Extract(31, 0, value)


def rising(*values: Any) -> list[Any]:
    """Counts, each at least the one before; what the first looks like is any word, BASE."""
    return [values[0] == 0, *(z3.ULE(a, b) for a, b in pairwise(values))]


def ahead(value: Any, base: Any) -> Any:
    """Among all counts that look like a foreign word, the one that is not behind the base."""
    return z3.And(z3.UGE(value, base), z3.ULT(value, base + (1 << 32)))


def some(slots: Any) -> list[Any]:
    """As many as a ring may have, whether or not a power of two."""
    return [z3.UGE(slots, 2), z3.ULE(slots, 65536)]


def wide(value: Any) -> Any:
    return fewer(value, WIDE)
