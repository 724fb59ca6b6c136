"""A remote of this machine that listens at a unix socket: `sbe serve`, or sbe-remote --socket."""

from __future__ import annotations

import os
import socket

from sbe import errors
from sbe.host import sockets
from sbe.remotes import Remote
from sbe.transports.seqpacket import SeqpacketTransport

__all__ = ["ListeningRemote"]


class ListeningRemote(Remote):
    """It has one host at a time; others wait until that has gone. Not thread-safe."""

    transport = "socket"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self.name = os.path.basename(self._path)
        self.uri = f"socket:{self._path}"

    def connect(self) -> SeqpacketTransport:
        """Connects. Raises LinkError where nobody listens."""
        with errors.resources(f"the remote at {self._path} (does it run?)"):
            return SeqpacketTransport(sockets.connect(self._path, socket.SOCK_SEQPACKET))

    @property
    def awaited(self) -> str | None:
        """It says nothing while it has another host."""
        return "it listens and does not answer: it may have another host, and has one at a time"

    def close(self) -> None:
        """Nothing is kept between lives."""
