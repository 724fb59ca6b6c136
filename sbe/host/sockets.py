"""Addresses of unix sockets: they hold 107 bytes, a path may have more."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

__all__ = ["ADDRESS_MAX", "address"]

ADDRESS_MAX = 107  # bytes of sun_path without its NUL (linux/un.h)


@contextlib.contextmanager
def address(path: str | os.PathLike[str]) -> Iterator[str]:
    """What bind() and connect() take for this path, inside the block.

    A path that is too long is shortened by way of a descriptor of its folder. Raises OSError, whose
    strerror says what is wrong with the path.
    """
    name = os.fspath(path)
    if not name or "\0" in name:
        raise OSError(errno.EINVAL, "this is no path of a socket", name)
    if len(os.fsencode(name)) <= ADDRESS_MAX:
        yield name
        return
    folder, last = os.path.split(name)
    fd = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{fd}/{last}"
        if len(os.fsencode(short)) > ADDRESS_MAX or not os.path.isdir(os.path.dirname(short)):
            raise OSError(
                errno.ENAMETOOLONG,
                f"this path has {len(os.fsencode(name))} bytes, the address of a unix socket holds "
                f"{ADDRESS_MAX}: choose a shorter one",
                name,
            )
        yield short
    finally:
        os.close(fd)
