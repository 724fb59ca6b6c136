"""Build the core for each target and print its text, data, bss, worst stack and RAM.

Worst stack: the deepest path through gcc's own call graph (-fcallgraph-info=su), adding up the
frame of every function on it. What that cannot see is listed beneath the table and counted as
nothing: calls through function pointers, and functions outside the core such as memcpy. For whole
images, services included, stack.py bounds those as well, and --strict holds the bound to the stack.

A missed goal is printed, never hidden and never a failure. With --strict a failure is: a warning, a
compiler that is missing under SBE_RIGS=required, recursion, and a frame of unbounded size. The
figures also go to build/footprint.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from tests.tools.stack import CallGraph, Image

ROOT = Path(__file__).resolve().parents[2]
FIRMWARE = ROOT / "firmware"
OUT = ROOT / "build" / "footprint"

# A small core's configuration: fewer buffers in a frame.
SMALL = ["-DSBE_BUFFERS_MAX=8"]

# name, tool prefix, machine flags and configuration, Debian packages
TARGETS = [
    ("x86-64", "x86_64-linux-gnu-", [], "gcc"),
    ("aarch64", "aarch64-linux-gnu-", [], "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
    (
        "cortex-m3",
        "arm-none-eabi-",
        ["-mcpu=cortex-m3", "-mthumb", *SMALL],
        "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    ),
    (
        "cortex-m33",
        "arm-none-eabi-",
        ["-mcpu=cortex-m33", "-mthumb", *SMALL],
        "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    ),
]

# The caller-owned memory of one end, and how often there is one. The session is part of the engine.
STRUCTS = {
    "sbe_engine": "once",
    "sbe_engine_config": "once",
    "sbe_engine_channel": "channel",
    "sbe_session_channel": "channel",
    "sbe_session_context": "context",
    "sbe_area": "area",
    "sbe_session_pending": "request under way",
    "sbe_call": "call under way",
}
SCRATCH = 2 * 512  # a small core's slot size, for the request and the answer at hand

GOAL_TARGET = "cortex-m3"
GOAL_TEXT = 8896  # 8192 until turns ended by time: docs/adr/0022, 0024
GOAL_RAM = 2080
GOAL_EACH = {"channel": 256, "context": 256}

FLAGS = ["-std=c11", "-ffreestanding", "-Os", "-ffunction-sections", "-fdata-sections"]
# Unwind tables are a habit of the hosted targets and no part of a firmware image.
FLAGS += ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]
FLAGS += ["-fstack-usage", "-fcallgraph-info=su"]


def warnings() -> list[str]:
    """Return the warning set, whose one home is firmware/CMakeLists.txt."""
    text = (FIRMWARE / "CMakeLists.txt").read_text()
    block = text.split("# sbe-warnings-begin")[1].split("# sbe-warnings-end")[0]
    return re.findall(r"-W[\w-]+", block)


@dataclass
class Sizes:
    """A row of `size`, summed over objects."""

    text: int = 0
    data: int = 0
    bss: int = 0


@dataclass
class Report:
    """What one target came to."""

    target: str
    core: Sizes
    services: Sizes
    streams: Sizes
    stack: int
    stack_path: list[str]
    indirect: list[str]
    external: list[str]
    structs: dict[str, int]

    def ram(self, per: str) -> int | None:
        """Return the bytes of caller-owned RAM per one of these, or None while not all is known."""
        names = [name for name in STRUCTS if STRUCTS[name] == per]
        if any(name not in self.structs for name in names):
            return None
        total = sum(self.structs[name] for name in names)
        return total + self.core.data + self.core.bss + SCRATCH if per == "once" else total


class Target:
    """One compiler with its flags."""

    def __init__(self, name: str, prefix: str, machine: list[str], werror: bool) -> None:
        self.name = name
        self.prefix = prefix
        self.machine = machine
        self.werror = ["-Werror"] if werror else []
        self.problems: list[str] = []

    @cached_property
    def command(self) -> list[str]:
        return [f"{self.prefix}gcc", *self.machine, *FLAGS, *warnings(), f"-I{FIRMWARE}"]

    def compile(self, folder: str) -> list[Path]:
        """Compile firmware/<folder>/*.c and return the objects."""
        out = OUT / self.name / folder
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        objects = []
        for source in sorted((FIRMWARE / folder).glob("*.c")):
            target = out / f"{source.stem}.o"
            where = source.relative_to(ROOT)
            done = subprocess.run(
                [*self.command, *self.werror, "-c", where, "-o", target], cwd=ROOT, check=False
            )
            if done.returncode == 0:
                objects.append(target)
            else:
                self.problems.append(f"{self.name}: {where} does not compile")
        return objects

    def sizes(self, objects: list[Path]) -> Sizes:
        total = Sizes()
        if objects:
            for line in self._run("size", *objects).splitlines()[1:]:
                text, data, bss = (int(column) for column in line.split()[:3])
                total.text += text
                total.data += data
                total.bss += bss
        return total

    def struct_sizes(self) -> dict[str, int]:
        """Return sizeof of each of STRUCTS that the core's headers declare."""
        headers = sorted(path.name for path in (FIRMWARE / "core").glob("*.h"))
        source = OUT / self.name / "sizeof.c"
        found = {}
        for name in STRUCTS:
            lines = [f'#include "core/{header}"' for header in headers]
            lines.append(f"extern char size_of[sizeof(struct {name})];")
            lines.append(f"char size_of[sizeof(struct {name})];")
            source.write_text("\n".join(lines) + "\n")
            compiled = subprocess.run(
                [*self.command, "-c", source.name, "-o", "sizeof.o"],
                cwd=source.parent,
                capture_output=True,
                check=False,
            )
            if compiled.returncode == 0:
                symbol = self._run("nm", "--print-size", source.with_suffix(".o"))
                found[name] = int(symbol.split()[1], 16)
        return found

    def measure(self) -> Report:
        core = self.compile("core")
        services, streams = self.compile("services"), self.compile("streams")
        graph = CallGraph()
        for path in (OUT / self.name / "core").glob("*.ci"):
            graph.read(path)
        stack, path_down = graph.worst()
        self.problems += [f"{self.name}: recursion: {loop}" for loop in sorted(graph.recursion)]
        self.problems += [f"{self.name}: unbounded frame: {f}" for f in sorted(graph.unbounded)]
        return Report(
            target=self.name,
            core=self.sizes(core),
            services=self.sizes(services),
            streams=self.sizes(streams),
            stack=stack,
            stack_path=path_down,
            indirect=graph.indirect,
            external=graph.external,
            structs=self.struct_sizes(),
        )

    def _run(self, tool: str, *arguments: str | Path) -> str:
        return subprocess.run(
            [f"{self.prefix}{tool}", *arguments], check=True, capture_output=True, text=True
        ).stdout


def verdict(label: str, value: int, goal: int) -> str:
    """Return the line that sets a figure beside its goal."""
    word = "met" if value <= goal else f"MISSED by {value - goal} B"
    return f"GOAL {GOAL_TARGET} -Os {label}: {value} B of at most {goal} B: {word}"


def goals(report: Report) -> list[str]:
    lines = [verdict("core text", report.core.text, GOAL_TEXT)]
    for per, goal in {"once": GOAL_RAM, **GOAL_EACH}.items():
        used = report.ram(per)
        label = f"RAM, with {SCRATCH} B of scratch" if per == "once" else f"RAM per {per}"
        if used is not None:
            lines.append(verdict(label, used, goal))
    absent = [name for name in STRUCTS if name not in report.structs]
    if absent:
        lines.append(f"RAM figures lack, as the core's headers do not define: {', '.join(absent)}")
    return lines


def ram_table(reports: list[Report]) -> str:
    """Return the RAM of one end per target: once, and for each of what it holds."""
    rows = [["target", *dict.fromkeys(STRUCTS.values())]]
    for report in reports:
        used = [report.ram(per) for per in rows[0][1:]]
        rows.append([report.target, *("-" if n is None else str(n) for n in used)])
    return columns(rows)


def table(reports: list[Report]) -> str:
    rows = [["target", "text", "data", "bss", "stack", "services", "streams", "their bss"]]
    for report in reports:
        numbers = [report.core.text, report.core.data, report.core.bss, report.stack]
        numbers += [report.services.text, report.streams.text, report.streams.bss]
        rows.append([report.target, *(str(n) for n in numbers)])
    return columns(rows)


def images(problems: list[str]) -> str:
    """Return the sizes of the images for boards that have been built here."""
    found = [
        *ROOT.glob("build/firmware/*/sbe-firmware.elf"),
        *ROOT.glob("build/zephyr/*/zephyr/zephyr.elf"),
    ]
    if not found or shutil.which("arm-none-eabi-size") is None:
        return ""
    done = subprocess.run(
        ["arm-none-eabi-size", *sorted(found)], check=True, capture_output=True, text=True
    )
    rows = [["image", "text", "data", "bss", "stack", "of", "faults' stack", "of"]]
    for line in done.stdout.splitlines()[1:]:
        text, data, bss, _, _, path = line.split(maxsplit=5)
        name = "/".join(Path(path).relative_to(ROOT / "build").parts[:2])
        stacks = ["-"] * 4  # Zephyr's are Zephyr's
        if name.startswith("firmware/"):
            image = Image(Path(path).parent)
            stacks = [str(n) for each in image.bounds() for n in (each.used, each.size)]
            problems += image.problems
        rows.append([name, text, data, bss, *stacks])
    return columns(rows)


def columns(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Footprint of the core per target.")
    parser.add_argument("--strict", action="store_true", help="fail on warnings and recursion")
    strict = parser.parse_args().strict
    required = os.environ.get("SBE_RIGS") == "required"

    reports = []
    problems = []
    for name, prefix, machine, packages in TARGETS:
        if shutil.which(f"{prefix}gcc") is None:
            print(f"{name}: skipped, no {prefix}gcc (sudo apt install {packages})")
            if required:
                problems.append(f"{name}: {prefix}gcc missing under SBE_RIGS=required")
            continue
        target = Target(name, prefix, machine, werror=strict)
        reports.append(target.measure())
        problems += target.problems

    print("\nFootprint of firmware/core at -Os, in bytes (services, streams: text; 8 streams)")
    print(table(reports))
    print(f"\nRAM of one end, in bytes (once: with {SCRATCH} of scratch; the rest: for each)")
    print(ram_table(reports))
    if built := images(problems):
        print(
            "\nWhole images as last built, in bytes (bss: all tables and stacks; stack: at most, "
            f"with services)\n{built}"
        )
    for report in reports:
        if report.target == GOAL_TARGET:
            print(f"worst stack: {' -> '.join(report.stack_path)}")
            print(f"not counted, called by pointer from: {', '.join(report.indirect) or 'none'}")
            print(f"not counted, outside the core: {', '.join(report.external) or 'none'}")
            print("\n".join(goals(report)))
    OUT.mkdir(parents=True, exist_ok=True)
    figures = {report.target: asdict(report) for report in reports}
    OUT.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n")

    for problem in problems:
        print(f"footprint: {problem}", file=sys.stderr)
    return 1 if problems and (strict or required) else 0


if __name__ == "__main__":
    sys.exit(main())
