"""A remote of your own: a program that this one starts, at the end of a socket pair.

    python examples/own_remote.py [PROGRAM ARGUMENT...]

The program gets `--control-fd N`; by default it is the remote of this package.
docs/tutorials/own-board.md goes through this file.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence

import sbe
from sbe import errors
from sbe.remotes import Remote
from sbe.remotes.process import RemoteProcess
from sbe.transports import Transport
from sbe.transports.seqpacket import SeqpacketTransport

_GOODBYE_S = 1.0  # it ends by itself when its connection has ended


class Simulator(Remote):
    """A program that speaks the loopback binding of docs/spec/control.md."""

    name = "simulator"
    transport = "simulator"

    def __init__(self, command: Sequence[str] = ()) -> None:
        self._command = [*command] or [str(RemoteProcess().path)]
        self.uri = f"simulator:{self._command[0]}"
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self) -> Transport:
        """End the former process, which so has let go of all memory, and start a new one."""
        self.close()
        with errors.resources(f"starting {self._command[0]}"):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                with theirs:
                    fd = theirs.fileno()
                    command = [*self._command, "--control-fd", str(fd)]
                    # In a session of its own: Ctrl-C in the terminal is for the application.
                    self._process = subprocess.Popen(
                        command, pass_fds=(fd,), stdin=subprocess.DEVNULL, start_new_session=True
                    )
            except BaseException:
                ours.close()
                raise
        return SeqpacketTransport(ours)

    def close(self) -> None:
        """End it and reap it. Twice is fine."""
        process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(_GOODBYE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def pid(self) -> int | None:
        """The process, for listings."""
        return self._process.pid if self._process is not None else None

    @property
    def exit_description(self) -> str | None:
        """How it ended, for the error that calls in flight end with."""
        status = self._process.poll() if self._process is not None else None
        return None if status is None else f"the simulator ended with status {status}"


def main() -> None:
    """Calls a service of the simulator."""
    with sbe.connect(Simulator(sys.argv[1:])) as link:
        area = link.allocate(1 << 20)
        area[:5] = b"hello"
        print(link.call("crc32", sbe.In(area[:5])).payload.hex())


if __name__ == "__main__":
    main()
