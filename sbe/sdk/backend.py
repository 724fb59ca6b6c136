"""What the SDK needs of whoever holds the control side: this process itself, or the daemon."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sbe.errors import LinkError, RemoteRestarted
from sbe.link.grants import ChannelGrant, Grant, RawGrant
from sbe.link.rings import Geometry

if TYPE_CHECKING:
    from sbe.link.power import OnPower
    from sbe.link.raw import RawMatch, RawMessage

__all__ = ["Backend", "Service", "lost", "process_name"]


_COMM_MAX = 15  # bytes of a process's name, as the kernel keeps it


class Service(NamedTuple):
    """A named handler at the other end."""

    id: int
    name: str
    version: int


class Backend(Protocol):
    """Control operations, serialised by the connection that owns the backend. Connecting has to end
    by the `until` that its maker gives.

    Every method may raise `sbe.Error`; none blocks longer than its own bound.
    """

    uri: str
    context: int
    until: float
    """`time.monotonic()` by which what is asked ends, if its own bound is not sooner; Timeout."""
    limits: dict[str, int]

    @property
    def control_fd(self) -> int:
        """Readable when `process_control()` should run."""

    def process_control(self) -> LinkError | None:
        """Takes what happened; an error when the channels have died by it."""

    def recover(self) -> None:
        """Makes the link usable again after a loss; areas keep their ids."""

    def allocate(self, size_bytes: int, heap: str | None) -> Grant:
        """Allocates and registers memory; the descriptors are the receiver's."""

    def regions(self) -> dict[str, int]:
        """Bytes of each region that the remote owns and offers, by name."""

    def open_region(self, name: str) -> Grant:
        """Registers one of them, to be read."""

    def free(self, area: int) -> None:
        """Unregisters memory; returns once the remote has let go."""

    def open_channel(self, geometry: Geometry, priority: int) -> ChannelGrant:
        """Opens a channel of the context; the rings' descriptors are the receiver's."""

    def close_channel(self, channel: int) -> None:
        """Gives back a channel that can't be used. Does not wait."""

    def find_service(self, name: str, version: int) -> Service:
        """A service of the remote, at least of that version."""

    def services(self) -> list[Service]:
        """All services of the remote."""

    def serve(self, name: str, version: int) -> int:
        """Offers a service of this end to the remote; its id."""

    def unserve(self, name: str) -> None:
        """Withdraws it."""

    def open_raw(self, endpoint: str, match: RawMatch) -> RawGrant:
        """Opens an endpoint of firmware that has messages of its own; the descriptor is the
        receiver's.
        """

    def send_raw(self, raw: int, message: RawMessage) -> None:
        """Sends a message over one. WouldBlock: there is no room now."""

    def settle_raw(self, raw: int, number: int) -> None:
        """A message was answered, as the application has found."""

    def close_raw(self, raw: int) -> None:
        """Ends one, once all is answered. Does not wait."""

    def request_power(self, request: str, khz: int, timeout_s: float) -> None:
        """Asks the remote to "suspend", "resume" or for a "frequency", and waits for its answer."""

    def listen_power(self, on_power: OnPower | None) -> None:
        """Who is told what the remote asks. BadArgument where somebody else is."""

    def restart(self) -> None:
        """Ends the remote, which `recover()` finds started anew. Raises where nobody can, or may
        not; then nothing has happened.
        """

    def describe(self) -> dict[str, Any]:
        """Links, contexts, areas, channels and services, as far as this client may know."""

    def usage(self) -> dict[str, Any]:
        """What the control side counts."""

    def close(self) -> None:
        """Ends the context; in a forked child closes its descriptors only. Never raises."""


def lost(how: str) -> RemoteRestarted:
    """What calls in flight end with when the remote is lost; `how` in words, "" not known."""
    said = f" ({how})" if how else ""
    return RemoteRestarted(f"the remote died or restarted{said}; the call may have run or not")


def process_name() -> str:
    """What this process is called, for listings."""
    with (
        contextlib.suppress(OSError),  # there may be no /proc
        open("/proc/self/comm", encoding="utf-8", errors="replace") as comm,
    ):
        return comm.read().strip()
    return os.path.basename(sys.argv[0] or sys.executable)[:_COMM_MAX] or "python"
