"""`sbe firmware`: the life cycle of co-processors, this machine's and emulated ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from sbe.cli.session import Session, common_options, daemon_of

if TYPE_CHECKING:
    from sbe.cli.cores import Core

__all__ = ["firmware"]

_DEFAULT_BOARD = "mps2-an521"


@click.group()
@click.pass_obj
def firmware(session: Session) -> None:
    """Load, start and stop the firmware of co-processors.

    NAME is a remote processor of this machine as `list` shows it (Linux' remoteproc), or an
    emulated board of this user, which `start` makes.
    """


def _find(name: str) -> Core:
    from sbe.cli import cores  # on use: the boards' code is heavy

    return cores.find(name)


@firmware.command()
@click.argument("name")
@click.option("--board", help=f"Emulate this board.  [default for a new NAME: {_DEFAULT_BOARD}]")
@click.option(
    "--image",
    help="The firmware: for a remote processor a name in /lib/firmware, for an emulated board a "
    "file. Default: what is loaded, or what `make firmware` built.",
)
@common_options
@click.pass_obj
def start(session: Session, name: str, board: str | None, image: str | None) -> int:
    """Start NAME; one that does not exist becomes an emulated board."""
    from sbe import errors
    from sbe.cli import cores

    core = None
    if board is None:
        try:
            core = cores.find(name)
        except errors.BadArgument:
            board = _DEFAULT_BOARD
    if core is None:
        return _tell(session, cores.start_board(name, board or _DEFAULT_BOARD, image))
    if image is not None:
        core.load(image)
    core.start()
    return _tell(session, core)


@firmware.command()
@click.argument("name")
@click.argument("image")
@common_options
@click.pass_obj
def load(session: Session, name: str, image: str) -> int:
    """Choose the firmware for the next start of NAME, which must be stopped.

    IMAGE is a name in /lib/firmware, or the file of an emulated board.
    """
    core = _find(name)
    core.load(image)
    return _tell(session, core)


def _verb(name: str, words: str, act: Callable[[Core], None]) -> None:
    @firmware.command(name, help=words)
    @click.argument("name")
    @common_options
    @click.pass_obj
    def command(session: Session, name: str) -> int:
        core = _find(name)
        act(core)
        return _tell(session, core)


_verb("stop", "Stop NAME.", lambda core: core.stop())
_verb("status", "Say how NAME is, with the crash record if it has one.", lambda core: None)
_verb("freeze", "Stop an emulated core where it is.", lambda core: core.act("freeze"))
_verb("thaw", "Let a frozen core go on.", lambda core: core.act("thaw"))
_verb("remove", "Forget an emulated board, RAM included.", lambda core: core.act("remove"))


@firmware.command()
@click.argument("name")
@common_options
@click.pass_obj
def reset(session: Session, name: str) -> int:
    """Begin a new life of the firmware of NAME, also where it hangs.

    An emulated board's core is reset, its RAM stays; a remote processor is stopped and started.
    NAME may be the daemon's link that --uri leads to as well: the daemon restarts its remote, if
    its policy lets you.
    """
    from sbe import errors

    try:
        core = _find(name)
    except errors.BadArgument as unknown:
        return _restart_link(session, name, unknown)
    core.reset()
    return _tell(session, core)


def _restart_link(session: Session, name: str, unknown: Exception) -> int:
    """Has the daemon do it; raises `unknown` where there is no daemon."""
    from sbe import errors

    with session.connect() as link:
        if daemon_of(link.stat()) is None:
            raise unknown
        listed = link.list()
        ours = [
            row["link"]
            for row in listed["contexts"]
            if (row["id"], row["pid"]) == (link.context, os.getpid())
        ]
        if ours != [name]:
            raise errors.BadArgument(f"{unknown}; the daemon's link is {ours[0]}")
        link.restart()
        (facts,) = (row for row in link.list()["links"] if row["name"] == name)
    screen = session.screen()
    screen.result(True, **facts)
    screen.line(f"{name}: {facts['remote']}, {facts['state']}, epoch {facts['epoch']:#010x}")
    return 0


@firmware.command()
@click.argument("name")
@common_options
@click.pass_obj
def log(session: Session, name: str) -> int:
    """Show what the firmware of NAME has written: trace buffers, or an emulated board's console."""
    screen = session.screen()
    core = _find(name)
    written = core.log()
    screen.result(True, name=core.name, log=written)
    for buffer, text in written.items():
        if len(written) > 1:
            screen.title(buffer)
        for line in text.splitlines():
            screen.line(line)
    if not written:
        screen.line(f"{core.name} has no trace buffer: it is {core.facts()['state']}")
    return 0


@firmware.command("list")
@common_options
@click.pass_obj
def list_(session: Session) -> int:
    """Show all remote processors of this machine and all emulated boards of this user."""
    from sbe.cli import cores

    screen = session.screen()
    rows = [core.facts() for core in cores.all_cores()]
    boards = [row for row in rows if row["kind"] == "emulated"]
    screen.result(
        True, boards=boards, processors=[row for row in rows if row["kind"] == "remoteproc"]
    )
    if not rows:
        screen.line("none (`sbe firmware start NAME` starts an emulated one)")
        return 0
    cores.show(screen, rows)
    return 0


def _tell(session: Session, core: Core) -> int:
    """Prints how a core is now."""
    from sbe.cli import cores

    screen = session.screen()
    facts = core.facts()
    screen.result(True, **facts)
    screen.line(f"{facts['name']}: {cores.describe(facts)}, {facts['state']}")
    screen.line(f"  firmware {facts['firmware']}")
    if facts["kind"] == "remoteproc":
        if facts["services"]:
            screen.line(f"  announces {cores.endpoints(facts)}")
        if not facts["recovery"]:
            screen.line("  stays down after a crash (recovery is disabled in sysfs)")
    elif facts["state"] in ("running", "frozen"):
        screen.line(f"  {facts['uri']}")
    if facts.get("crash") is not None:
        from sbe.transports.window import describe_crash

        screen.line(f"  {describe_crash(facts['crash'])}")
        for key, value in facts["crash"].items():
            if isinstance(value, int):
                screen.line(f"  {key:>12} {value:#010x}")
    return 0
