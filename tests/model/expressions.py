# SPDX-License-Identifier: Apache-2.0
"""An expression of the C code, taken by its text: as a z3 term, or as C over words of 16 bits.

All words are unsigned. The names in it stand for what the caller says, by the last part of their
path unless the whole path is given (`buffer.size` beside `area.size`).
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import z3

__all__ = ["fewer", "term", "words16"]

Names = Mapping[str, Any]

_CASTS = {"uint16_t": 16, "uint32_t": 32, "uint64_t": 64, "int64_t": 64}

# C's spelling, and Python's for the same. What of C's precedence differs is refused by _parse().
_SPELLING = (
    (r"\bsizeof\s*\(struct (\w+)\)", r"sizeof_\1"),
    (r"->", "."),
    (r"\bin\b", "in_"),  # a word of Python's
    (r"\b(0x[0-9a-f]+|\d+)u\b", r"\1"),
    (r"\((\w+_t)\)\(", r"\1("),
    (r"\((\w+_t)\)([\w.]+)", r"\1(\2)"),
    (r"\(([^?()]+)\?([^:()]+):([^()]+)\)", r"((\2) if (\1) else (\3))"),
    (r"&&", " and "),
    (r"\|\|", " or "),
    (r"!(?!=)", " not "),
)


def _parse(text: str) -> ast.expr:
    _check_bits(text)
    python = " ".join(text.split())
    for theirs, ours in _SPELLING:
        python = re.sub(theirs, ours, python)
    tree = ast.parse(python.strip(), mode="eval").body
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and len(node.ops) != 1:
            raise ValueError(f"{text}: C compares two at a time")
    return tree


def _check_bits(text: str) -> None:
    """In C a comparison binds closer than bits do, in Python it does not."""
    inner = re.compile(r"\(([^()]*)\)")
    plain = re.sub(r"&&|\|\|", ",", text.replace("->", "."))
    while True:
        part = inner.search(plain)
        for piece in (part[1] if part else plain).split(","):
            if re.search(r"[&|]", piece) and re.search(r"[<>=]", piece.replace(">>", "")):
                raise ValueError(f"{text}: put the bits in parentheses")
        if not part:
            return
        plain = plain[: part.start()] + "x" + plain[part.end() :]


def _named(node: ast.expr, names: Names) -> Any:
    path = ast.unparse(node)
    return names[path] if path in names else names[path.rpartition(".")[2]]


# -- z3 --------------------------------------------------------------------------------------

_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: z3.UDiv,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.RShift: z3.LShR,
}
_COMPARISON: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: z3.ULT,
    ast.LtE: z3.ULE,
    ast.Gt: z3.UGT,
    ast.GtE: z3.UGE,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def fewer(value: Any, bits: int) -> Any:
    """The value as a word of so many bits: cut, or with zeros in front."""
    if isinstance(value, int):
        return z3.BitVecVal(value, bits)
    has = value.size()
    if has >= bits:
        return z3.Extract(bits - 1, 0, value)
    return z3.ZeroExt(bits - has, value)


def _alike(one: Any, other: Any) -> tuple[Any, Any]:
    """As C does before it calculates: the wider of both, and never below 32 bits."""
    bits = max(32, *(0 if isinstance(value, int) else value.size() for value in (one, other)))
    return fewer(one, bits), fewer(other, bits)


def term(text: str, names: Names, size_t: int = 64) -> Any:
    """The text as a z3 term. `names`: words as BitVec, numbers, functions. `size_t` in bits."""
    casts = _CASTS | {"size_t": size_t}

    def of(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() as value):
                return value
            case ast.Name() | ast.Attribute():
                return _named(node, names)
            case ast.Call(func=ast.Name(id=name), args=[value]) if name in casts:
                return fewer(of(value), casts[name])
            case ast.Call(func=ast.Name(id=name)):
                return names[name]
            case ast.UnaryOp(op=ast.Invert(), operand=value):
                return ~of(value)
            case ast.UnaryOp(op=ast.Not(), operand=value):
                return z3.Not(of(value))
            case ast.BinOp(left=left, op=op, right=right):
                return _ARITHMETIC[type(op)](*_alike(of(left), of(right)))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return _COMPARISON[type(op)](*_alike(of(left), of(right)))
            case ast.BoolOp(op=ast.And(), values=values):
                return z3.And(*map(of, values))
            case ast.BoolOp(values=values):
                return z3.Or(*map(of, values))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return z3.If(of(test), *_alike(of(body), of(orelse)))
        raise ValueError(f"{text}: {ast.dump(node)}")

    return of(_parse(text))


# -- C over 16 bits --------------------------------------------------------------------------

_SIGNS: dict[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.BitAnd: "&",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}


def words16(text: str, names: Mapping[str, str]) -> str:
    """The text as C in which each step is cut to 16 bits, as the code's are to 32."""

    def of(node: ast.expr) -> str:
        match node:
            case ast.Constant(value=int() as value):
                return str(value)
            case ast.Name() | ast.Attribute():
                return str(_named(node, names))
            case ast.Call(func=ast.Name(id=name)):
                return names[name]
            case ast.BinOp(left=left, op=op, right=right):
                return f"(uint16_t)({of(left)} {_SIGNS[type(op)]} {of(right)})"
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return f"({of(left)} {_SIGNS[type(op)]} {of(right)})"
        raise ValueError(f"{text}: {ast.dump(node)}")

    return of(_parse(text))
