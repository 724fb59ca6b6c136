"""`sbe console`: what the firmware of an emulated board writes, live."""

from __future__ import annotations

import socket
import sys

import click

from sbe.cli.session import Session, common_options

__all__ = ["console"]


@click.command()
@click.argument("name")
@click.option("--follow/--no-follow", default=True, help="Stay, and show what comes.")
@common_options
@click.pass_obj
def console(session: Session, name: str, follow: bool) -> int:
    """Show the console of the board NAME. Ctrl-C ends it."""
    from sbe.boards import Resident

    board = Resident.find(name)
    log = board.directory / "console.log"
    live = None
    if follow and board.alive:
        live = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        live.connect(str(board.directory / "console"))  # before the log is read: nothing is missed
    _show(log.read_bytes() if log.exists() else b"")
    if live is not None:
        with live:
            while data := live.recv(4096):
                _show(data)
    return 0


def _show(data: bytes) -> None:
    """Firmware may write anything: only text reaches the terminal."""
    text = data.decode("ascii", errors="replace").replace("\r", "")
    sys.stdout.write("".join(c if c.isprintable() or c in "\n\t" else "?" for c in text))
    sys.stdout.flush()
