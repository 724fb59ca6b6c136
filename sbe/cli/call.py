"""`sbe call`: any service, from a shell."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import sbe
from sbe.cli.arguments import (
    INPUT_MAX,
    PAYLOAD_MAX,
    hex_dump,
    pack,
    parse_output,
    read_data,
    write_file,
)
from sbe.cli.figures import duration
from sbe.cli.screen import Screen
from sbe.cli.session import Session, common_options

__all__ = ["call"]

_LINE = 4096  # where buffers begin in their area: no two share a cache line or a page
_JSON_BYTES = 4096  # of a result that goes to no file
_COST = ("copied_bytes", "synced_bytes", "doorbells", "queue_ns", "remote_ns", "total_ns")


@dataclass
class _Buffer:
    """A buffer of the call. `file`: where its result goes."""

    direction: type[sbe.Buffer]
    size: int
    data: bytes = b""
    file: Path | None = None
    offset: int = 0

    @property
    def is_result(self) -> bool:
        return self.direction is not sbe.In


class _OrderedCommand(click.Command):
    """Remembers in which order --in, --out and --inout came; click itself groups them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta["sbe.buffers"] = [
            param.name for param in order if param.name in ("ins", "outs", "inouts")
        ]
        return super().parse_args(ctx, args)


def _complete(ctx: click.Context, param: click.Parameter, prefix: str) -> list[CompletionItem]:
    session = ctx.find_object(Session) or Session()
    try:
        with session.connect(2.0) as link:
            names = [service.name for service in link.services()]
    except (sbe.Error, OSError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(prefix)]


@click.command(cls=_OrderedCommand)
@click.argument("service", shell_complete=_complete)
@click.argument("values", nargs=-1)
@click.option("--in", "ins", multiple=True, metavar="DATA", help="A buffer the remote reads.")
@click.option(
    "--out",
    "outs",
    multiple=True,
    metavar="[FILE:]N",
    help="A buffer of N bytes the remote writes; into FILE, else it is shown.",
)
@click.option(
    "--inout",
    "inouts",
    multiple=True,
    metavar="DATA",
    help="A buffer the remote reads and writes; a file is replaced by the result.",
)
@click.option("--payload", metavar="DATA", help="The bytes of the message itself.")
@click.option(
    "--struct", "form", metavar="FORMAT", help="Pack VALUES into the payload, as Python's struct."
)
@click.option("--unpack", metavar="FORMAT", help="Show the reply's payload as numbers.")
@click.option("--raw", is_flag=True, help="Print the reply's payload as it is and nothing else.")
@click.option(
    "-W",
    "--timeout",
    type=click.FloatRange(min=0.001),
    default=30.0,
    show_default=True,
    help="Seconds to connect and to wait for the reply.",
)
@common_options
@click.pass_context
def call(ctx: click.Context, /, service: str, **options: Any) -> int:
    """Call SERVICE with buffers and a payload.

    DATA is a file's name, - for standard input, hex:0102ff or text:hello. Buffers go in the order
    in which they stand here. Negative VALUES stand behind --.

    \b
      sbe call crc32 --in photo.jpg --unpack '<I'
      sbe call sobel --in grey.raw --out edges.raw:307200 --struct '<II' 640 480
    """
    session = ctx.ensure_object(Session)
    if options["raw"] and session.json:
        raise click.UsageError("--raw and --json exclude each other", ctx)
    payload = _payload(ctx, options["payload"], options["form"], options["values"])
    if options["unpack"] is not None:
        _check_format(options["unpack"])
    buffers = _buffers(ctx, options)
    until = time.monotonic() + options["timeout"]
    with session.connect(options["timeout"]) as link:
        try:
            left = max(until - time.monotonic(), 0.0)
            reply = _call(link, service, buffers, payload, left)
        except sbe.MessageTooLarge as error:
            raise sbe.BadArgument(
                f"{len(payload)} bytes of payload and {len(buffers)} buffers do not fit one frame "
                f"of {link.slot_size} bytes; large data go into a buffer, --in DATA"
            ) from error
    screen = session.screen()
    if options["raw"]:
        screen.raw(reply.payload)
        return 0
    values = _unpacked(options["unpack"], reply.payload)
    _print_json(screen, service, reply, buffers, values)
    _print_text(screen, reply, buffers, values)
    return 0


def _payload(
    ctx: click.Context, payload: str | None, form: str | None, values: tuple[str, ...]
) -> bytes:
    if form is None and values:
        raise click.UsageError(
            f"{values[0]!r}: values need --struct FORMAT; buffers --in, --out or --inout", ctx
        )
    if form is not None and payload is not None:
        raise click.UsageError("--payload and --struct exclude each other", ctx)
    if form is not None:
        return pack(form, values)
    if payload is None:
        return b""
    return read_data(payload, PAYLOAD_MAX, "large data go into a buffer, --in DATA")


def _check_format(form: str) -> None:
    try:
        struct.calcsize(form)
    except struct.error as error:
        raise sbe.BadArgument(f"--unpack {form!r}: {error}") from None


def _buffers(ctx: click.Context, options: dict[str, Any]) -> list[_Buffer]:
    found = []
    left = INPUT_MAX
    given = {name: iter(options[name]) for name in ("ins", "outs", "inouts")}
    for name in ctx.meta["sbe.buffers"]:
        text = next(given[name])
        if name == "outs":
            output = parse_output(text)
            found.append(_Buffer(sbe.Out, output.size, file=output.file))
            continue
        data = read_data(text, left, "take a part, as `head -c 1M FILE | sbe call ... --in -` does")
        left -= len(data)
        if name == "ins":
            found.append(_Buffer(sbe.In, len(data), data))
        else:
            is_file = text != "-" and not text.startswith(("hex:", "text:"))
            file = Path(text.removeprefix("file:")) if is_file else None
            found.append(_Buffer(sbe.InOut, len(data), data, file))
    return found


def _call(
    link: sbe.Connection, service: str, buffers: list[_Buffer], payload: bytes, timeout: float
) -> sbe.Reply:
    """All buffers lie in one area, so all go by reference; afterwards `data` is the result."""
    found = link.find(service)  # before any memory is taken for a service that is not there
    end = 0
    for buffer in buffers:
        buffer.offset = end
        end += -(-max(buffer.size, 1) // _LINE) * _LINE
    if not buffers:
        return link.call(found, payload=payload, timeout=timeout)
    with link.allocate(end) as area:
        places = [area[item.offset : item.offset + item.size] for item in buffers]
        for item, place in zip(buffers, places, strict=True):
            if item.data:
                place[:] = item.data
        references = [item.direction(place) for item, place in zip(buffers, places, strict=True)]
        reply = link.call(found, *references, payload=payload, timeout=timeout)
        results = [item for item in buffers if item.is_result]
        for item, written in zip(results, reply.written, strict=True):
            item.data = bytes(area[item.offset : item.offset + written])
    for item in results:
        if item.file is not None:
            write_file(item.file, item.data)
    return reply


def _unpacked(form: str | None, payload: bytes) -> list[Any] | None:
    if form is None:
        return None
    try:
        values = struct.unpack(form, payload)
    except struct.error:
        raise sbe.RemoteError(
            f"the reply has {len(payload)} bytes, --unpack {form!r} takes {struct.calcsize(form)}"
        ) from None
    return [value.hex() if isinstance(value, bytes) else value for value in values]


def _print_json(
    screen: Screen, service: str, reply: sbe.Reply, buffers: list[_Buffer], values: list[Any] | None
) -> None:
    outputs = [
        {
            "index": index,
            "written": len(item.data),
            "file": None if item.file is None else str(item.file),
            "hex": item.data[:_JSON_BYTES].hex() if item.file is None else None,
        }
        for index, item in enumerate(buffers)
        if item.is_result
    ]
    screen.result(
        True,
        service=service,
        payload=reply.payload.hex(),
        values=values,
        outputs=outputs,
        cost={name: getattr(reply.cost, name) for name in _COST},
    )


def _print_text(
    screen: Screen, reply: sbe.Reply, buffers: list[_Buffer], values: list[Any] | None
) -> None:
    if values is not None:
        screen.line(" ".join(map(str, values)))
    elif reply.payload:
        screen.line(f"payload, {len(reply.payload)} bytes:")
        for line in hex_dump(reply.payload, 1 << 16):
            screen.line(line)
    for index, item in enumerate(buffers):
        if not item.is_result:
            continue
        if item.file is not None:
            screen.line(f"buffer {index}: {len(item.data):,} bytes written to {item.file}")
            continue
        screen.line(f"buffer {index}: {len(item.data):,} of {item.size:,} bytes written")
        for line in hex_dump(item.data):
            screen.line(line)
    cost = reply.cost
    screen.line(
        f"cost: {duration(cost.total_ns / 1000)} (queue {duration(cost.queue_ns / 1000)}, "
        f"remote {duration(cost.remote_ns / 1000)}), {cost.copied_bytes:,} bytes copied, "
        f"{cost.synced_bytes:,} synced, doorbells {cost.doorbells}"
    )
