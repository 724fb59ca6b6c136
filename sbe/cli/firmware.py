"""`sbe firmware`: emulated boards, driven as a co-processor's life cycle is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sbe.cli.session import Session, common_options

__all__ = ["firmware"]


@click.group()
@click.pass_obj
def firmware(session: Session) -> None:
    """Start, stop, reset and freeze the firmware of emulated boards.

    `start` prints the URI by which any program reaches the board.
    """


@firmware.command()
@click.argument("name")
@click.option("--board", default="mps2-an521", show_default=True, help="Which board to emulate.")
@click.option(
    "--image",
    type=click.Path(),
    help="The firmware, an ELF file. Default: what `make firmware` built.",
)
@common_options
@click.pass_obj
def start(session: Session, name: str, board: str, image: str | None) -> int:
    """Load firmware into a new board called NAME."""
    from sbe.boards import Resident

    return _tell(session, Resident.start(name, board, image))


def _verb(name: str, words: str, act: Callable[[Any], None]) -> None:
    @firmware.command(name, help=words)
    @click.argument("name")
    @common_options
    @click.pass_obj
    def command(session: Session, name: str) -> int:
        from sbe.boards import Resident

        board = Resident.find(name)
        act(board)
        return _tell(session, board)


_verb("stop", "End the board NAME; its RAM stays.", lambda board: board.stop())
_verb("reset", "Reset the core of NAME; its RAM stays.", lambda board: board.reset())
_verb("freeze", "Stop the core of NAME where it is.", lambda board: board.freeze())
_verb("thaw", "Let the frozen core of NAME go on.", lambda board: board.thaw())
_verb("status", "Say how NAME is, with the crash record if it crashed.", lambda board: None)
_verb("remove", "End the board NAME and forget it, RAM included.", lambda board: board.remove())


@firmware.command("list")
@common_options
@click.pass_obj
def list_(session: Session) -> int:
    """Show all boards of this user."""
    from sbe.boards import Resident

    screen = session.screen()
    boards = Resident.all()
    rows = [
        {
            "name": each.name,
            "board": each.board,
            "state": each.state,
            "pid": each.pid,
            "uri": each.uri,
        }
        for each in boards
    ]
    screen.result(True, boards=rows)
    if not rows:
        screen.line("none (`sbe firmware start NAME` starts one)")
    else:
        screen.table(
            ("name", "board", "state", ">process", "URI"),
            (
                (row["name"], row["board"], row["state"], str(row["pid"]), row["uri"])
                for row in rows
            ),
        )
    return 0


def _tell(session: Session, board: Any) -> int:
    """Print how a board is now."""
    screen = session.screen()
    exists = (board.directory / "ram").exists()
    state = board.state if exists else "removed"
    crash = board.crash() if state == "crashed" else None
    screen.result(True, name=board.name, board=board.board, state=state, uri=board.uri, crash=crash)
    screen.line(f"{board.name}: {board.board}, {state}, process {board.pid}")
    if state in ("running", "frozen"):
        screen.line(f"  {board.uri}")
    if crash is not None:
        from sbe.transports.carveout import describe_crash

        screen.line(f"  {describe_crash(crash)}")
        for key, value in crash.items():
            if isinstance(value, int):
                screen.line(f"  {key:>10} {value:#010x}")
    return 0
