"""How one client is told that its remote was lost, or has come back."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from sbe.errors import resources
from sbe.host.descriptors import socket_above_streams

__all__ = ["Bell"]

_KERNEL_BYTES = 4096  # that may wait for a client which does not read; the rest is a number
_AT_ONCE = 1024


class Bell:
    """A byte for each event, over a pair of sockets. Not thread-safe: it belongs to the loop.

    Each end of a pair has flags and a queue of its own. So whatever the client does to its end, a
    write here never waits, and one that reads nothing costs a few KiB and a number. An eventfd is
    one open file for all who hold it: its holders can make each other's writes wait for ever.
    """

    def __init__(self) -> None:
        with resources("making a bell"):
            self._socket, self._theirs = map(socket_above_streams, socket.socketpair())
        self._socket.setblocking(False)
        self._theirs.setblocking(False)
        self._socket.shutdown(socket.SHUT_RD)  # nobody listens to what a client says here
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
        self._loop = asyncio.get_running_loop()
        self._owed = 0  # not 0: the loop waits for room
        self.rung = 0
        """How many bytes were sent, or are about to be."""

    def hand_over(self) -> int:
        """The descriptor of the client's end, once: the caller's from now on."""
        return self._theirs.detach()

    def ring(self) -> None:
        """Sends a byte more, as soon as the client leaves room for it."""
        self.rung += 1
        self._owed += 1
        if self._owed == 1:
            self._send()

    def _send(self) -> None:
        try:
            while self._owed:
                self._owed -= self._socket.send(b"\0" * min(self._owed, _AT_ONCE))
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._socket.fileno(), self._send)
            return
        except OSError:  # the client has closed its end
            self._owed = 0
        self._loop.remove_writer(self._socket.fileno())

    def close(self) -> None:
        """Closes this end, and the other one if nobody has it. Twice is fine."""
        if self._owed:
            self._owed = 0
            with contextlib.suppress(RuntimeError):  # the loop has gone first
                self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._theirs.close()
