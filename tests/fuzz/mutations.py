"""Foreign bytes made of honest ones: the same in each run, from a seed that a failure prints."""

from __future__ import annotations

import copy
import random
import string
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["cases", "mutated_bytes", "mutated_document"]

_EDGES = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**63, 2**64)
_STRANGE: tuple[Any, ...] = (
    None, True, False, "", "\0", "\ud800", "x" * 5000, "../..", "/", [], {}, [[]], 0.5, -0.0,
    1e308, float("inf"), float("nan"), 10**400, "1", {"": None}, [None] * 100,
)  # fmt: skip


def cases(seed: int, count: int) -> Iterator[random.Random]:
    """One die for each case, seeded by its number: a failing one can be run alone."""
    for number in range(count):
        yield random.Random(f"{seed}/{number}")


def _edge(dice: random.Random, size: int) -> bytes:
    value = dice.choice(_EDGES) + dice.randrange(-2, 3)
    return (value % (1 << 8 * size)).to_bytes(size, "little")


def mutated_bytes(dice: random.Random, honest: bytes, words: Sequence[bytes] = ()) -> bytes:
    """A few changes: bits, bytes, numbers at their edges, parts doubled, moved, cut; `words`."""
    data = bytearray(honest)
    for _ in range(dice.randrange(1, 6)):
        at = dice.randrange(len(data) + 1)
        size = min(dice.choice((1, 1, 2, 4, 8, 40)), len(data) - at)
        match dice.randrange(8):
            case 0:
                data[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                data[at : at + size] = _edge(dice, size) if size else b""
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = data[at : at + size] * dice.choice((1, 2, 50))
            case 4:
                place = dice.randrange(len(data) + 1)
                data[place:place] = data[at : at + size]
            case 5 if dice.randrange(3) == 0:
                del data[at:]
            case 6 if words:
                data[at : at + dice.choice((0, size))] = dice.choice(words)
            case _ if at < len(data):
                data[at] ^= 1 << dice.randrange(8)
    return bytes(data)


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every container and key within a document of JSON's or TOML's kinds."""
    found: list[tuple[Any, Any]] = []
    left = [document]
    while left:
        node = left.pop()
        found += [(node, key) for key in _keys(node)]
        left += [node[key] for key in _keys(node) if isinstance(node[key], dict | list)]
    return found


def mutated_document(dice: random.Random, honest: Any) -> Any:
    """Values of other kinds and sizes, keys gone, renamed or new. `honest` is left as it was."""
    document = copy.deepcopy(honest)
    for _ in range(dice.randrange(1, 4)):
        places = _places(document)
        if not places:
            break
        node, key = dice.choice(places)
        match dice.randrange(6):
            case 0:
                del node[key]
            case 1 if isinstance(node, dict):
                node["".join(dice.choices(string.printable, k=dice.randrange(6)))] = node.pop(key)
            case 2:
                node[key] = dice.choice(_EDGES) + dice.randrange(-2, 3)
            case 3:
                other, at = dice.choice(places)
                value = other[at] if at in _keys(other) else None
                if not isinstance(value, dict | list):
                    node[key] = value
            case _:
                node[key] = copy.deepcopy(dice.choice(_STRANGE))
    return document


def _keys(node: Any) -> Any:
    return node.keys() if isinstance(node, dict) else range(len(node))
