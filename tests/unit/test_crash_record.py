"""The crash record of a carve-out link, as this end reads it from shared RAM."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbe import _native
from sbe.transports.window import Window, describe_crash

# docs/spec/carveout.md
REMOTE, CRASH = 0x80, 0x400
MAGIC = b"COUT"
RECORD = struct.Struct("<II8II6I8IIIQ32s128s")
REGISTERS = ("r0", "r1", "r2", "r3", "r12", "lr", "pc", "xpsr")
STATUS = ("hfsr", "mmfar", "bfar", "sfsr", "sfar")
GENERATION = 7


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Window]:
    """Of a remote whose present life has ended in a record."""
    path = tmp_path / "ram"
    path.write_bytes(bytes(_native.CARVEOUT_WINDOW_MIN))
    window = Window(path)
    block = struct.pack("<6I", 0x54554F43, 1, GENERATION, ~GENERATION & 0xFFFFFFFF, 0, 1)
    window.memory[REMOTE : REMOTE + len(block)] = block
    yield window
    window.close()


def fnv1a(data: bytes) -> int:
    total = 0x811C9DC5
    for byte in data:
        total = (total ^ byte) * 0x01000193 & 0xFFFFFFFF
    return total


def put(window: Window, rest: bytes, generation: int = GENERATION) -> None:
    """A record with these bytes behind its generation."""
    rest = struct.pack("<I", generation) + rest
    record = MAGIC + struct.pack("<I", fnv1a(rest)) + rest
    window.memory[CRASH : CRASH + len(record)] = record


def record(kind: int, *, cfsr: int = 0, backtrace: tuple[int, ...] = ()) -> bytes:
    registers = range(0x10, 0x18)
    status = (cfsr, 0x21, 0x22, 0x23, 0x24, 0x25)
    trace = (*backtrace, *[0] * (8 - len(backtrace)))
    return RECORD.pack(
        kind, 4, *registers, 0x20, *status, *trace, 5, 0, 1 << 40, b"fir", b"MemManage"
    )


def test_every_field_is_read(window: Window) -> None:
    put(window, record(3, cfsr=0x82, backtrace=(0x100, 0x200)))
    assert _native.read_crash(window.memory) == {
        "kind": "access",
        "exception": 4,
        "text": "MemManage",
        "service": "fir",
        "transaction": 1 << 40,
        "context": 5,
        "backtrace": (0x100, 0x200),
        **{name: 0x10 + i for i, name in enumerate(REGISTERS)},
        "sp": 0x20,
        "cfsr": 0x82,
        **{name: 0x21 + i for i, name in enumerate(STATUS)},
    }


@pytest.mark.parametrize(
    ("kind", "cfsr", "words"),
    [
        (1, 0, "MemManage at pc 0x00000016, lr 0x00000015, in service 'fir', transaction 109951"),
        (2, 0, "MemManage (near 0x00000016), in service 'fir', transaction 1099511627776"),
        (3, 0x82, "illegal access at 0x00000022 (MemManage) at pc 0x00000016"),
        (3, 0x8200, "illegal access at 0x00000023 (MemManage) at pc 0x00000016"),
        (3, 0x400, "illegal access (MemManage) at pc 0x00000016"),
        (4, 0, "execution of what is no code (MemManage)"),
        (5, 0, "stack overflow (MemManage)"),
        (6, 0, "unaligned access (MemManage)"),
        (7, 0, "division by zero (MemManage)"),
        (8, 0, "undefined instruction (MemManage)"),
        (9, 0, "MemManage at pc 0x00000016"),
        (10, 0, "MemManage at pc 0x00000016"),
        (0xFFFFFFFF, 0, "MemManage at pc 0x00000016"),
    ],
)
def test_one_line_for_people(window: Window, kind: int, cfsr: int, words: str) -> None:
    put(window, record(kind, cfsr=cfsr, backtrace=tuple(range(1, 9))))
    crash = _native.read_crash(window.memory)
    assert crash is not None
    said = describe_crash(crash)
    assert said.startswith(words)
    assert "called from 0x00000001 0x00000002 " in said
    assert "0x00000008" in said


def test_of_another_life_or_damaged_is_none(window: Window) -> None:
    put(window, record(3))
    assert _native.read_crash(window.memory) is not None
    put(window, record(3), GENERATION + 1)
    assert _native.read_crash(window.memory) is None
    put(window, record(3))
    window.memory[CRASH + 100 : CRASH + 101] = b"x"
    assert _native.read_crash(window.memory) is None


def test_any_bytes_are_a_record_or_none(window: Window) -> None:
    rng = random.Random(23)
    for _ in range(200):
        put(window, rng.randbytes(RECORD.size))
        crash = _native.read_crash(window.memory)
        assert crash is not None
        assert crash["kind"] == "fault"  # none that is known
        assert len(crash["backtrace"]) <= 8
        describe_crash(crash).encode()
