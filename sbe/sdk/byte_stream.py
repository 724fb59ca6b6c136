"""ByteStream: the client of a service that is an ASG stream, over an area of the link."""

from __future__ import annotations

import contextlib
import itertools
import struct
from typing import TYPE_CHECKING

from sbe import _native, asg
from sbe.errors import Error, LinkClosed, LinkError, ProtocolError, WouldBlock
from sbe.sdk.core import Core
from sbe.sdk.timeouts import time_left

if TYPE_CHECKING:
    from sbe.sdk.area import Area

__all__ = ["ByteStream"]

_numbers = itertools.count(1)


def _asked(op: int, number: int, size: int = 0) -> bytes:
    return struct.pack("<4I", op, number, size, 0)


class ByteStream(asg.Client):
    """The client of a service that is an ASG stream: `Connection.open_asg()`. Threads: one at a
    time, `close()` by any. The end of the link or of the remote is raised by what waits.
    """

    def __init__(
        self,
        core: Core,
        channel: _native.Channel,
        service: int,
        area: Area,
        step: int,
        timeout: float | None,
    ) -> None:
        """Opens it at the remote; channel and area are its own."""
        self._core, self._channel, self._service, self._area = core, channel, service, area
        number = next(_numbers)
        self._bell = _asked(_native.ASG_RING, number)
        size = area.size - asg.STORAGE_BYTES
        super().__init__(area, size, self._ring_remote, step=step, timeout=timeout)
        self._open = self._channel.submit(
            service, (_native.Shared(area),), _asked(_native.ASG_OPEN, number, size)
        )

    def confirm(self, until: float) -> None:
        """That it is open, or why it is not."""
        try:
            self._channel.call(self._service, (), self._bell, time_left(until))
        except Error:
            if self._open.done():
                self._open.result(0)  # raises that
            raise
        if self._open.done():
            raise ProtocolError("is it an ASG stream? It answered at once what a stream keeps")

    def close(self) -> None:
        """Ends it at the remote, which touches no memory of it afterwards, and frees that."""
        if self._closed:
            return
        super().close()
        with contextlib.suppress(LinkError):
            # Its channel takes the stream along, and waits for no remote that is suspended.
            self._core.close_another(self._channel)
            self._core.free(self._area)

    def __del__(self) -> None:
        # Nothing is waited for: the collector runs in any thread and in the middle of anything.
        with contextlib.suppress(Exception):
            self._core.give_up_another(self._channel)

    def _ring_remote(self) -> None:
        # With no room there are doorbells that the remote has not heard yet.
        with contextlib.suppress(WouldBlock):
            self._channel.send(self._service, (), self._bell, None, False)

    def _remind(self) -> None:
        """Also for room: the remote has no other way to learn that a reply was read."""
        self._core.notice(self._channel)
        self._ring_remote()

    def _check_open(self) -> None:
        self._core.check_process()
        super()._check_open()
        if self._open.done():
            self._open.result(0)
            raise LinkClosed("the remote has ended the ASG stream")
