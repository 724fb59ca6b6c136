"""How one client is told that its remote was lost, or has come back, or has shut a channel."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from sbe.errors import resources
from sbe.host.descriptors import socket_above_streams

__all__ = ["LOST_OR_BACK", "SHUT", "Bell"]

_KERNEL_BYTES = 4096  # that may wait for a client which does not read; the rest is a number
_AT_ONCE = 1024

LOST_OR_BACK, SHUT = b"\0", b"\1"


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
        self._owed = {LOST_OR_BACK: 0, SHUT: 0}
        self._waiting = False
        self.rung = 0
        """How many bytes were sent, or are about to be."""

    def hand_over(self) -> int:
        """The descriptor of the client's end, once: the caller's from now on."""
        return self._theirs.detach()

    def ring(self, event: bytes = LOST_OR_BACK) -> None:
        """Sends a byte more, as soon as the client leaves room for it."""
        self.rung += 1
        self._owed[event] += 1
        if not self._waiting:
            self._send()

    def _send(self) -> None:
        try:
            for event, owed in self._owed.items():
                while owed:
                    owed -= self._socket.send(event * min(owed, _AT_ONCE))
                    self._owed[event] = owed
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # the client has closed its end
            self._forget()
        if any(self._owed.values()) == self._waiting:
            return
        self._waiting = not self._waiting
        if self._waiting:
            self._loop.add_writer(self._socket.fileno(), self._send)
        else:
            self._loop.remove_writer(self._socket.fileno())

    def _forget(self) -> None:
        self._owed = dict.fromkeys(self._owed, 0)

    def close(self) -> None:
        """Closes this end, and the other one if nobody has it. Twice is fine."""
        if self._waiting:
            self._waiting = False
            with contextlib.suppress(RuntimeError):  # the loop has gone first
                self._loop.remove_writer(self._socket.fileno())
        self._forget()
        self._socket.close()
        self._theirs.close()
