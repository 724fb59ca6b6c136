"""Instructions of an empty call and of a batch of 1,000, counted by callgrind.

    python -m tests.bench.instructions             count and compare with the record
    python -m tests.bench.instructions --record    write tests/bench/instructions.json

Time varies, instructions don't: nothing here sleeps, wakes or asks a clock. What is counted:

    core_*       instructions.c: the C core's host channel and remote engine in one thread. The
                 parts are told apart by function; a doorbell is decided on, and ringing it is free.
    extension_*  the SDK over a scripted link, whose answer is in the ring before the call. Of the
                 whole program only what runs inside the extension (the core in it included).
    python_call  the same `link.call()` with interpreter and all; compared only where the record
                 was made with this very Python.

Each figure is the difference between two runs, so that starting up cancels out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.bench import procs, programs
from tests.bench.model import ROOT, UnavailableError

RECORD = Path(__file__).with_name("instructions.json")
ALLOWED = 0.05
"""Growth over the record that is nobody's fault."""

BATCH = 1_000
_CALLS = 200
_LIMIT_S = 400.0
_HOST, _REMOTE = ("host_part_send", "host_part_take"), ("remote_part",)


def valgrind() -> str:
    found = shutil.which("valgrind")
    if found is None:
        raise UnavailableError("valgrind is not installed (apt install valgrind)")
    return found


class Profile:
    """What callgrind wrote: instructions by shared object, and by function with all it called."""

    def __init__(self, text: str) -> None:
        self.by_object: Counter[str] = Counter()
        self.inclusive: Counter[str] = Counter()
        self.total = 0
        here = called = ""
        of_call = False  # the next line of cost is what a callee took
        for line in text.splitlines():
            name, found, value = line.partition("=")
            if line[:1].isdigit():
                cost = int((*line.split(), "0")[1])  # a cost of zero is left out
                if of_call:
                    self.inclusive[called] += cost
                else:
                    self.by_object[here] += cost
                    self.total += cost
                of_call = False
            elif found and name == "ob":
                here = Path(value).name
            elif found and name == "cfn":
                called = value
            elif found and name == "calls":
                of_call = True


def profile(command: list[str]) -> Profile:
    """Run a command under callgrind."""
    with tempfile.TemporaryDirectory(prefix="sbe-callgrind-") as folder:
        target = Path(folder, "out")
        options = ["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"]
        # One kind of memcpy wherever this runs, and one order of every dict.
        fixed = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [valgrind(), *options, f"--callgrind-out-file={target}", *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            env=os.environ | fixed,
        )
        if done.returncode != 0 or not target.exists():
            said = [line for line in done.stderr.splitlines() if not line.startswith("==")]
            raise UnavailableError(f"callgrind: {said[-1] if said else done.returncode}")
        return Profile(target.read_text())


def count(build: Path) -> dict[str, int]:
    """All figures, measured now."""
    return _count_core(build) | _count_python()


def _count_core(build: Path) -> dict[str, int]:
    program = str(programs.build(build, "instructions"))

    def run(calls: int, together: int) -> Profile:
        return profile([program, str(calls), str(together)])

    one, two = run(_CALLS, 1), run(2 * _CALLS, 1)
    small, large = run(1, BATCH), run(2, BATCH)
    figures = {}
    for end, names in (("host", _HOST), ("remote", _REMOTE)):
        call = sum(two.inclusive[name] - one.inclusive[name] for name in names)
        batch = sum(large.inclusive[name] - small.inclusive[name] for name in names)
        figures[f"core_{end}_call"] = round(call / _CALLS)
        figures[f"core_{end}_batch"] = batch
    return figures


def _count_python() -> dict[str, int]:
    def run(*words: object) -> Profile:
        code = "from tests.bench.instructions import scripted; scripted(*sys.argv[1:])"
        return profile(procs.python(code, *map(str, words)))

    nothing = {"one": run("count", _CALLS), "two": run("count", 2 * _CALLS)}
    one, two, batch = run("call", _CALLS), run("call", 2 * _CALLS), run("batch", 0)
    counting = nothing["two"].total - nothing["one"].total
    return {
        "extension_call": round((extension(two) - extension(one)) / _CALLS),
        "extension_batch": extension(batch) - extension(run("batch", 1)),
        "python_call": round((two.total - one.total - counting) / _CALLS),
    }


def extension(found: Profile) -> int:
    """Instructions inside the extension, the core in it included."""
    return sum(cost for name, cost in found.by_object.items() if re.match(r"_native\b", name))


def scripted(what: str, number: str) -> None:
    """What runs under callgrind: so many calls, only the counting of them, or a batch but one."""
    from tests.bench.scripted import Script

    script = Script()
    if what == "batch":
        script.write(BATCH, together=True)
        script.head[0] = BATCH
        calls = BATCH if number == "0" else 1
        script.link._core.channel.batch(
            1, calls, 0, b"", b"", 0, bytearray(4 * calls), bytearray(), bytearray(), 0, 5.0
        )
    else:
        script.write(2 * _CALLS, together=False)
        script.link._core.prepare("echo", None)
        step = script.link.call if what == "call" else str
        for answer in range(1, int(number) + 1):
            script.head[0] = answer
            step("echo")
    script.link.close()


# -- the record -------------------------------------------------------------------------------


def surroundings() -> dict[str, str]:
    """What the figures depend on besides our code."""
    compiler = subprocess.run(
        ["cc", "-dumpfullversion"], capture_output=True, text=True, check=True
    )
    return {
        "machine": platform.machine(),
        "compiler": compiler.stdout.strip().partition(".")[0],
        "python": platform.python_version(),
    }


def differs(record: dict[str, Any]) -> str:
    """Why figures measured here can't be compared with the record; empty when they can."""
    here, there = surroundings(), record["made_with"]
    for word in ("machine", "compiler"):
        if here[word] != there[word]:
            return f"the record was made with {word} {there[word]}, this is {here[word]}"
    return ""


def faults(record: dict[str, Any], counted: dict[str, int]) -> list[str]:
    """One line for each figure that has grown too much."""
    found = []
    same_python = record["made_with"]["python"] == surroundings()["python"]
    for name, now in counted.items():
        if name.startswith("python_") and not same_python:
            continue
        before = record["figures"].get(name)
        if before is None:
            found.append(f"{name}: {now:,} instructions, not in the record")
        elif now > before * (1 + ALLOWED):
            found.append(
                f"{name}: {now:,} instructions, {before:,} in the record ({now / before - 1:+.1%})"
            )
    return found


HOW_TO_RECORD = (
    "If the growth is wanted, record it in the same commit: "
    "python -m tests.bench.instructions --record"
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="the figures become the record")
    options = parser.parse_args(arguments)
    counted = count(ROOT / "build")
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"figures": {}}
    for name, now in counted.items():
        before = record["figures"].get(name)
        print(f"{name:18} {now:>10,}  {f'{now / before - 1:+.2%}' if before else 'new'}")
    if options.record:
        made = {"made_with": surroundings(), "figures": counted}
        RECORD.write_text(json.dumps(made, indent=1) + "\n")
        return 0
    found = faults(record, counted)
    print("\n".join([*found, HOW_TO_RECORD] if found else ["within the record"]))
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UnavailableError as reason:
        sys.exit(str(reason))
