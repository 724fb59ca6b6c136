"""What a remote is and has: looked at once, before the tests that depend on it."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import Any, Final

import sbe
from sbe.testing.conformance.parts import STANDARD, Connector

__all__ = ["CONNECT_S", "survey"]

CONNECT_S: Final = 10.0  # for connecting and each control operation; less if a test may take less
_MIB: Final = 1 << 20
_CLOCK_ERROR: Final = 0.1  # between two clocks, of which one may be calibrated in a hurry


def survey(uri: str | None, timeout: float) -> Connector:
    """The remote behind a URI. Raises LinkError if there is none, UnknownService if it has nothing
    that the suite could call."""
    patience = min(CONNECT_S, timeout)

    def connect(**how: Any) -> sbe.Connection:
        return sbe.connect(uri, **{"timeout": patience, **how})

    with connect() as link:
        name = str(link.list()["links"][0]["remote"])
        offered = {service.name for service in link.services()}
        if not offered & STANDARD:
            raise sbe.UnknownService(
                f"{name} offers {', '.join(sorted(offered)) or 'no service'}, and the conformance "
                f"suite calls {', '.join(sorted(STANDARD))}: give it at least echo",
                errno.ENOENT,
            )
        room = _largest_area(link)
    slots, slot_bytes = _largest_rings(connect)
    return Connector(
        name,
        connect,
        services=frozenset(offered & STANDARD),
        tells_written=name.partition(" ")[0] not in ("sbe.testing", "sbe.serve"),
        coherent=False,
        large_bytes=room,
        rings_bytes=2 * room,
        clock_error=_CLOCK_ERROR,
        slots=slots,
        slot_bytes=slot_bytes,
    )


def _largest_area(link: sbe.Connection) -> int:
    for size in (16 * _MIB, 8 * _MIB, 4 * _MIB, 2 * _MIB, _MIB):
        try:
            link.allocate(size).free()
        except sbe.LinkError:
            raise
        except sbe.Error:
            continue
        return size
    return 0


def _largest_rings(connect: Callable[..., sbe.Connection]) -> tuple[int, int]:
    """Frames of a ring, and bytes of each: told to who asks for more than any link has."""
    try:
        connect(slots=1 << 16, slot_size=1 << 16).close()
    except sbe.BadArgument as error:
        if told := re.search(r"allows (\d+) slots of (\d+) bytes", str(error)):
            return int(told[1]), int(told[2])
        raise
    return 1 << 16, 1 << 16
