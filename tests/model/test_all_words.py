# SPDX-License-Identifier: Apache-2.0
"""The forms of the ring with words of 16 bits: all values are run through, as C."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.model.expressions import words16
from tests.model.proofs import Cut
from tests.model.test_index_arithmetic import ACCEPT, PASSES, WAKE
from tests.rigs.missing import require

# The same texts as C. Legal values are those that counting gives, without a difference in sight.
PROGRAM = """\
#include <stdbool.h>
#include <stdint.h>
#define ALL  65536u
#define MORE(n) ((n) < 2 || (n) + 2 > SLOTS ? 1 : SLOTS - 1 - (n)) /* 0 to 2, SLOTS - 1 and SLOTS */
static uint16_t legal[ALL];

static void mark(uint32_t first, uint32_t number, uint16_t as)
{
    for (uint32_t k = 0; k < number; k++)
        legal[(uint16_t)(first + k)] = as;
}

static bool passes(void)
{
    for (uint32_t n = 0; n <= SLOTS; n += MORE(n))
        for (uint32_t old = 0; old < ALL; old++) {
            uint16_t old_index = (uint16_t)old, new_index = (uint16_t)(old + n), wrong = 0;
            mark(old, n, 1);
            for (uint32_t w = 0; w < ALL; w++) {
                uint16_t wake = (uint16_t)w;
                wrong |= (uint16_t)((PASSES) ^ legal[w]);
            }
            mark(old, n, 0);
            if (wrong != 0)
                return false;
        }
    return true;
}

/* Legal: from the peer's last index as far as `ahead` past ours. */
static bool accepts(bool consumer)
{
    uint16_t ahead = (uint16_t)(consumer ? SLOTS : 0);
    for (uint32_t n = 0; n <= SLOTS; n += MORE(n))
        for (uint32_t at = 0; at < ALL; at++) {
            uint16_t theirs = (uint16_t)at, wrong = 0;
            uint16_t published = (uint16_t)(consumer ? at - n : at + n);
            uint32_t number = (consumer ? SLOTS - n : n) + 1;
            mark(at, number, 1);
            for (uint32_t v = 0; v < ALL; v++) {
                uint16_t value = (uint16_t)v;
                wrong |= (uint16_t)((REFUSES) ^ legal[v] ^ 1);
            }
            mark(at, number, 0);
            if (wrong != 0)
                return false;
        }
    return true;
}

/* A full ring, of which one slot after the other comes back: rung once, by that which is enough. */
static bool space(void)
{
    uint16_t mask = (uint16_t)(SLOTS - 1);
    for (uint32_t n = 1; n <= SLOTS; n += MORE(n))
        for (uint32_t at = 0; at < ALL; at++) {
            uint16_t mine = (uint16_t)at, wanted = (uint16_t)n, wake = WAKE;
            for (uint32_t back = 0; back < SLOTS; back++) {
                uint16_t old_index = (uint16_t)(at - SLOTS + back);
                uint16_t new_index = (uint16_t)(old_index + 1);
                if ((PASSES) != (back + 1 == n))
                    return false;
            }
        }
    return true;
}

int main(void)
{
    return space() && passes() && accepts(false) && accepts(true) ? 0 : 1;
}
"""
WORDS = ("wake", "old_index", "new_index", "value", "theirs", "published", "ahead", "mine")
MACROS = {"PASSES": Cut(*PASSES).text, "REFUSES": Cut(*ACCEPT).text, "WAKE": Cut(*WAKE).text}


def all_right(folder: Path, slots: int, macros: dict[str, str]) -> bool:
    """Whether the forms have all values right, in a ring of so many slots."""
    require(shutil.which("gcc") is not None, "no gcc (sudo apt install gcc)")
    names = {name: name for name in (*WORDS, "wanted", "mask")}
    given = [f"-D{name}={words16(text, names)}" for name, text in macros.items()]
    (folder / "all.c").write_text(PROGRAM)
    build = ["gcc", "-O3", "-march=native", f"-DSLOTS={slots}u", *given, "-o", "all", "all.c"]
    subprocess.run(build, cwd=folder, check=True, timeout=60)
    return subprocess.run(["./all"], cwd=folder, timeout=110).returncode == 0


@pytest.mark.parametrize("slots", [2, 4, 4096])
def test_all_values_of_16_bits(slots: int, tmp_path: Path) -> None:
    assert all_right(tmp_path, slots, MACROS)


@pytest.mark.parametrize(
    ("macro", "old", "new"),
    [
        ("PASSES", "<", "<="),
        ("REFUSES", " > ", " >= "),
        ("REFUSES", "value - ring->theirs", "value"),
        ("WAKE", "wanted", "wanted - 1"),
        ("WAKE", "- 2", "- 1"),
    ],
)
def test_wrong_form_shows_in_16_bits(macro: str, old: str, new: str, tmp_path: Path) -> None:
    wrong = MACROS | {macro: MACROS[macro].replace(old, new, 1)}
    assert wrong != MACROS
    assert not all_right(tmp_path, 2, wrong)
