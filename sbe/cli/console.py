"""`sbe console`: what the firmware of an emulated board writes, live."""

from __future__ import annotations

import contextlib
import socket
import sys

import click

from sbe.cli.session import Session, common_options
from sbe.host.sockets import address

__all__ = ["console"]


@click.command()
@click.argument("name")
@click.option("--follow/--no-follow", default=True, help="Stay, and show what comes.")
@common_options
@click.pass_obj
def console(session: Session, name: str, follow: bool) -> int:
    """Show the console of the board NAME. Ctrl-C ends it."""
    from sbe import errors
    from sbe.remotes.boards import Resident

    board = Resident.find(name)
    log = board.directory / "console.log"
    live = None
    if follow and board.alive:
        live = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address(board.directory / "console") as place:
                live.connect(place)  # before the log is read: nothing is missed
        except OSError as error:
            live.close()
            raise errors.LinkError(f"the console of {name}: {error.strerror}") from error
    with contextlib.suppress(FileNotFoundError), log.open("rb") as written:
        left = log.stat().st_size  # firmware may write faster than this is shown
        while left > 0 and (data := written.read(min(left, 1 << 20))):
            _show(data)
            left -= len(data)
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
