"""docs/performance.md, made from the figures of a run.

    python -m tests.bench.report_md            from tests/bench/reference.json
    python -m tests.bench.report_md --adopt    build/bench.json becomes the reference first

The document and the reference are committed together; a test makes it again and compares.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.bench import instructions
from tests.bench.model import ROOT, Placement
from tests.bench.report import amount, number
from tests.bench.rows import ROWS

REFERENCE = Path(__file__).with_name("reference.json")
DOCUMENT = ROOT / "docs" / "performance.md"

Reference = dict[str, Any]

_HEAD = """\
# Performance

Made by `python -m tests.bench.report_md` from `tests/bench/reference.json`, the record of one
run of `make bench`. Don't edit it: repeat the run, then `python -m tests.bench.report_md
--adopt`.
"""

_METHOD = """\
## Method

Every figure stands beside its floor or its peer, measured in the same run. A run has several
rounds; a round runs every probe once, each in a process of its own, the two sides of a
comparison next to each other. A value is the median over the rounds of each round's median; a
ratio is the median of each round's own ratio, so what slows the machine down for both sides
cancels out. The spread is the distance between the quartiles of the rounds over their median; a
row beyond 20 % is marked `~` and its median means little. Tails pool the samples of all rounds.
Compare ratios, not microseconds: another machine has others.

Where the two ends run decides more than anything else. Value, ratio and spread are of ends on two
cores, as a host and its remote are; so is whatever says nothing else, tails and curves included.
The columns "one CPU" and "unpinned" have value and ratio of the same row with both ends on one
CPU, and where the scheduler puts them: often on one, where a wake-up is quicker and nothing runs
at the same time. In `bench.json`, and among the goals, these are keys of their own: `KEY@one`,
`KEY@none`. No goal compares what sleeps with a peer that does more work for each wake-up: such a
ratio says what a wake-up costs on this machine. Those goals are set against the bare wake-ups of
`floor_eventfd`.

A floor is what the machine itself costs, a peer what one would pick instead, used as its
documentation says. "Asleep" means that both ends sleep between two calls, which the probes
check by counting the remote's sleeps; "spinning" that they look at the ring for up to 100 us
before they sleep (`sbe.connect(spin_s=1e-4)`).

Streams flow at a rate that is asked for, so their rows compare what that costs. `stream_audio*` is
the CPU time of one period each 5 ms, on both sides the remote's end at work by a clock: a Python
process for the peers, the C remote for SBE, so `stream_audio_cpu_here*` has the application's end
alone. `stream_bulk*` has as much as goes through a peer, beside 32 streams of 48 MB/s, the most
that one may be; where the note says that nothing was lost, the figure is what was offered, and the
CPU time says more. `stream_event` is the time from the remote's reading of its clock, which is
that of this machine, until the application has the event; its floor is a process that writes its
reading to an eventfd. `stream_crowd*` are 64 streams of 48 kHz stereo in 5 ms periods, half played
and half captured, buffers of 20 periods, served by one thread in an epoll loop, for a minute
(`--seconds`): xruns count from the start, jitter is how far from 5 ms two wake-ups for one stream
are apart.

`ninep_*` are a client of 9P that sends one message at a time, as a process that reads a file does
without read-ahead. It asks a remote through the bridge, three processes, and in turns the same
server built with a loop that reads its socket (`tests/bench/ninep_socket.c`), two processes. The
scheduler places them. How often each byte is copied: `docs/design/ninep.md`.

The original ASG library is not part of this repository, nor is it a package that a run could
install. Who has built its benchmark gives it as `ASG_PEER=PROGRAM make bench`; it is run as
`PROGRAM NEAR FAR ROUNDS` (the CPUs of producer and consumer, -1 for any), passes on 51,200 packets
of 384 bytes ROUNDS times through a transfer buffer of 16 KiB in steps of 4 KiB, compares every
byte, and prints one line each time: GB/s, and if it likes packets a second and packets a doorbell.
Without it the rows `ring_vs_asg`, `ring_copied_vs_asg` and `asg_stream` have no ratio. Its reader
always copies what it reads out of the ring; our rings may leave it there, and both are measured.
"""

_OF_TAILS = """\
Microseconds: of one round trip, or what the row says of streams.
"""

_TAILS = (
    "floor_eventfd",
    "peer_seqpacket",
    "peer_pipe",
    "peer_zmq",
    "peer_iceoryx2",
    "call_block",
    "call_spin",
    "stream_event",
    "stream_crowd_jitter",
    "stream_crowd_daemon_jitter",
)


def document(reference: Reference, record: Reference) -> str:
    """The whole document."""
    parts = [_HEAD, _METHOD, _machine(reference["meta"])]
    for group, title in (
        ("floor", "Floors"),
        ("peer", "Peers"),
        ("sbe", "Structured Buffer Exchange"),
    ):
        parts.append(f"## {title}\n\n{_figures(reference, group)}")
    parts.append(_goals(reference))
    parts.append(f"## Tails\n\n{_OF_TAILS}\n{_tails(reference)}")
    parts += [_curve(curve) for curve in reference["curves"].values()]
    parts += [_anatomy(reference), _instructions(record), _notes(reference)]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A markdown table; all columns but the first `left` are aligned right."""
    rule = ["---" if i < left else "---:" for i in range(len(head))]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *rows])


def _filled(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False) + "\n"


def _machine(meta: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    return _filled(
        f"This run: {meta['date'][:10]}, {meta['rounds']} rounds, {meta['cpus']} CPUs "
        f"({meta['machine']}), Linux {meta['kernel']}, Python {meta['python']}; {versions}. "
        f"{meta['load_before']:g} processes were runnable before it began."
    )


def _keys(reference: Reference, group: str) -> list[str]:
    """In the order of the table of rows."""
    return [row.key for row in ROWS if reference.get(row.key, {}).get("group") == group]


def _elsewhere(reference: Reference, key: str, placement: Placement) -> str:
    """Value and ratio of a row's twin."""
    twin = reference.get(f"{key}@{placement}")
    if twin is None or twin["value"] is None:
        return "" if twin is None else "-"
    ratio = f" ({number(twin['ratio'])})" if twin["peer"] else ""
    return f"{number(twin['value'])}{ratio}{' ~' if twin['noisy'] else ''}"


def _value(record: Reference) -> str:
    return f"{number(record['value'])} {record['unit']}" if record["value"] is not None else "-"


def _spread(record: Reference) -> str:
    if record["spread"] is None:
        return "-"
    return f"{record['spread']:.0%}{' ~' if record['noisy'] else ''}"


def _figures(reference: Reference, group: str) -> str:
    rows = []
    for key in _keys(reference, group):
        record = reference[key]
        if record["placement"] != "two":
            continue
        peer = f"{record['peer']}: {number(record['peer_value'])}" if record["peer"] else ""
        ratio = number(record["ratio"]) if record["peer"] else ""
        shown = [_value(record), number(record["p99"]), peer, ratio, _spread(record)]
        others = [_elsewhere(reference, key, placement) for placement in ("one", "none")]
        rows.append([f"`{key}`", record["what"], *shown, *others])
    head = ["key", "what", "value", "p99", "beside", "ratio", "spread", "one CPU", "unpinned"]
    return _table(head, rows, left=2)


def _goals(reference: Reference) -> str:
    rows, missed, unmeasured = [], 0, 0
    for key in _keys(reference, "sbe"):
        record = reference[key]
        if record["goal"] is None:
            continue
        judged = record[record["goal_on"]]
        sign = "at least" if record["higher_is_better"] else "at most"
        unit = f" {record['unit']}" if record["goal_on"] == "value" else ""
        missed += record["goal_met"] is False
        unmeasured += record["goal_met"] is None
        verdict = {True: "met", False: "**missed**", None: "not measured"}[record["goal_met"]]
        rows.append(
            [
                f"`{key}`",
                f"{sign} {number(record['goal'])}{unit}",
                number(judged),
                _distance(record, judged),
                verdict,
            ]
        )
    said = f"{len(rows)} goals, {missed} missed, {unmeasured} not measured in this run."
    table = _table(["key", "goal", "figure", "beside the goal", ""], rows)
    return f"## Remaining distance\n\n{said}\n\n{table}"


def _distance(record: Reference, judged: float | None) -> str:
    if judged is None:
        return "-"
    if not record["goal"] or not judged:
        return "" if record["goal_met"] else f"{number(judged)} {record['unit']} over"
    times = judged / record["goal"] if record["higher_is_better"] else record["goal"] / judged
    return f"{times:.2f} x better" if times >= 1 else f"{1 / times:.2f} x worse"


def _tails(reference: Reference) -> str:
    shown = {key: reference[key] for key in _TAILS if reference.get(key, {}).get("tail")}
    shares = sorted({share for record in shown.values() for share in record["tail"]}, key=float)
    rows = [
        [f"`{key}`", record["what"], *(number(record["tail"].get(share)) for share in shares)]
        for key, record in shown.items()
    ]
    return _table(["key", "what", *(f"p{share}" for share in shares)], rows, left=2)


def _curve(curve: Reference) -> str:
    rows = [
        [amount(point), *(number(values[i]) for values in curve["lines"].values())]
        for i, point in enumerate(curve["points"])
    ]
    what = curve["what"][0].upper() + curve["what"][1:]
    return f"## {what}, {curve['unit']}\n\n" + _table(
        [curve["axis"], *curve["lines"]], rows, left=0
    )


# -- where each microsecond goes --------------------------------------------------------------


def _anatomy(reference: Reference) -> str:
    def value(key: str) -> float | None:
        figure: float | None = reference.get(key, {}).get("value")
        return figure

    parts = ["part_host_python", "part_host_core", "part_remote_core", "part_bell", "part_trip"]
    whole, *pieces = (value(key) for key in ["call_block", *parts])
    head = "## Where each microsecond goes\n\n"
    if whole is None or None in pieces:
        return head + "Not all parts were measured in this run.\n"
    python, host, remote, bell, trip = (piece for piece in pieces if piece is not None)
    wake = trip / 2 - bell
    known = python + remote + 2 * (bell + wake)
    rows = [
        ("`link.call()` in Python and the extension", python - host, "difference"),
        ("the C core in it: frame written, published, response checked", host, "measured"),
        ("our doorbell: a `write` to an eventfd whose reader sleeps", bell, "measured"),
        ("the remote's wake-up: from the write's end until it runs", wake, "estimated"),
        ("the remote's engine: frame copied, checked, served, answered", remote, "measured"),
        ("the remote's doorbell", bell, "assumed as ours"),
        ("our wake-up", wake, "assumed as the remote's"),
        ("the rest: cold caches, the GIL let go and taken, epoll", whole - known, "remainder"),
    ]
    table = _table(
        ["step", "us", "share", "how known"],
        [[step, number(us), f"{us / whole:.0%}", how] for step, us, how in rows]
        + [["**one sleeping call** (`call_block`)", number(whole), "100%", "measured"]],
    )
    return f"{head}{_ANATOMY}\n{table}\n{_layers(reference)}"


_ANATOMY = """\
One empty call with both ends asleep. "Measured" is the part alone, in a loop, so with warm
caches; Python's part is `link.call()` over a link whose answer lies in the ring already
(`tests/bench/scripted.py`), less the core's part of it. Estimated: half a bare eventfd round
trip of two C processes, less the write that begins it, as if a wake-up began when the write
ends; in truth the two overlap. The remainder is what the parts alone do not have, and takes the
errors of all of them: a negative one says that an estimate above is too high.
"""


def _layers(reference: Reference) -> str:
    rows = []
    for key, said in (
        ("part_trip", "eventfd there and back, C"),
        ("floor_eventfd", "the same in Python: the floor of `call_block`"),
        ("part_core_call", "a call of the C core, no Python on either side"),
        ("call_block", "a call of the SDK"),
    ):
        record = reference.get(key, {})
        rows.append([said, f"`{key}`", number(record.get("value")), number(record.get("p99"))])
    table = _table(["layer, both ends asleep between", "key", "us", "p99"], rows, left=2)
    calls = [
        f"{number(reference[key]['value'])} at {end} ({_by_kind(reference[key]['note'], name)})"
        for key, end, name in (
            ("part_host_syscalls", "this end", "host"),
            ("part_remote_syscalls", "the remote", "remote"),
        )
        if reference.get(key, {}).get("value") is not None
    ]
    if not calls:
        return table
    said = (
        f"System calls of one such call, by `strace -c`: {' and '.join(calls)}. "
        "Tracing slows an end down: its peer's answer is there more often, and it sleeps less."
    )
    return f"{table}\n{_filled(said)}"


def _by_kind(note: str, end: str) -> str:
    return ", ".join(
        f"{name} {times}" for name, times in re.findall(rf"{end}/(\w+) ([\d.]+)", note)
    )


def _instructions(record: Reference) -> str:
    made, figures = record["made_with"], record["figures"]
    rows = []
    for name, said in (
        ("core_host", "the C core at the caller's end"),
        ("core_remote", "the remote's engine and the echo service"),
        ("extension", "the extension, the core in it included"),
    ):
        call, batch = figures[f"{name}_call"], figures[f"{name}_batch"]
        rows.append([said, f"{call:,}", f"{batch / instructions.BATCH:,.0f}"])
    rows.append(["`link.call()`, the interpreter included", f"{figures['python_call']:,}", "-"])
    table = _table(
        ["instructions", "an empty call", f"one of {instructions.BATCH:,} in a batch"], rows
    )
    said = (
        f"Counted by callgrind ({made['machine']}, gcc {made['compiler']}, "
        f"Python {made['python']}) in setups without sleep or clock, so the same every time: "
        "`tests/bench/instructions.py`. CI fails when one grows by more than "
        f"{instructions.ALLOWED:.0%} and `tests/bench/instructions.json` does not change with it. "
        "The kernel's are not counted."
    )
    return f"## Instructions\n\n{_filled(said)}\n{table}"


def _notes(reference: Reference) -> str:
    said: dict[str, list[str]] = {}
    for key in [*(row.key for row in ROWS), *reference["curves"]]:
        record = reference.get(key) or reference["curves"].get(key)
        if record and record["note"]:
            said.setdefault(record["note"], []).append(f"`{key}`")
    lines = [f"- {', '.join(keys)}: {note}" for note, keys in said.items()]
    return "## Notes of the run\n\n" + "\n".join(lines) + "\n"


# -- the reference ----------------------------------------------------------------------------


def adopted(run: Reference) -> Reference:
    """A run as it is committed: without what is of this machine alone. SystemExit if it is not
    whole."""
    missing = [row.key for row in ROWS if row.key not in run]
    if missing or run["meta"]["quick"]:
        raise SystemExit(
            f"a reference is a whole run, not a quick one; missing: {', '.join(missing) or '-'}"
        )
    kernel = re.match(r"\d+\.\d+", run["meta"]["kernel"])
    return run | {"meta": run["meta"] | {"kernel": kernel[0] if kernel else ""}}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--adopt", action="store_true", help="build/bench.json is the reference")
    if parser.parse_args(arguments).adopt:
        run = adopted(json.loads((ROOT / "build" / "bench.json").read_text()))
        REFERENCE.write_text(json.dumps(run, indent=1) + "\n")
    DOCUMENT.write_text(made())
    print(f"{DOCUMENT.relative_to(ROOT)} made from {REFERENCE.relative_to(ROOT)}")
    return 0


def made() -> str:
    """The document as the committed figures make it."""
    record = json.loads(instructions.RECORD.read_text())
    return document(json.loads(REFERENCE.read_text()), record)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
