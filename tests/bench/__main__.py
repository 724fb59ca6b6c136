"""python -m tests.bench [--quick] [--only NAME] [--rounds N] [--seconds S] [--kernel]"""

from __future__ import annotations

import argparse
import sys
import time
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from tests.bench import kernel, plot, report, runner
from tests.bench.model import ROOT, Row, Settings
from tests.bench.rows import CURVES, KERNEL_ROWS, PROBES, ROWS
from tests.bench.worker import measure

ROUNDS = 7
QUICK_ROUNDS = 3


def positive(word: str) -> int:
    value = int(word)
    if value < 1:
        raise argparse.ArgumentTypeError("at least one round")
    return value


def duration(word: str) -> float:
    value = float(word)
    if not 1 <= value <= 1e5:
        raise argparse.ArgumentTypeError("from a second to a day")
    return value


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and samples")
    parser.add_argument("--rounds", type=positive, metavar="N", help=f"default {ROUNDS}")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a key or a pattern such as 'call_*'; may be repeated",
    )
    parser.add_argument(
        "--seconds",
        type=duration,
        default=0.0,
        metavar="S",
        help="of 64 streams at once (stream_crowd*); default 60, with --quick 5",
    )
    parser.add_argument(
        "--kernel", action="store_true", help="the rows over a real kernel's rpmsg, in the rig"
    )
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="folder of the results")
    return parser.parse_args(arguments)


def chosen(table: list[Row], patterns: list[str]) -> list[Row]:
    """The rows that match; SystemExit naming the keys when none does."""
    rows = [row for row in table if not patterns or any(fnmatch(row.key, p) for p in patterns)]
    if not rows:
        keys = "\n  ".join(row.key for row in table)
        raise SystemExit(f"no row is called {' or '.join(patterns)}; there are\n  {keys}")
    return rows


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.kernel and not kernel.inside():
        return kernel.run_inside(options.build, arguments)
    table, name = (KERNEL_ROWS, "bench-kernel") if options.kernel else (ROWS, "bench")
    settings = Settings(options.quick, build=str(options.build), seconds=options.seconds)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    curves = [] if options.only or options.kernel else CURVES
    run = runner.Run(chosen(table, options.only), PROBES, settings, measure, curves)
    begin, load_before = time.monotonic(), runner.load()
    for number in range(rounds):
        run.round(number, partial(tell, f"round {number + 1}/{rounds}:"))
    tell()
    records = run.records()
    about = runner.meta(settings, rounds, time.monotonic() - begin, load_before)
    target: Path = options.build / f"{name}.json"
    runner.write_json(target, records, about, run.curve_records())
    print(report.table(records, about))
    print(f"\nfigures: {target}")
    if options.kernel:
        return 0
    for said in plot.draw_all(records, run.curve_records(), options.build):
        print(said)
    return 0


def tell(*words: str) -> None:
    """What runs at the moment, on a line that the next one overwrites; nothing in a log."""
    if sys.stderr.isatty():
        print(f"\r\033[K{' '.join(words)}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
