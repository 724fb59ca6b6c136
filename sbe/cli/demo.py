"""`sbe demo`: a photograph and a video, processed by a co-processor that gets references."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import sbe
from sbe import extras
from sbe.cli import exit_codes
from sbe.cli.figures import amount, duration, plural, ratio, summary_us
from sbe.cli.screen import Screen
from sbe.cli.session import Session, common_options, describe_link
from sbe.cli.stat import COUNTERS, own_channel, per_doorbell

if TYPE_CHECKING:
    from sbe.cli.video import Alone, Stage, Video

__all__ = ["demo"]


def _need_packages() -> None:
    try:
        import numpy  # noqa: F401
        import PIL  # noqa: F401
    except ImportError as error:
        raise click.ClickException(
            extras.missing("sbe demo", error, "demo") or str(error)
        ) from None


@click.command()
@click.argument(
    "image",
    required=False,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--frames", type=click.IntRange(1, 1_000_000), default=500, show_default=True)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build/demo.png"),
    show_default=True,
    help="The picture, before and after, as PNG.",
)
@common_options
@click.pass_obj
def demo(session: Session, image: Path | None, frames: int, output: Path) -> int:
    """Send a picture and a video to a co-processor, and show the cost.

    IMAGE is any picture that Pillow opens; the default is a photograph of an installed package.
    It goes to the services sobel and crc32, then moves through --frames frames of a video, of which
    several are in flight. The same frames go through a multiprocessing.Pipe, for comparison.
    """
    _need_packages()
    from sbe.cli import picture as pictures
    from sbe.cli import video as videos

    screen = session.screen()
    picture = pictures.load(image or pictures.sample_photograph())
    output.parent.mkdir(parents=True, exist_ok=True)
    screen.line(
        f"picture  {picture.name}, {picture.width} x {picture.height} pixels, "
        f"{amount(picture.pixels.size)} in 8-bit grey"
    )
    with session.connect() as link:
        where = describe_link(link)
        screen.line(f"link     {where}")
        stage = videos.Stage(link, picture)
        still = _still(screen, stage)
        pictures.save_pair(
            output,
            picture,
            stage.pairs[0].edges.reshape(picture.pixels.shape),
            (
                f"before: {picture.name}, {picture.width} x {picture.height}",
                f"after: sobel at the remote, {duration(still['sobel']['remote_us'])}",
            ),
        )
        screen.line(f"wrote    {output}")
        before = link.stat()
        with screen.progress("video", frames) as advance:
            video = videos.play(stage, frames, advance)
        counters = _difference(before, link.stat())
        with screen.progress("pipe ", frames) as advance:
            alone = videos.compare(stage, frames, advance)
    report = _report(stage, video, alone, counters)
    ok = bool(still["sobel"]["ok"] and still["crc32"]["ok"] and not video.wrong)
    screen.result(
        ok,
        picture={"name": picture.name, "width": picture.width, "height": picture.height},
        output=str(output),
        still=still,
        **report,
    )
    _show_costs(screen, report)
    _show_comparison(screen, report, stage.size)
    _show_video(screen, report)
    screen.line()
    checks = 2 + video.checks
    wrong = len(video.wrong) + sum(not still[name]["ok"] for name in ("sobel", "crc32"))
    screen.verdict(
        ok, f"{checks - wrong} of {plural(checks, 'result')} checked against zlib and numpy"
    )
    return exit_codes.OK if ok else exit_codes.FAILED


def _still(screen: Screen, stage: Stage) -> dict[str, dict[str, Any]]:
    """The picture itself: both services, each result checked here."""
    pair = stage.pairs[0]
    stage.paint(0, pair.source)
    edges = stage.call_sobel(pair)
    right = stage.edges_are_right(pair)
    checksum, equal = stage.call_crc32(pair)
    number = int.from_bytes(checksum.payload, "little")
    found = {
        "sobel": {"ok": right, "remote_us": edges.cost.remote_ns / 1000},
        "crc32": {"ok": equal, "remote_us": checksum.cost.remote_ns / 1000, "value": number},
    }
    took = duration(found["sobel"]["remote_us"])
    screen.line(
        f"sobel    {amount(sum(edges.written))} of edges in {took}, "
        f"{'as' if right else 'NOT as'} numpy computes them"
    )
    screen.line(
        f"crc32    {number:#010x} in {duration(found['crc32']['remote_us'])}, "
        f"{'as' if equal else 'NOT as'} zlib computes it"
    )
    return found


def _difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """Counters of this command's channel, during the video."""
    first, last = own_channel(before), own_channel(after)
    return {key: last[key] - first[key] for key in COUNTERS}


def _summary(costs: list[sbe.Cost]) -> dict[str, Any]:
    """What one transaction cost. Moving: all but the handler's own time."""
    count = len(costs)
    return {
        "transactions": count,
        "queue_us": summary_us([cost.queue_ns for cost in costs]),
        "remote_us": summary_us([cost.remote_ns for cost in costs]),
        "total_us": summary_us([cost.total_ns for cost in costs]),
        "moving_us": summary_us([cost.total_ns - cost.remote_ns for cost in costs]),
        "copied_bytes": round(sum(cost.copied_bytes for cost in costs) / count, 3),
        "synced_bytes": round(sum(cost.synced_bytes for cost in costs) / count, 3),
        "doorbells": round(sum(cost.doorbells for cost in costs) / count, 3),
    }


def _report(stage: Stage, video: Video, alone: Alone, counters: dict[str, int]) -> dict[str, Any]:
    packets = counters["frames_to_remote"] + counters["frames_from_remote"]
    doorbells = counters["doorbells_to_remote"] + counters["doorbells_from_remote"]
    frames = len(video.costs)
    return {
        "alone": _summary(alone.costs),
        "video": {
            **_summary(video.costs),
            "frames": frames,
            "in_flight": stage.in_flight,
            "seconds": round(video.seconds, 6),
            "frames_per_second": round(frames / video.seconds, 3),
            "packets": packets,
            "doorbells_both_ways": doorbells,
            "packets_per_doorbell": per_doorbell(packets, doorbells),
        },
        "pipe": {"frames": len(alone.pipe_ns), "moving_us": summary_us(alone.pipe_ns)},
        "checks": {"frames": video.checks, "wrong": video.wrong},
    }


def _show_costs(screen: Screen, report: dict[str, Any]) -> None:
    screen.title("One transaction: sobel of one frame")
    rows = []
    in_flight = report["video"]["in_flight"]
    for key, label in (("alone", "one at a time"), ("video", f"video, {in_flight} in flight")):
        for name, meaning in (
            ("queue_us", "waited in the ring"),
            ("remote_us", "at work in the remote"),
            ("total_us", "total, until taken"),
        ):
            times = report[key][name]
            shown = [duration(times[column]) for column in ("median", "mean", "p99")]
            rows.append((label, meaning, *shown))
            label = ""
    screen.table(("", "", ">median", ">mean", ">p99"), rows)
    alone, video = report["alone"], report["video"]
    copied, synced = (
        amount(max(alone[key], video[key])) for key in ("copied_bytes", "synced_bytes")
    )
    screen.line(
        f"{copied} copied, {synced} synced; doorbells rung here for each, on average: "
        f"{alone['doorbells']:.2f} one at a time, {video['doorbells']:.2f} in the video"
    )


def _show_comparison(screen: Screen, report: dict[str, Any], size: int) -> None:
    ours, pipe = report["alone"], report["pipe"]["moving_us"]["median"]
    moving, total = ours["moving_us"]["median"], ours["total_us"]["median"]
    copying = pipe + ours["remote_us"]["median"]
    gain = ratio(total, copying)
    screen.title(
        f"Beside a multiprocessing.Pipe (medians of {report['pipe']['frames']} frames, in turn)"
    )
    screen.table(
        ("", ">by reference", ">through a pipe", "by reference is"),
        (
            ("pixels through the kernel", amount(0), amount(2 * size), ""),
            ("frame there, result back", duration(moving), duration(pipe), ratio(moving, pipe)),
            ("the same, with sobel", duration(total), f"{duration(copying)} *", gain),
        ),
    )
    screen.line("* calculated: with the remote's time added, since the pipe's far end only copies")


def _show_video(screen: Screen, report: dict[str, Any]) -> None:
    video = report["video"]
    screen.title(
        f"Video: {plural(video['frames'], 'frame')} in {duration(video['seconds'] * 1e6)}, "
        f"{video['frames_per_second']:,.0f} frames/s"
    )
    shared = video["packets_per_doorbell"]
    screen.line(
        f"{plural(video['packets'], 'packet')} both ways with "
        f"{plural(video['doorbells_both_ways'], 'doorbell')}"
        + (f": {shared} packets per doorbell" if shared is not None else "")
    )
