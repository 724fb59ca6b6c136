"""Which instructions order shared memory, read from what the compilers make of the C files.

docs/adr/0018-order-on-arm.md says why it is these: a peer may be outside of the domain that C11's
orders reach on Arm. No emulator can show that, so the instructions themselves are held to it.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.rigs.missing import require

ROOT = Path(__file__).resolve().parents[2]
FIRMWARE = ROOT / "firmware"
BARE_METAL = ("arm-none-eabi-gcc", "gcc-arm-none-eabi libnewlib-arm-none-eabi")

# What talks to the other end and compiles without an operating system.
SOURCES = ["core", "carveout", "mirror", "ports/carveout", "ports/rpmsg", "ports/virtio"]

PRIMITIVES = """\
#include "core/atomic.h"
uint32_t look(const sbe_shared_u32 *word) { return sbe_load_acquire(word); }
uint32_t glance(const sbe_shared_u32 *word) { return sbe_load_relaxed(word); }
void publish(sbe_shared_u32 *word, uint32_t value) { sbe_store_release(word, value); }
void note(sbe_shared_u32 *word, uint32_t value) { sbe_store_relaxed(word, value); }
void full(void) { sbe_full_barrier(); }
"""


@dataclass(frozen=True)
class Target:
    """A compiler, and the barriers that are right for what it compiles for."""

    compiler: str
    packages: str
    flags: tuple[str, ...]
    acquire: tuple[str, ...]
    release: tuple[str, ...]
    full: tuple[str, ...]


ARM = {
    # v7-A has no barrier of loads alone.
    "cortex-a7": Target(*BARE_METAL, ("-mcpu=cortex-a7",), ("dmb sy",), ("dmb sy",), ("dmb sy",)),
    # No option but SY in an M profile: C11 compiles to DMB ISH, a reserved one, or to LDA and STL.
    "cortex-m3": Target(
        *BARE_METAL, ("-mcpu=cortex-m3", "-mthumb"), ("dmb sy",), ("dmb sy",), ("dmb sy",)
    ),
    "cortex-m33": Target(
        *BARE_METAL, ("-mcpu=cortex-m33", "-mthumb"), ("dmb sy",), ("dmb sy",), ("dmb sy",)
    ),
    "aarch64": Target(
        "aarch64-linux-gnu-gcc",
        "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
        (),
        ("dmb ld",),
        ("dmb sy",),
        ("dmb sy",),
    ),
}
# Stores are seen in order, and loads done in order: only the full barrier is an instruction.
TARGETS = ARM | {"x86-64": Target("gcc", "gcc", ("-fcf-protection=none",), (), (), ("full",))}

FLAGS = ["-std=c11", "-ffreestanding", "-O2", "-S", "-o", "-", "-fno-asynchronous-unwind-tables"]
# Only what says `inline` is: functions can be looked at one by one.
FLAGS += ["-fno-inline-functions-called-once", "-fno-inline-small-functions"]
FLAGS += ["-DBOARD_AN385"]  # for the files of ports/mps2

# What an instruction is to the memory: the first that fits. The stack is nobody else's.
EVENTS = [
    (r".*\[sp\b.*", ""),
    (r"(dmb|dsb)\s+(\w+)", r"\1 \2"),
    (r"(dmb|dsb)$", r"\1 sy"),
    (r"(?:lock \w+|mfence|xchg\w*)\b.*", "full"),
    (r"(lda|ldar|ldapr|ldlar|stl|stlr|stllr)[bh]?\s.*", r"\1"),
    (r"(ldrex|ldaex|ldxr|ldaxr|strex|stlex|stxr|stlxr)\w*\s.*", r"\1"),
    (r"(?:ldrs?[bh]?|ldrd|ldur|ldp)(?:\.w)?\s.*", "load"),
    (r"(?:str[bh]?|strd|stur|stp)(?:\.w)?\s.*", "store"),
    (r"mov[lq]\s+[-\w]*\(%\w+\), %\w+", "load"),
    (r"mov[lq]\s+[%$]\w+, [-\w]*\(%\w+\)", "store"),
    (r"(?:bl?|jmp|call)(?:\.w)?\s+(carveout_send_token)\b.*", r"call \1"),
]
PLAIN = {"load", "store", "call carveout_send_token"}


def events(lines: list[str]) -> list[str]:
    """Return what the instructions do to memory, in order; what does nothing is left out."""
    found = []
    for line in lines:
        code = re.sub(r"\s+", " ", re.sub(r"@.*|//.*|#APP.*|#NO_APP.*", "", line)).strip()
        for pattern, name in EVENTS:
            if match := re.fullmatch(pattern, code):
                found.append(match.expand(name))
                break
    return [event for event in found if event]


@cache
def functions(target: str, source: str) -> dict[str, list[str]]:
    """Compile a file below firmware/, or the text of one; return each function's events."""
    chosen = TARGETS[target]
    require(
        shutil.which(chosen.compiler) is not None,
        f"no {chosen.compiler} (sudo apt install {chosen.packages})",
    )
    is_file = source.endswith(".c")
    done = subprocess.run(
        [chosen.compiler, *chosen.flags, *FLAGS, f"-I{FIRMWARE}"]
        + ([str(FIRMWARE / source)] if is_file else ["-xc", "-"]),
        input=None if is_file else source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = {}
    name, lines = "", list[str]()
    for line in done.stdout.splitlines():
        if label := re.match(r"(\w+)[\w.]*:", line):
            name, lines = label[1], []
        elif line.strip().startswith(".size"):
            found[name] = events(lines)
        else:
            lines.append(line)
    return found


def barriers(of: list[str]) -> list[str]:
    return [event for event in of if event not in PLAIN]


def between(of: list[str]) -> list[list[str]]:
    """The plain accesses before, between and after the barriers."""
    parts: list[list[str]] = [[]]
    for event in of:
        if event in PLAIN:
            parts[-1].append(event)
        else:
            parts.append([])
    return parts


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "x86-64" and platform.machine() != "x86_64":
        pytest.skip("not the compiler of this machine")
    return name


@pytest.fixture(params=ARM)
def arm(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_each_primitive_is_one_access_and_one_barrier_of_the_full_system(target: str) -> None:
    made, right = functions(target, PRIMITIVES), TARGETS[target]
    assert made["look"] == ["load", *right.acquire]
    assert made["publish"] == [*right.release, "store"]
    assert made["full"] == [*right.full]
    assert (made["glance"], made["note"]) == (["load"], ["store"])


def test_an_index_is_published_between_two_barriers(arm: str) -> None:
    # Frame, barrier, index, barrier, wish: neither does the other's work, and there is no third.
    made, right = functions(arm, "core/ring.c")["announce"], TARGETS[arm]
    assert barriers(made) == [*right.release, *right.full]
    _, index, after = between(made)
    assert index == ["store"]
    assert after[0] == "load"


def test_the_peers_index_is_looked_at_before_its_frames(arm: str) -> None:
    made, right = functions(arm, "core/ring.c")["refresh"], TARGETS[arm]
    assert barriers(made) == [*right.acquire]
    assert between(made)[0][-1] == "load"


@pytest.mark.parametrize("function", ["sbe_ring_wait_data", "sbe_ring_wait_space"])
def test_a_wish_is_out_before_the_last_look(arm: str, function: str) -> None:
    made, right = functions(arm, "core/ring.c"), TARGETS[arm]
    assert barriers(made[function]) == [*right.full]
    assert between(made[function])[0][-1] == "store"


def test_a_virtqueues_words_are_ordered_like_a_rings(arm: str) -> None:
    made, right = functions(arm, "ports/virtio/vring.c"), TARGETS[arm]
    assert barriers(made["vring_take"])[:1] == [*right.acquire]
    assert "load" in between(made["vring_take"])[0]
    assert barriers(made["vring_give"]) == [*right.release]
    assert between(made["vring_give"])[-1] == ["load", "load", "store"]  # where and what: private
    assert barriers(made["vring_wants_interrupt"]) == [*right.full]


def test_a_token_is_sent_after_what_it_speaks_of(arm: str) -> None:
    made, right = functions(arm, "ports/carveout/carveout.c"), TARGETS[arm]
    for function in ("look", "carveout_crash"):
        at = made[function].index("call carveout_send_token")
        assert barriers(made[function][:at])[-1:] == [*right.full], function
        assert "store" not in between(made[function][:at])[-1], function
    assert barriers(made["carveout_crash"]) == [*right.release, *right.full]
    assert between(made["carveout_crash"])[1] == ["store"]


def test_the_logs_count_is_out_after_its_text(arm: str) -> None:
    made, right = functions(arm, "ports/mps2/uart.c")["console_write"], TARGETS[arm]
    assert barriers(made) == [*right.release]
    text, count = between(made)
    assert text[-1] == count[0] == "store"


def test_nothing_else_orders_memory(arm: str) -> None:
    """C11's own orders would show as DMB ISH, LDAR, STLR, LDA, STL or an exclusive access."""
    right = TARGETS[arm]
    allowed = {*right.acquire, *right.release, *right.full}
    files = [path for folder in SOURCES for path in sorted((FIRMWARE / folder).glob("*.c"))]
    seen = set()
    for path in files:
        made = functions(arm, path.relative_to(FIRMWARE).as_posix())
        used = {event for of in made.values() for event in barriers(of)}
        assert used <= allowed, path
        seen |= used
    assert seen == allowed


C11_ORDER = re.compile(
    r"\b(?:_Atomic|memory_order_\w+|atomic_(?!signal_fence)\w+|__ATOMIC_(?!RELAXED\b)\w+|__sync_\w+)\b|\"dmb"
)


def orders(text: str) -> list[str]:
    """What orders memory in a C file by other means than core/atomic.h."""
    code = re.sub(r"/\*.*?\*/|//[^\n]*|#include[^\n]*", "", text, flags=re.DOTALL)
    code = re.sub(r"atomic_signal_fence\([^()]*\)", "", code)  # is for the compiler alone
    return C11_ORDER.findall(code)


def test_only_one_header_orders_memory() -> None:
    """The same of all C files, those that no cross compiler takes included."""
    files = [
        path
        for top in ("firmware", "sbe/native")
        for path in sorted((ROOT / top).rglob("*.[ch]"))
        if path != FIRMWARE / "core" / "atomic.h"
    ]
    assert len(files) > 60
    found = {str(path): used for path in files if (used := orders(path.read_text()))}
    assert not found
    assert orders((FIRMWARE / "core" / "atomic.h").read_text())


def test_what_orders_memory_is_found() -> None:
    for line in (
        "x = __atomic_load_n(at, __ATOMIC_ACQUIRE);",
        "__atomic_thread_fence(__ATOMIC_SEQ_CST);",
        "atomic_store_explicit(at, x, memory_order_release);",
        "static _Atomic uint32_t word;",
        '__asm__ volatile("dmb ish" ::: "memory");',
        "__sync_synchronize();",
    ):
        assert orders(line), line
    assert not orders("atomic_signal_fence(memory_order_seq_cst); /* memory_order_acquire */")
    assert not orders("__atomic_load_n(at, __ATOMIC_RELAXED)")


ATOMIC = re.compile(r"\b(?:volatile|_Atomic|atomic_\w+|__atomic_\w+|__sync_\w+|[di][ms]b)\b")
# Not for memory that a peer sees: a variable that a signal handler of this process sets.
OF_ITS_OWN = {"sbe/native/signals.c"}


def test_the_core_and_the_extension_have_their_atomics_in_one_header() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for top in ("firmware/core", "sbe/native")
        for path in sorted((ROOT / top).rglob("*.[ch]"))
        if ATOMIC.search(re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.DOTALL))
    }
    assert found == {"firmware/core/atomic.h", *OF_ITS_OWN}


def test_each_primitive_says_why_its_order_is_enough() -> None:
    lines = (FIRMWARE / "core" / "atomic.h").read_text().splitlines()
    begun = [at for at, line in enumerate(lines) if line.startswith("static inline")]
    assert len(begun) > 8
    unexplained = [lines[at] for at in begun if not lines[at - 1].endswith("*/")]
    assert not unexplained
