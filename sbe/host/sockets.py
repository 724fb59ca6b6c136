"""Unix sockets by their paths: an address holds 107 bytes, and a path may have more."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator

from sbe import errors
from sbe.host.descriptors import socket_above_streams

__all__ = ["ADDRESS_MAX", "address", "connect", "listen", "unlisten"]

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


def connect(path: str, kind: int) -> socket.socket:
    """A socket to who listens at a path, which does not block. Raises OSError.

    `kind` is SOCK_STREAM or SOCK_SEQPACKET. Where too many wait to be accepted it is EAGAIN.
    """
    sock = socket_above_streams(socket.socket(socket.AF_UNIX, kind))
    try:
        sock.setblocking(False)
        with address(path) as name:
            sock.connect(name)
    except BaseException:
        sock.close()
        raise
    return sock


def listen(path: str, kind: int, backlog: int) -> socket.socket:
    """Listens at a path, for this user alone; a socket there that nobody listens at is replaced.

    `kind` is SOCK_STREAM or SOCK_SEQPACKET; accepting does not block. Raises Busy when somebody
    listens there, PermissionDenied, LinkError, OutOfResources.
    """
    with _named(f"listening at {path}"):
        sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)
        try:
            with address(path) as name:
                _bind(sock, name, path, kind)
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        finally:
            os.umask(before)
    return sock


@contextlib.contextmanager
def _named(step: str) -> Iterator[None]:
    """As errors.resources(), but for what is not permitted."""
    with errors.resources(step):
        try:
            yield
        except PermissionError as error:
            raise errors.PermissionDenied(f"{step}: {error.strerror}") from error


def _bind(sock: socket.socket, name: str, path: str, kind: int) -> None:
    try:
        sock.bind(name)
        return
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as probe:
        code = probe.connect_ex(name)
    stale = code == errno.ECONNREFUSED and stat.S_ISSOCK(os.lstat(name).st_mode)  # any file refuses
    if not stale:
        raise errors.Busy(
            f"{path} is taken ({'there is something else' if code else 'somebody listens there'}): "
            "choose another path"
        )
    os.unlink(path)
    sock.bind(name)


def unlisten(sock: socket.socket, path: str) -> None:
    """Ends that, and removes the path. Calling twice is fine."""
    if sock.fileno() < 0:
        return
    sock.close()
    with contextlib.suppress(OSError):
        os.unlink(path)
