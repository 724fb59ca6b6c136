"""The libFuzzer targets: which there are, how they are built, run and measured.

`python -m tests.fuzz.targets --seconds 60` (`make fuzz SECONDS=60`) runs all of them and prints
what each has reached. What a run finds goes into build/fuzz/found, what is kept is corpus/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build"
CRASHES = BUILD / "fuzz" / "crashes"
CORPUS = HERE / "corpus"
SEED = 1
LIMIT_S = 900  # for what hangs; no run is meant to take as long

# A small quarantine: a use after free in these programs follows at once.
ENVIRONMENT = {
    "ASAN_OPTIONS": "quarantine_size_mb=8:detect_leaks=1:handle_abort=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@dataclass(frozen=True)
class Target:
    """One of the programs."""

    name: str
    runs: int  # of a usual test run
    covers: tuple[str, ...]  # the files under test, below firmware/
    max_len: int = 512

    @property
    def seeds(self) -> Path:
        """Inputs that are kept: what was found before, and a way into each part."""
        return CORPUS / self.name

    def program(self, kind: str = "") -> Path:
        """What build.sh has made of it."""
        return BUILD / f"fuzz{kind and '-' + kind}" / "fuzz" / f"fuzz_{self.name}"


TARGETS = (
    Target("session", 900_000, ("core/session.c", "core/session_peer.c", "core/session_base.c")),
    Target("channel", 800_000, ("core/channel.c", "core/area.c")),
    Target("ring", 700_000, ("core/ring.c",)),
    Target("asg", 300_000, ("asg/client.c", "asg/server.c", "asg/flow.c")),
    Target(
        "ninep",
        100_000,
        tuple(f"ninep/{name}.c" for name in ("server", "names", "content", "tree", "ram", "files")),
    ),
    Target("mirror", 800_000, ("mirror/mirror.c",)),
    Target("bootstrap", 500_000, ("carveout/bootstrap.c", "carveout/token.c")),
    Target("carveout", 250_000, ("ports/carveout/carveout.c",)),
    Target("virtio", 600_000, ("ports/virtio/vring.c", "ports/virtio/rpmsg.c")),
    Target("rpmsg_link", 500_000, ("ports/rpmsg/link.c", "power/power.c")),
    Target(
        "services",
        250_000,
        tuple(f"services/{name}.c" for name in ("sobel", "fir", "crc32", "copy", "fill", "invert")),
    ),
    Target(
        "streams",
        250_000,
        (
            *(f"streams/{name}.c" for name in ("streams", "move", "queue")),
            *(f"services/{name}.c" for name in ("tone", "meter", "loop")),
        ),
    ),
    Target(
        "engine",
        300_000,
        (
            *(f"core/{name}.c" for name in ("engine", "engine_base", "kept")),
            *(f"services/{name}.c" for name in ("relay", "mulaw", "digest", "files")),
            *(f"ninep/{name}.c" for name in ("client", "client_files")),
        ),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What a run has come to."""

    target: Target
    executions: int
    edges: int
    said: str  # by the program, its last lines
    crash: Path | None

    @property
    def failure(self) -> str | None:
        """What to tell a person, None if nothing was found."""
        if self.crash is None:
            return None
        shown = self.crash.relative_to(ROOT)
        return (
            f"{self.said}\n\nfuzz_{self.target.name} found a fault. Replay it with\n"
            f"    {self.target.program().relative_to(ROOT)} {shown}\n"
            "and once it is mended, keep it as a regression case with\n"
            f"    cp {shown} {self.target.seeds.relative_to(ROOT)}/"
        )


def missing() -> str | None:
    """Why the targets can't be built here."""
    clang = os.environ.get("SBE_CLANG", "clang")
    if shutil.which(clang) is None:
        return "no clang (sudo apt install clang libclang-rt-14-dev)"
    probe = subprocess.run(
        [clang, "-fsanitize=fuzzer,address", "-x", "c", "-", "-o", os.devnull],
        input=b"#include <stdint.h>\nint LLVMFuzzerTestOneInput(const uint8_t *at, unsigned long n)"
        b"{ return at == 0 && n == 1; }",
        capture_output=True,
    )
    if probe.returncode == 0:
        return None
    return f"{clang} has no libFuzzer (sudo apt install libclang-rt-14-dev)"


def build(kind: str = "") -> None:
    """Builds all of them, or what is not current: cheap when everything is."""
    script = [str(HERE / "build.sh"), f"{sys.prefix}/bin", *([kind] if kind else [])]
    done = subprocess.run(script, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the fuzz targets can't be built:\n{done.stdout}{done.stderr}")


def _execute(target: Target, options: Iterable[str], inputs: Iterable[Path]) -> Outcome:
    CRASHES.mkdir(parents=True, exist_ok=True)
    prefix = CRASHES / f"{target.name}-"
    command = [
        str(target.program()),
        f"-artifact_prefix={prefix}",
        "-print_final_stats=1",
        "-timeout=60",
        "-rss_limit_mb=2048",
        *options,
        *map(str, inputs),
    ]
    done = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=os.environ | ENVIRONMENT,
        timeout=LIMIT_S + 120,
    )
    crash = None
    if done.returncode != 0:
        named = re.search(r"Test unit written to (\S+)", done.stderr)
        crash = Path(named[1]) if named else Path(f"{prefix}unnamed")
    counted = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    return Outcome(
        target,
        int(counted[1]) if counted else 0,
        max((int(edges) for edges in re.findall(r"\bcov: (\d+)", done.stderr)), default=0),
        "\n".join(done.stderr.splitlines()[-60:]),
        crash,
    )


def fuzz(target: Target, *, seconds: int | None = None, seed: int = SEED) -> Outcome:
    """Runs it from its kept inputs, for its usual number of executions or for so many seconds.

    New inputs are kept in build/fuzz/found when it runs by time, for the next such run; a run by
    count starts from the same each time, and is as repeatable as libFuzzer can be.
    """
    options = [f"-max_len={target.max_len}", f"-seed={seed}"]
    found = BUILD / "fuzz" / "found" / target.name
    if seconds is not None:
        found.mkdir(parents=True, exist_ok=True)
        return _execute(target, [*options, f"-max_total_time={seconds}"], [found, target.seeds])
    options += [f"-runs={target.runs}", f"-max_total_time={LIMIT_S}"]
    with TemporaryDirectory() as place:  # what is new goes into the first folder
        return _execute(target, options, [Path(place), target.seeds])


def replay(target: Target) -> Outcome:
    """Each kept input once."""
    return _execute(target, ["-runs=0"], sorted(target.seeds.iterdir()))


def lines_reached(target: Target) -> dict[str, tuple[int, int]] | None:
    """Lines of each file under test that what is kept reaches, and all; None without llvm-cov."""
    tools = {
        tool: shutil.which(tool) or shutil.which(f"{tool}-14")
        for tool in ("llvm-profdata", "llvm-cov")
    }
    profdata, cov = tools["llvm-profdata"], tools["llvm-cov"]
    if profdata is None or cov is None:
        return None
    raw = BUILD / "fuzz-coverage" / f"{target.name}.profraw"
    found = BUILD / "fuzz" / "found" / target.name
    program = target.program("coverage")
    subprocess.run(
        [program, "-runs=0", *(place for place in (target.seeds, found) if place.exists())],
        check=True,
        capture_output=True,
        env=os.environ | ENVIRONMENT | {"LLVM_PROFILE_FILE": str(raw)},
    )
    merged = raw.with_suffix(".profdata")
    subprocess.run([profdata, "merge", raw, "-o", merged], check=True)
    exported = subprocess.run(
        [cov, "export", "-summary-only", f"-instr-profile={merged}", program],
        check=True,
        capture_output=True,
    )
    files = json.loads(exported.stdout)["data"][0]["files"]
    summary = {
        str(Path(entry["filename"]).relative_to(ROOT / "firmware")): entry["summary"]["lines"]
        for entry in files
        if Path(entry["filename"]).is_relative_to(ROOT / "firmware")
    }
    return {name: (summary[name]["covered"], summary[name]["count"]) for name in target.covers}


def keep(target: Target, limit: int) -> int:
    """Keeps at most so many of what was found; how many were added.

    libFuzzer says which few reach all that is reached beyond what is kept; the longest of them go
    deepest.
    """
    found = BUILD / "fuzz" / "found" / target.name
    with TemporaryDirectory() as place:
        merged = Path(place)
        for file in target.seeds.iterdir():
            shutil.copy(file, merged)
        known = {file.read_bytes() for file in merged.iterdir()}
        _execute(target, ["-set_cover_merge=1", "-use_counters=0"], [merged, found])
        new = [data for file in merged.iterdir() if (data := file.read_bytes()) not in known]
    new = sorted(new, key=lambda data: (-len(data), data))[:limit]
    for data in new:
        (target.seeds / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    return len(new)


def main() -> int:
    """Runs all, as many at a time as there are processors, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument("--keep", type=int, default=0, help="add so many inputs to corpus/ at most")
    parser.add_argument("names", nargs="*", help="targets, all if none is named")
    arguments = parser.parse_args()
    reason = missing()
    if reason is not None:
        print(f"fuzz: {reason}", file=sys.stderr)
        return 1
    chosen = [target for target in TARGETS if not arguments.names or target.name in arguments.names]
    build()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        outcomes = list(
            pool.map(lambda one: fuzz(one, seconds=arguments.seconds, seed=arguments.seed), chosen)
        )
    if arguments.keep:
        for target in chosen:
            print(f"{target.name}: {keep(target, arguments.keep)} inputs are new in corpus/")
    build("coverage")
    print(f"{'target':<12}{'executions':>12}{'edges':>7}  lines reached")
    for outcome in outcomes:
        reached = lines_reached(outcome.target) if outcome.crash is None else {}
        lines = (
            "no llvm-cov (sudo apt install llvm)"
            if reached is None
            else ", ".join(
                f"{Path(name).name} {covered}/{count} ({covered * 100 // count} %)"
                for name, (covered, count) in reached.items()
            )
        )
        print(f"{outcome.target.name:<12}{outcome.executions:>12,}{outcome.edges:>7}  {lines}")
    print(f"{'all':<12}{sum(outcome.executions for outcome in outcomes):>12,}")
    failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    print(*failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
