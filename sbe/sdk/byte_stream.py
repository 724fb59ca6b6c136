"""ByteStream: the client of a service that is an ASG stream, over an area of the link."""

from __future__ import annotations

import contextlib
import itertools
import struct
from typing import TYPE_CHECKING

from sbe import _native, asg
from sbe.errors import Busy, Error, LinkClosed, ProtocolError
from sbe.sdk.core import Core
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S, time_left

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
        self, core: Core, service: int, area: Area, step: int, timeout: float | None
    ) -> None:
        """Opens it at the remote; the area is its own."""
        self._core, self._service, self._area = core, service, area
        number = next(_numbers)
        self._bell = _asked(_native.ASG_RING, number)
        size = area.size - asg.STORAGE_BYTES
        super().__init__(area, size, self._ring_remote, step=step, timeout=timeout)
        self._channel = core.live_channel()
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
        self._open.cancel()
        with contextlib.suppress(Error):  # cancelled, or lost
            self._open.result(DEFAULT_TIMEOUT_S)
        # One that does not answer keeps its memory until it is reset.
        with contextlib.suppress(Busy, LinkClosed):
            self._core.free(self._area)

    def _ring_remote(self) -> None:
        self._channel.send(self._service, (), self._bell, self._timeout)

    def _remind(self) -> None:
        """Also for room: the remote has no other way to learn that a reply was read."""
        self._ring_remote()

    def _check_open(self) -> None:
        super()._check_open()
        if self._open.done():
            self._open.result(0)
            raise LinkClosed("the remote has ended the ASG stream")
