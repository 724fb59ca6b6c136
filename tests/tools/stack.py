"""How deep the stack of a board's image can get, against how deep it may.

From gcc's own call graph (-fcallgraph-info=su) of what the image is linked from, services included.
A call by pointer may lead to every function whose address the image takes, as far as it belongs to
a later floor than the one that made the last such call: the engine's hooks, services, power, the
port's hooks, the board's. That is how they are built: none calls back up but by its return. What
the C library does is read from its instructions. Not more than one interrupt is taken at a time,
and a fault has a stack of its own, but for the frame that the core pushes.

    python -m tests.tools.stack build/firmware/mps2-an521 ...

Fails when the bound exceeds the stack, when it can't be had, or when the check of either would be
a guess: recursion, a frame of unbounded size, a function without a floor.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRMWARE = ROOT / "firmware"

INDIRECT = "__indirect_call"
# By folder below firmware/: a call by pointer goes further down this list.
FLOORS = (
    "core",
    "pieces",
    "asg",
    "ninep",
    "streams",
    "services",
    "power",
    "carveout",
    "ports/carveout",
    "ports/mps2",
)
# Objects of the image, in the build directory.
OBJECTS = (
    "CMakeFiles/sbe_core.dir",
    "CMakeFiles/sbe_asg.dir",
    "CMakeFiles/sbe_ninep.dir",
    "CMakeFiles/sbe_carveout.dir",
    "CMakeFiles/sbe_pieces.dir",
    "CMakeFiles/sbe_power.dir",
    "CMakeFiles/sbe_services.dir",
    "CMakeFiles/sbe_streams.dir",
    "ports/mps2/CMakeFiles/sbe-firmware.dir",
)
EXCEPTION_FRAME = 32 + 4  # r0-r3, r12, lr, pc, xpsr; a word to align it

# Those that no program calls by pointer.
NO_CALLS = re.compile(r"\.rel(\.vectors|\.boot|\.ARM|\.debug)")
CALL_KINDS = ("R_ARM_THM_CALL", "R_ARM_THM_JUMP24", "R_ARM_THM_JUMP19", "R_ARM_PREL31")


@dataclass
class CallGraph:
    """gcc's call graph over several objects: bytes of each frame, and who calls whom."""

    frames: dict[str, int] = field(default_factory=dict)
    calls: dict[str, set[str]] = field(default_factory=dict)
    unbounded: set[str] = field(default_factory=set)
    recursion: set[str] = field(default_factory=set)
    by_pointer: dict[str, int] = field(default_factory=dict)
    """What a call by pointer may lead to, and its floor; nothing: such calls count as nothing."""
    _deepest: dict[tuple[str, int], tuple[int, list[str]]] = field(default_factory=dict)

    def read(self, path: Path) -> None:
        """Adds one .ci file."""
        text = path.read_text()
        for title, label in re.findall(r'node: \{ title: "([^"]*)" label: "([^"]*)"', text):
            frame = re.search(r"(\d+) bytes \(([\w,]+)\)", label)
            if frame is not None:
                self.frames[title] = int(frame[1])
                self.calls.setdefault(title, set())
                if frame[2] == "dynamic":
                    self.unbounded.add(title)
        for source, target in re.findall(
            r'edge: \{ sourcename: "([^"]*)" targetname: "([^"]*)"', text
        ):
            self.calls.setdefault(source, set()).add(target)

    def deepest(
        self, name: str, floor: int = -1, above: tuple[str, ...] = ()
    ) -> tuple[int, list[str]]:
        """The bytes and the functions of the deepest path that starts at name."""
        if name in above:
            self.recursion.add(" -> ".join([*above[above.index(name) :], name]))
            return 0, []
        if name not in self.frames:
            return 0, []
        if (name, floor) not in self._deepest:
            below = [
                self.deepest(callee, floor, (*above, name))
                for callee in self.calls[name]
                if callee != INDIRECT
            ]
            if INDIRECT in self.calls[name]:
                below += [
                    self.deepest(callee, of) for callee, of in self.by_pointer.items() if of > floor
                ]
            size, path = max(below, default=(0, []))
            self._deepest[name, floor] = (self.frames[name] + size, [name, *path])
        return self._deepest[name, floor]

    def worst(self) -> tuple[int, list[str]]:
        """The deepest path of all."""
        return max((self.deepest(name) for name in sorted(self.frames)), default=(0, []))

    @property
    def indirect(self) -> list[str]:
        """Functions that call through a pointer."""
        return sorted(name for name, called in self.calls.items() if INDIRECT in called)

    @property
    def external(self) -> list[str]:
        """Functions called that none of the objects defines."""
        called = set().union(*self.calls.values())
        return sorted(called - self.frames.keys() - {INDIRECT})


@dataclass(frozen=True)
class Bound:
    """One stack: what may be on it at most, by which path, and its size. Bytes."""

    name: str
    used: int
    path: list[str]
    size: int


class Image:
    """A board's image as it was built."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError when nothing is there."""
        self.folder = folder
        self.elf = folder / "sbe-firmware.elf"
        self.problems: list[str] = []
        self.graph = CallGraph()
        # Not what lies there: a file that has left the tree leaves its object behind.
        commands = json.loads((folder / "compile_commands.json").read_text())
        built = {folder / command["output"] for command in commands}  # absolute ones stay so
        places = [(folder / each).resolve() for each in OBJECTS]
        self._objects = sorted(
            path for path in built if any(path.is_relative_to(place) for place in places)
        )
        if not self._objects:
            raise FileNotFoundError(f"no objects in {folder}")
        for path in self._objects:
            self.graph.read(path.with_suffix(".ci"))
        self._add_library()
        self._add_pointers()

    def bounds(self) -> list[Bound]:
        """The stack of all that runs, and that of the fault handlers."""
        graph, symbols = self.graph, self._symbols
        program, path = graph.deepest("reset")
        # These begin in the board's own files, and what they call of the port calls back there.
        interrupt, _ = graph.deepest("uart_receive", FLOORS.index("ports/carveout"))
        fault, fault_path = graph.deepest("crash_fault", FLOORS.index("ports/carveout"))
        size = symbols["stack_top"][0] - symbols["stack_bottom"][0]
        _, crash_size = symbols["crash_stack"]
        found = [
            Bound("stack", program + interrupt + 2 * EXCEPTION_FRAME, path, size),
            Bound("stack of faults", fault + EXCEPTION_FRAME, fault_path, crash_size),
        ]
        where = self.folder.name
        self.problems += [f"{where}: recursion: {loop}" for loop in sorted(graph.recursion)]
        self.problems += [f"{where}: unbounded frame: {f}" for f in sorted(graph.unbounded)]
        self.problems += [
            f"{where}: the {each.name} may hold {each.used} bytes of {each.size}: "
            f"{' -> '.join(short(name) for name in each.path)}"
            for each in found
            if each.used > each.size
        ]
        return found

    def _add_pointers(self) -> None:
        """Every function whose address is taken."""
        floors = self._floors()
        for path in self._objects:
            source = self._source(path)
            for name in self._taken(path):
                title = f"{source}:{name}" if f"{source}:{name}" in self.graph.frames else name
                if title not in self.graph.frames:
                    continue  # data, or not linked
                of = floors.get(title, len(FLOORS))  # the C library's, which calls nobody
                if of is None:
                    self.problems.append(f"{self.folder.name}: {title} has no floor")
                else:
                    self.graph.by_pointer[title] = of

    def _floors(self) -> dict[str, int | None]:
        """Of the files that define functions, by the title that the graph has of each."""
        found: dict[str, int | None] = {}
        for path in self._objects:
            folder = self._source(path).parent
            of = next((i for i, each in enumerate(FLOORS) if folder == FIRMWARE / each), None)
            text = path.with_suffix(".ci").read_text()
            for title in re.findall(r'node: \{ title: "([^"]*)" label: "[^"]*bytes', text):
                found.setdefault(title, of)
        return found

    @staticmethod
    def _source(path: Path) -> Path:
        found = re.search(r'graph: \{ title: "([^"]*)"', path.with_suffix(".ci").read_text())
        assert found is not None, path
        return Path(found[1]).resolve()

    @staticmethod
    def _taken(path: Path) -> set[str]:
        names: set[str] = set()
        skip = False
        for line in _run("arm-none-eabi-readelf", "-rW", path).splitlines():
            if line.startswith("Relocation section"):
                skip = NO_CALLS.search(line) is not None
            words = line.split()
            known = not skip and len(words) >= 5 and words[2].startswith("R_ARM")
            if known and words[2] not in CALL_KINDS:
                names.add(words[4].removeprefix(".text."))
        return names

    @cached_property
    def _symbols(self) -> dict[str, tuple[int, int]]:
        """Address and bytes."""
        rows = [line.split() for line in _run("arm-none-eabi-nm", "-S", self.elf).splitlines()]
        return {row[-1]: (int(row[0], 16), int(row[1], 16) if len(row) == 4 else 0) for row in rows}

    def _add_library(self) -> None:
        """Functions that gcc did not compile here, from their instructions."""
        body: dict[str, list[str]] = {}
        name = ""
        for line in _run(
            "arm-none-eabi-objdump", "-d", "--no-show-raw-insn", self.elf
        ).splitlines():
            if found := re.match(r"[0-9a-f]+ <(.+)>:", line):
                name = found[1]
                body[name] = []
            elif "\t" in line:
                body[name].append(line.split("\t", 1)[1])
        todo = self.graph.external
        while todo:
            name = todo.pop()
            if name in self.graph.frames or name not in body:
                continue  # inlined, after all
            self.graph.frames[name] = sum(map(_pushed, body[name]))
            called = {
                found[1]
                for line in body[name]
                if (found := re.match(r"b[lx.\w]*\s+[0-9a-f]+ <([^+>]+)>", line))
            }
            self.graph.calls[name] = called - {name}
            todo += sorted(self.graph.calls[name])


def _pushed(line: str) -> int:
    """Bytes that an instruction takes from the stack."""
    if found := re.match(r"(?:push|stmdb\s+sp!,)(?:\.w)?\s*\{(.*)\}", line):
        registers = 0
        for each in found[1].split(","):
            first, _, last = each.strip().partition("-")
            registers += int(last[1:]) - int(first[1:]) + 1 if last else 1
        return 4 * registers
    if found := re.match(r"sub(?:w|\.w)?\s+sp, (?:sp, )?#(\d+)", line):
        return int(found[1])
    if found := re.match(r"str[d.\w]*\s+.*\[sp, #-(\d+)\]!", line):
        return int(found[1])
    return 0


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def short(name: str) -> str:
    """A function without the folder of its file."""
    return name.rpartition("/")[2].rpartition(":")[2]


def main() -> int:
    parser = argparse.ArgumentParser(description="Bound of an image's stack.")
    parser.add_argument("folders", nargs="+", type=Path, help="build/firmware/BOARD")
    parser.add_argument("--path", action="store_true", help="say by which path")
    options = parser.parse_args()
    problems: list[str] = []
    for folder in options.folders:
        image = Image(folder)
        for bound in image.bounds():
            print(f"{folder.name}: {bound.name}: at most {bound.used} bytes of {bound.size}")
            if options.path:
                print(f"  {' -> '.join(short(name) for name in bound.path)}")
        problems += image.problems
    for problem in problems:
        print(f"stack: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
