"""`sbe 9p export`: the remote reads a folder of Linux."""

from __future__ import annotations

import errno
import os
import struct
import time
import zlib
from pathlib import Path

import click

import sbe
from sbe.cli import exit_codes
from sbe.cli.figures import amount, duration, parse_size
from sbe.cli.session import Session, common_options

__all__ = ["export"]

_CHECK_S = 60.0
_CHECKED = "files"  # by which the remote's digest reads
_ANSWER = struct.Struct("<QIi")  # of digest: size, crc32, error


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--service", default="files", show_default=True, help="The name that firmware finds it by."
)
@click.option("--writable", is_flag=True, help="The remote may change what is there, too.")
@click.option(
    "--quota",
    metavar="SIZE",
    default="1G",
    show_default=True,
    help="With --writable: by how many bytes files may grow.",
)
@click.option(
    "--check",
    metavar="FILE",
    help="Have the remote read this file of DIR, compare what it got, and end.",
)
@common_options
@click.pass_obj
def export(
    session: Session, folder: str, service: str, writable: bool, quota: str, check: str | None
) -> int:
    """Let the remote read the files of DIR by 9P, until Ctrl-C.

    Its services reach them for every program of this user that calls them; nothing outside DIR,
    wherever links lead.
    """
    from sbe.ninep import Quota

    if check is not None and service != _CHECKED:
        raise click.UsageError(f"--check reads by the service {_CHECKED!r}, not by {service!r}")
    screen = session.screen()
    limits = Quota(written_bytes=parse_size(quota))
    with (
        session.connect() as link,
        link.export_9p(folder, service, writable=writable, quota=limits) as exported,
    ):
        if check is not None:
            return _check(session, link, Path(folder), check)
        how = f"may write, {amount(limits.written_bytes)} at most" if writable else "reads"
        screen.line(f"the remote of {link.uri} {how} {folder}, by the service {service!r}")
        while True:
            try:
                exported.share().result()
            except sbe.RemoteRestarted:
                screen.line("the remote restarted; exported again")
            except sbe.RemoteError as error:
                if error.code == errno.EEXIST:
                    raise sbe.Busy(
                        "another program of this user exports a folder to this remote: end that "
                        "first"
                    ) from error
                raise


def _check(session: Session, link: sbe.Connection, folder: Path, name: str) -> int:
    """Reads a file by the remote's service `digest` and here."""
    screen = session.screen()
    begun = time.perf_counter()
    reply = link.call("digest", payload=os.fsencode(name), timeout=_CHECK_S)
    took_us = (time.perf_counter() - begun) * 1e6
    if len(reply.payload) != _ANSWER.size:
        raise sbe.ProtocolError(
            f"the remote's service 'digest' answered {len(reply.payload)} bytes, not "
            f"{_ANSWER.size}: it is none that reads exported files"
        )
    size, crc, error = _ANSWER.unpack(reply.payload)
    if error:
        raise OSError(-error, _words(-error), name)
    content = (folder / name.lstrip("/")).read_bytes()
    ok = (size, crc) == (len(content), zlib.crc32(content))
    screen.verdict(
        ok, f"{name}: the remote read {amount(size)} in {duration(took_us)}, {crc:#010x}"
    )
    screen.result(ok, file=name, size_bytes=size, crc32=crc, took_us=round(took_us, 1))
    return exit_codes.OK if ok else exit_codes.FAILED


def _words(code: int) -> str:
    if code == errno.EXDEV:
        return "a link leads out of the folder: the remote may not read what it leads to"
    return os.strerror(code)
