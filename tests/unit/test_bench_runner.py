"""The benchmark's own arithmetic and bookkeeping, on invented measurements: nothing is timed."""

from __future__ import annotations

import functools
import itertools
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from tests.bench import core, procs, report, runner, streams
from tests.bench.__main__ import chosen
from tests.bench.model import Curve, Placement, Probe, Result, Row, Settings, UnavailableError
from tests.bench.rows import CURVES, KERNEL_ROWS, PROBES, ROWS

RECORD_KEYS = {"value", "unit", "peer", "peer_value", "ratio", "spread", "note"}
META_KEYS = {"schema", "cpus", "kernel", "python", "rounds"}
SETTINGS = Settings(quick=True, placement="none")
ROW = Row("call", "us", ours="ours", peer="peer", peer_name="the peer", what="a call")


def never_run(_settings: Settings) -> Result:
    raise AssertionError("a fake measurement must not run the probe")


class Fake:
    """A `measure` that plays back prepared answers, one per round, and notes the order asked."""

    def __init__(self, **answers: list[Result | str]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, name: str, _probe: Probe, _settings: Settings) -> Result:
        self.asked.append(name)
        answer = self.answers[name].pop(0)
        if isinstance(answer, str):
            raise UnavailableError(answer)
        return answer


def play(rows: list[Row], rounds: int, fake: Fake, once: bool = False) -> runner.Run:
    probes = {name: Probe(never_run, once=once) for name in fake.answers}
    run = runner.Run(rows, probes, SETTINGS, fake)
    for number in range(rounds):
        run.round(number)
    return run


def results(*figures: float) -> list[Result | str]:
    return [Result.of([figure]) for figure in figures]


# Statistics


@pytest.mark.parametrize(
    ("samples", "share", "expected"),
    [
        (range(1, 101), 0.99, 99),
        (range(1, 101), 0.5, 50),
        ([3, 1, 2], 0.99, 3),
        ([7], 0.99, 7),
        ([1, 2], 0.0, 1),
    ],
)
def test_percentile_is_the_nearest_rank(samples: list[float], share: float, expected: int) -> None:
    assert runner.percentile(list(samples), share) == expected


def test_spread_is_the_quartiles_distance_over_the_median() -> None:
    assert runner.spread([8.0, 9.0, 10.0, 11.0, 12.0]) == pytest.approx(0.2)


def test_one_wild_round_does_not_widen_the_spread() -> None:
    assert runner.spread([10.0, 10.0, 10.0, 10.0, 900.0]) == 0.0


@pytest.mark.parametrize("figures", [[], [1.0], [1.0, 2.0], [0.0, 0.0, 0.0]])
def test_no_spread_where_it_would_mean_nothing(figures: list[float]) -> None:
    assert runner.spread(figures) is None


def test_ratio_pairs_the_sides_of_each_round() -> None:
    """The machine slows down tenfold from round to round; both sides see it, the ratio doesn't."""
    fake = Fake(ours=results(2, 20, 200), peer=results(4, 40, 400))
    record = play([ROW], 3, fake).records()["call"]
    assert (record["value"], record["peer_value"], record["ratio"]) == (20, 40, 0.5)
    assert (record["spread"], record["noisy"]) == (0.0, False)


def test_median_and_p99_are_medians_over_rounds() -> None:
    samples = [[float(base + n) for n in range(1, 101)] for base in (0, 1000, 100)]
    fake = Fake(ours=[Result.of(part) for part in samples], peer=results(1, 1, 1))
    record = play([ROW], 3, fake).records()["call"]
    assert record["value"] == 150.5
    assert record["p99"] == 199.0
    assert record["peer_p99"] is None  # one sample has no tail


def test_a_row_whose_rounds_disagree_is_marked() -> None:
    fake = Fake(ours=results(1, 5, 9), peer=results(1, 1, 1))
    run = play([ROW], 3, fake)
    assert run.records()["call"]["noisy"] is True
    text = report.table(run.records(), runner.meta(SETTINGS, 3, 1.0, 0.0))
    assert "80% ~" in text
    assert "means little" in text


# Rounds


def test_rounds_are_interleaved_peer_before_ours() -> None:
    fake = Fake(ours=results(1, 1), peer=results(1, 1))
    play([ROW], 2, fake)
    assert fake.asked == ["peer", "ours", "peer", "ours"]


def test_a_probe_shared_by_rows_runs_once_a_round() -> None:
    fake = Fake(ours=results(1), peer=results(2), other=results(4))
    second = Row("second", "us", ours="ours", peer="other", peer_name="other")
    records = play([ROW, second], 1, fake).records()
    assert fake.asked == ["peer", "ours", "other"]
    assert (records["call"]["ratio"], records["second"]["ratio"]) == (0.5, 0.25)


def test_a_probe_that_runs_once_is_not_repeated() -> None:
    fake = Fake(ours=results(1), peer=results(2))
    assert play([ROW], 3, fake, once=True).records()["call"]["rounds"] == [1]


def test_both_sides_may_come_from_one_probe() -> None:
    row = Row("flat", "us", ours="both/large", peer="both/small", peer_name="4 KiB")
    fake = Fake(both=[Result({"large": [3.0], "small": [2.0]})])
    record = play([row], 1, fake).records()["flat"]
    assert (record["value"], record["peer_value"], record["ratio"]) == (3.0, 2.0, 1.5)


# Placement


def test_a_row_elsewhere_measures_the_same_probes_placed_otherwise() -> None:
    asked: list[tuple[str, str]] = []

    def measure(name: str, _probe: Probe, settings: Settings) -> Result:
        asked.append((name, settings.placement))
        figure = {"two": 9.0, "one": 3.0, "none": 4.0}[settings.placement]
        return Result({"": [figure], "both": [2 * figure]})

    row = replace(ROW, ours="ours/both", goal=1.5)
    rows = [row, row.elsewhere("one"), row.elsewhere("none", 2.0)]
    probes = {name: Probe(never_run) for name in ("ours", "peer")}
    run = runner.Run(rows, probes, Settings(), measure)
    run.round(0)
    placements = ("two", "one", "none")
    assert asked == [(name, where) for where in placements for name in ("peer", "ours")]
    records = run.records()
    assert [*records] == ["call", "call@one", "call@none"]
    assert [record["value"] for record in records.values()] == [18.0, 6.0, 8.0]
    assert [record["peer_value"] for record in records.values()] == [9.0, 3.0, 4.0]
    assert [record["goal_met"] for record in records.values()] == [False, None, True]
    assert [record["placement"] for record in records.values()] == [*placements]


@pytest.mark.parametrize("placement", get_args(Placement))
def test_both_ends_are_where_the_placement_says(placement: Placement) -> None:
    pair = procs.cores(Settings(placement=placement))
    cpus = os.sched_getaffinity(0)
    if placement == "none" or (placement == "two" and len(cpus) == 1):
        assert pair is None
    else:
        assert pair is not None
        assert set(pair) <= cpus
        assert len(set(pair)) == (1 if placement == "one" else 2)


# What is missing


def test_a_missing_peer_says_so_and_ours_still_counts() -> None:
    fake = Fake(ours=results(1, 2, 3), peer=["pyzmq is not installed"])
    record = play([ROW], 3, fake).records()["call"]
    assert record["value"] == 2
    assert record["peer_value"] is None
    assert record["ratio"] is None
    assert record["note"] == "the peer: pyzmq is not installed"
    assert fake.asked.count("peer") == 1  # not tried again


def test_sbe_not_built_still_shows_the_peer() -> None:
    fake = Fake(ours=["SBE is not built here"], peer=results(7))
    run = play([ROW], 1, fake)
    record = run.records()["call"]
    assert (record["value"], record["peer_value"]) == (None, 7)
    assert record["note"] == "SBE is not built here"
    assert "call: SBE is not built here" in report.table(
        run.records(), runner.meta(SETTINGS, 1, 1.0, 0.0)
    )


def test_a_failure_in_a_later_round_keeps_the_earlier_ones() -> None:
    fake = Fake(ours=[*results(5), "gave no answer within 60 s"], peer=results(1, 1))
    record = play([ROW], 2, fake).records()["call"]
    assert record["value"] == 5
    assert record["note"] == "round 2: gave no answer within 60 s"


def test_notes_of_probe_and_row_stand_together() -> None:
    row = Row("noted", "us", ours="ours", note="it sleeps")
    fake = Fake(ours=[Result.of([1.0], "0.99 sleeps a call")])
    assert play([row], 1, fake).records()["noted"]["note"] == "it sleeps; 0.99 sleeps a call"


# Goals


@pytest.mark.parametrize(
    ("goal", "goal_on", "higher_is_better", "met"),
    [
        (0.5, "ratio", False, True),
        (0.4, "ratio", False, False),
        (0.6, "ratio", True, False),
        (10.0, "value", False, True),
        (10.0, "value", True, True),
        (None, "ratio", False, None),
    ],
)
def test_goal(goal: float | None, goal_on: str, higher_is_better: bool, met: bool | None) -> None:
    assert goal_on in ("value", "ratio")
    row = Row(
        "call",
        "us",
        ours="ours",
        peer="peer",
        goal=goal,
        goal_on="value" if goal_on == "value" else "ratio",
        higher_is_better=higher_is_better,
    )
    fake = Fake(ours=results(10), peer=results(20))
    assert play([row], 1, fake).records()["call"]["goal_met"] is met


def test_a_goal_without_a_figure_is_neither_met_nor_missed() -> None:
    row = Row("memory", "MB", ours="ours", goal=5.0, goal_on="value")
    assert play([row], 1, Fake(ours=["not built"])).records()["memory"]["goal_met"] is None


# The table and the file


def test_a_machine_that_was_busy_before_is_named() -> None:
    records = play([ROW], 1, Fake(ours=results(1), peer=results(1))).records()
    quiet, busy = (runner.meta(SETTINGS, 1, 1.0, load) | {"cpus": 2} for load in (0.1, 1.5))
    assert "was loaded" not in report.table(records, quiet)
    assert "was loaded before the run: 1.5 runnable on 2 CPUs" in report.table(records, busy)


def test_json_shape(tmp_path: Path) -> None:
    fake = Fake(ours=results(1), peer=["not installed"])
    target = tmp_path / "build" / "bench.json"
    about = runner.meta(SETTINGS, 1, 0.5, 0.0)
    runner.write_json(target, play([ROW], 1, fake).records(), about, {})
    written = json.loads(target.read_text())
    assert list(written) == ["meta", "curves", "call"]
    assert written["call"].keys() >= RECORD_KEYS
    assert written["meta"].keys() >= META_KEYS
    assert (written["meta"]["schema"], written["meta"]["rounds"]) == (runner.SCHEMA, 1)
    assert written["call"]["peer"] == "the peer"
    assert [path.name for path in target.parent.iterdir()] == ["bench.json"]


def test_rows_name_existing_probes_and_keys_are_unique() -> None:
    keys = [row.key for row in [*ROWS, *KERNEL_ROWS]]
    assert len(keys) == len(set(keys))
    assert not {"meta", "curves"} & set(keys)
    assert {curve.probe for curve in CURVES} <= PROBES.keys()
    for row in [*ROWS, *KERNEL_ROWS]:
        assert {name.partition("@")[0] for name in row.probes()} <= PROBES.keys()
        assert bool(row.peer) == bool(row.peer_name)


def test_only_takes_patterns_and_names_the_keys_otherwise() -> None:
    assert [row.key for row in chosen(ROWS, ["call_vs_i*", "idle"])] == ["call_vs_iceoryx2", "idle"]
    with pytest.raises(SystemExit, match="call_block"):
        chosen(ROWS, ["no_such_row"])


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.02418, "0.0242"),
        (8.964, "8.96"),
        (34.91, "34.9"),
        (260123.4, "260,123"),
    ],
)
def test_number_has_three_digits(figure: float | None, text: str) -> None:
    assert report.number(figure) == text


# Tails and curves


def test_a_tail_pools_all_rounds_and_stops_where_samples_run_out() -> None:
    rounds = [Result.of([float(n) for n in range(start, start + 500)]) for start in (1, 501)]
    record = play([ROW], 2, Fake(ours=[*rounds], peer=results(1, 1))).records()["call"]
    assert record["tail"] == {"50": 500.0, "90": 900.0, "99": 990.0}


def test_a_curve_has_every_point_and_null_where_none_was_measured() -> None:
    curve = Curve("sizes", "probe", "what", "us", "bytes", (1, 2), {"a": "A", "b": "B"})
    fake = Fake(probe=[Result({"a/1": [5.0], "a/2": [6.0], "b/2": [7.0]})])
    run = runner.Run([], {"probe": Probe(never_run, once=True)}, SETTINGS, fake, [curve])
    for number in range(2):
        run.round(number)
    record = run.curve_records()["sizes"]
    assert (record["points"], record["lines"]) == ([1, 2], {"A": [5.0, 6.0], "B": [None, 7.0]})


def given_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "peer"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv(core.PEER, str(program))


def test_the_original_library_is_placed_and_repeated_like_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_peer(
        tmp_path, monkeypatch, 'for i in $(seq $3); do echo "$i 7e6 900.5"; done; test $1 = -1'
    )
    result = core.asg(Settings(quick=True, placement="none"))
    assert result.series == {"": [float(i) for i in range(1, 26)]}
    assert result.note == "original library: 900 packets a doorbell"


def test_the_original_library_may_print_its_throughput_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_peer(tmp_path, monkeypatch, "echo 2.5")
    assert core.asg(Settings()) == Result.of([2.5])


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 3", "exit status 3"), ("exit 0", "printed no GB/s"), ("echo fast", "no numbers")],
)
def test_an_original_library_that_fails_makes_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    given_peer(tmp_path, monkeypatch, script)
    with pytest.raises(UnavailableError, match=reason):
        core.asg(Settings())


def test_sides_that_alternate_have_as_many_samples_each() -> None:
    order: list[str] = []
    steps = {name: functools.partial(order.append, name) for name in ("ours", "theirs")}
    samples = procs.alternated(steps, 450)
    assert {name: len(series) for name, series in samples.items()} == {"ours": 450, "theirs": 450}
    measured = "".join(name[0] for name in order[2 * 45 :])
    turns = [len(list(turn)) for _, turn in itertools.groupby(measured)]
    assert turns == [201, 201, 201, 201, 51, 51]  # the first of each does not count


def test_events_that_were_read_as_one_do_not_count() -> None:
    asked, told = os.eventfd(0), os.eventfd(0)
    os.eventfd_write(told, 2 * time.monotonic_ns())

    def answer() -> None:
        left = 2  # what is in there already, and once more
        while left > 0:
            left -= os.eventfd_read(asked)
        os.eventfd_write(told, time.monotonic_ns())

    far = threading.Thread(target=answer)
    far.start()
    [late] = streams._bare_events(asked, told, 1)
    far.join()
    assert late >= 0
    os.close(asked)
    os.close(told)
