"""A co-processor behind the kernel's rpmsg.

Nothing is found by number: the remote is known by the name of its remote processor and the channel
it announces, both of which survive a restart.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from sbe import _native, errors
from sbe.heaps import Heap, dmabuf
from sbe.heaps.carveout import CarveoutHeap
from sbe.heaps.memfd import MemfdHeap
from sbe.kernel import importer, remoteproc, rpmsg, uio
from sbe.remotes import Memory, Remote
from sbe.transports.rpmsg import RpmsgEndpoint, RpmsgTransport
from sbe.transports.standin import StandIn

__all__ = ["CONTROL", "DOORBELL", "Arena", "RpmsgRemote"]

CONTROL = "sbe-control"  # what the remote announces
DOORBELL = "sbe-doorbell"
_REMOVAL_S = 1.0  # the kernel takes milliseconds to remove the devices of a remote that is gone
_ANNOUNCEMENT_S = 5.0  # of a core that was started: it takes milliseconds
_NODES = "sbe"  # names of our nodes begin so

_numbers = itertools.count(1)


def _unique(purpose: str) -> str:
    return f"{_NODES}-{purpose}-{os.getpid()}-{next(_numbers)}"[:31]


class Arena(NamedTuple):
    """Reserved memory in a file or device: `size` bytes from `offset` of it, or of its map `map`
    where it is a UIO device. `address` is the remote's of the first of them.
    """

    memory: str
    offset: int
    size: int
    address: int
    map: int | None = None


class RpmsgRemote(Remote):
    """A remote behind the kernel's rpmsg, whose life is the kernel's matter.

    `processor` is the remote processor's name ("m33" of a device tree), or None on a machine with
    only one remote that speaks this protocol. `coherent`: it sees the processor's caches. `heaps`
    names those that areas may come from, the first choice first, None all; together they give out
    `budget_bytes` at most, by default half of the machine's memory. `carveouts` adds reserved
    memory that can be mapped, by name, as heaps of their own that are chosen first. `rings` lie in
    "coherent" memory, or their frames travel as "messages"; None: as messages if there is none.
    `raw`: the firmware does not know this protocol, and has endpoints of its own only.
    """

    transport = "rpmsg"

    def __init__(
        self,
        processor: str | None = None,
        *,
        coherent: bool = True,
        heaps: Sequence[str] | None = None,
        carveouts: Mapping[str, Arena] | None = None,
        budget_bytes: int | None = None,
        rings: Literal["coherent", "messages"] | None = None,
        raw: bool = False,
    ) -> None:
        self._raw = raw
        self._eldest: Callable[[], int] = lambda: -1  # descriptor of the life's first endpoint
        self._rings = rings
        self._processor = processor
        self._coherent = coherent
        self._heaps = heaps
        self._budget = dmabuf.Budget(budget_bytes)
        self._places = carveouts or {}
        self._arenas: dict[str, CarveoutHeap] = {}
        self._dying, self._dying_until_s = 0, 0.0  # a channel that the kernel is removing
        self.name = processor or "rpmsg"
        how = "raw" if raw else "messages" if rings == "messages" else ""
        self.uri = f"rpmsg:{processor or ''}{',' if how else ''}{how}"

    @property
    def device(self) -> str:
        """The platform device that reads and writes shared memory, "" unknown."""
        service = self._first()
        return remoteproc.find(service.remote).device if service.remote else ""

    def connect(self) -> RpmsgTransport | StandIn:
        """Opens an endpoint to the control channel, `raw` to any. Raises LinkError with what is
        missing.

        Or that the former one has not left yet: an endpoint made under a control node that is
        being removed outlives it, hears nothing and does not end (Linux 6.12), and 6.1 warns of
        a device without release().
        """
        service = self._first()
        life = service.life
        if life == self._dying and time.monotonic() < self._dying_until_s:
            raise errors.LinkError(
                f"the kernel is still removing {service.name!r} of {service.remote or self.name}, "
                "which stopped or crashed",
                errno.ENODEV,
            )
        rpmsg.reap(_NODES)
        fd = rpmsg.create_endpoint(service.control, _unique("control"), service.destination)
        name = self._processor or service.remote or "the remote"

        def on_gone() -> None:
            self._dying, self._dying_until_s = life, time.monotonic() + _REMOVAL_S

        if self._raw:
            endpoint = RpmsgEndpoint(fd, name, on_gone=on_gone)
            self._eldest = endpoint.fileno
            return StandIn(name, endpoint)
        try:
            transport = RpmsgTransport(fd, name, self.open_doorbell, on_gone)
        except BaseException:
            rpmsg.destroy_endpoint(fd)
            raise
        self._eldest = transport.endpoint_fd
        return transport

    def restart(self) -> None:
        """Stops the remote processor and starts it, which sysfs has to permit this user.

        It runs before it announces itself: that is waited for, a while. `connect()` says what is
        missing then. Raises PermissionDenied, LinkError, Busy when somebody else keeps it running.
        """
        processor = remoteproc.find(self._processor or self._first().remote)
        processor.restart()
        until_s = time.monotonic() + _ANNOUNCEMENT_S
        while time.monotonic() < until_s and not self._announces(processor.entry):
            time.sleep(0.005)

    def _announces(self, entry: str) -> bool:
        """All that is needed to connect."""
        if self._raw:
            return bool(rpmsg.services(None, entry))
        return all(rpmsg.services(name, entry) for name in (CONTROL, DOORBELL))

    def open_endpoint(self, name: str) -> RpmsgEndpoint:
        """An endpoint to the channel of this name; the firmware answers its address."""
        service = self._find(name)
        if name in (CONTROL, DOORBELL):
            raise errors.BadArgument(f"{name!r} is this protocol's own")
        fd = rpmsg.create_endpoint(service.control, _unique("raw"), service.destination)
        return RpmsgEndpoint(
            fd,
            service.remote or self.name,
            self._eldest(),
            name=name,
            address=service.destination,
        )

    def open_doorbell(self) -> int:
        """Returns an endpoint's descriptor to the remote's doorbells, not bound; the caller's."""
        service = self._find(DOORBELL)
        return rpmsg.create_endpoint(service.control, _unique("doorbell"), service.destination)

    @property
    def memory(self) -> Memory:
        """What its device reaches: carve-outs, what the kernel offers, coherent memory.

        Raises LinkError for a heap that was asked for by name and is not there.
        """
        if self._by_messages:  # rings are memory of this end alone
            slot_size_max = None if self._raw else _native.MIRROR_SLOT_MAX
            return Memory(self._heaps_there(), MemfdHeap(), slot_size_max)
        return Memory(self._heaps_there(), self._coherent_heap)

    def close(self) -> None:
        """Lets go of carve-outs; the remote lives on."""
        while self._arenas:
            self._arenas.popitem()[1].close()

    def _heaps_there(self) -> dict[str, Heap]:
        for name, place in self._places.items():
            if name not in self._arenas:  # they know what is allocated: one for all contexts
                self._arenas[name] = _open_arena(name, place)
        there: dict[str, Heap] = {
            **{arena.name: arena for arena in self._arenas.values()},
            **dmabuf.published(self.device, coherent=self._coherent, budget=self._budget),
        }
        if importer.available():
            there["coherent"] = self._coherent_heap
        if self._heaps is None:
            return there
        for name in self._heaps:
            numbered = dmabuf.ion_heap(
                name, self.device, coherent=self._coherent, budget=self._budget
            )
            if numbered is not None and name not in there and importer.available():
                there[name] = numbered
        missing = [name for name in self._heaps if name not in there]
        if missing:
            raise errors.LinkError(
                f"no heap {' and no heap '.join(missing)} for {self.name} on this machine; there "
                f"are: {', '.join(there) or 'none, is the module sbe_dmabuf loaded?'}",
                errno.ENODEV,
            )
        return {name: there[name] for name in self._heaps}

    @property
    def _by_messages(self) -> bool:
        return (
            self._raw
            or self._rings == "messages"
            or (self._rings is None and not importer.available())
        )

    @property
    def _coherent_heap(self) -> dmabuf.CoherentHeap:
        return dmabuf.CoherentHeap(self.device)

    def _first(self) -> rpmsg.Service:
        """What the link itself goes over."""
        if not self._raw:
            return self._find(CONTROL)
        found = rpmsg.services(None, self._entry)
        if not found:
            raise self._missing("anything")
        return self._one({service.remote: service for service in reversed(found)}, "channels")

    def _find(self, name: str) -> rpmsg.Service:
        found = rpmsg.services(name, self._entry)
        if not found:
            raise self._missing(repr(name))
        return self._one({service.path.name: service for service in found}, name)

    @property
    def _entry(self) -> str | None:
        return remoteproc.find(self._processor).entry if self._processor else None

    @staticmethod
    def _one(found: Mapping[str, rpmsg.Service], announced: str) -> rpmsg.Service:
        if len(found) > 1:
            names = ", ".join(service.remote for service in found.values())
            raise errors.LinkError(
                f"several remotes announce {announced}: {names}; name one of them"
            )
        return next(iter(found.values()))

    def _missing(self, announced: str) -> errors.LinkError:
        if self._processor is None:
            return errors.LinkError(
                f"no remote processor announces {announced} on rpmsg: `sbe firmware list` shows "
                "which there are and how they are, `sbe firmware start NAME` starts one",
                errno.ENODEV,
            )
        entry = remoteproc.find(self._processor)
        state = entry.state
        hint = f"`sbe firmware start {entry.name}` starts it"
        if state in ("running", "attached"):
            hint = f"its firmware is another one, or waits: see `sbe firmware log {entry.name}`"
        return errors.LinkError(
            f"remote processor {self._processor}, which is {state}, does not announce {announced} "
            f"on rpmsg: {hint}",
            errno.ENODEV,
        )


def _open_arena(name: str, place: Arena) -> CarveoutHeap:
    """Raises LinkError with what stands in the way, BadArgument for a map that there isn't."""
    path, offset, size = place.memory, place.offset, place.size
    arena = f"carveout:{name}: {path}"
    fd = -1
    try:
        # O_SYNC: /dev/mem maps memory that is not cached then; UIO always does.
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_SYNC)
        there = os.fstat(fd).st_size if os.path.isfile(path) else offset + size
        if there >= offset + size:
            at, _ = uio.place(fd, path, place.map, offset, size)
            return CarveoutHeap(fd, at, size, address=place.address, name=f"carveout:{name}")
    except OSError as error:
        raise errors.LinkError(f"{arena} can't be mapped: {error.strerror}") from error
    finally:
        if fd >= 0:
            os.close(fd)
    raise errors.LinkError(f"{arena} has {there} bytes, {offset + size} are needed")
