"""One connection of the daemon: its context at a remote, and what it holds there."""

from __future__ import annotations

import asyncio
import errno
import logging
import mmap
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from sbe import _native
from sbe.daemon.bell import Bell
from sbe.daemon.config import Quota
from sbe.daemon.policy import Accounts, Charge, Peer, Policy
from sbe.daemon.supervisor import Supervisor
from sbe.errors import BadArgument, Error, LinkClosed
from sbe.link.context import HostContext
from sbe.link.grants import ChannelGrant, Grant, RawGrant
from sbe.link.link import ServiceInfo
from sbe.link.offers import Offers
from sbe.link.power import PowerRequest
from sbe.link.raw import IN_FLIGHT_MAX, RawMatch, RawMessage
from sbe.link.rings import DEFAULT_GEOMETRY, Geometry

__all__ = ["WAIT_SECONDS", "Broker", "Client"]

_log = logging.getLogger(__name__)

WAIT_SECONDS = 8.0  # for a remote that is not connected; clients wait for longer, and hear why
_SERVICES_MAX = 64  # that one context may offer


@dataclass
class Broker:
    """What all connections share. Not thread-safe: it belongs to the loop."""

    remotes: dict[str, Supervisor]
    policy: Policy
    accounts: Accounts = field(default_factory=Accounts)
    clients: set[Client] = field(default_factory=set)

    def remote(self, name: str | None) -> Supervisor:
        """Returns the link of this name, or the first."""
        if name is None:
            return next(iter(self.remotes.values()))
        if name not in self.remotes:
            raise BadArgument(
                f"no link {name!r}; there are: {', '.join(self.remotes)}", errno.ENODEV
            )
        return self.remotes[name]


class Client:
    """One connection. Its operations come one at a time, the end of the connection at any time.

    Not thread-safe: it belongs to the loop. What it holds is charged to the user of its peer and
    stays charged until the remote has let go of it, also after the connection has ended.
    """

    def __init__(self, peer: Peer, quota: Quota, broker: Broker) -> None:
        self.peer = peer
        self.quota = quota
        self.name = ""
        self.remote: Supervisor | None = None
        self.context: HostContext | None = None
        self.offers = Offers(_SERVICES_MAX)
        """Services of this context."""
        self._broker = broker
        self._bell: Bell | None = None
        self._charges: list[Charge] = []
        self._area_charges: dict[int, Charge] = {}
        self._channel_charges: dict[int, Charge] = {}
        self._busy = asyncio.Lock()
        self._gone = False
        self._waiting: asyncio.Task[None] | None = None  # for a remote

    # -- the context's life --------------------------------------------------------------------

    async def open(
        self, name: str, link: str | None, seconds: float | None = None
    ) -> tuple[Supervisor, HostContext, int]:
        """Creates the context: the remote, the context, and the client's end of its bell, which is
        the caller's. Timeout after so many seconds; None: as long as the remote is waited for.
        """
        begun = time.monotonic()
        async with self._busy:
            self._check_here()
            if self.context is not None:
                raise BadArgument("Open was called before: one context a connection", errno.EEXIST)
            remote = self._broker.remote(link)
            await self._wait_up(remote, seconds)
            charge = self._charge(contexts=1)
            bell = None
            try:
                context = remote.make_context(self.uid)
                bell = Bell()
                await remote.run(
                    context.open(), None if seconds is None else begun + seconds - time.monotonic()
                )
            except BaseException:
                charge.release()
                if bell is not None:
                    bell.close()
                raise
            self._charges.append(charge)
            self.name, self.remote, self.context, self._bell = name, remote, context, bell
            remote.tenants[context.id] = self
            self._broker.clients.add(self)
            _log.info("context opened", extra=self._who())
            return remote, context, bell.hand_over()

    async def gone(self) -> None:
        """Lets go of everything: the connection has ended. Twice is fine."""
        self._gone = True
        if self._waiting is not None:
            self._waiting.cancel()
        async with self._busy:
            context = self.context
            if self.context is not None and self.remote is not None and self._bell is not None:
                await self._destroy(self.remote, self.context)
                self.remote.tenants.pop(self.context.id, None)
                self._broker.clients.discard(self)
                self._bell.close()
                _log.info("context closed", extra=self._who())
                self.context = None
            charges = [*self._channel_charges.values(), *self._charges]
            for area, charge in self._area_charges.items():
                if context is None or not context.when_let_go(area, charge.release):
                    charges.append(charge)
            for charge in charges:
                charge.release()
            self._channel_charges.clear()
            self._area_charges.clear()
            self._charges.clear()

    @property
    def uid(self) -> int:
        """Whose it is."""
        return self.peer.uid

    @property
    def owner(self) -> str:
        """Who it is, in words."""
        return f"{self.name} (process {self.peer.pid})"

    async def remote_lost(self, why: str) -> None:
        """The remote is gone, and with it all channels; contexts and areas come back with it."""
        if self.remote is None or self.context is None:
            return  # it went while others were told
        gone = [channel.id for channel in self.context.channels]
        self.context.lose_raws()
        try:
            await self.remote.run(self.context.forget_channels())
        except Error as error:
            _log.warning("old channels: %s", error, extra=self._who())
        for channel in gone:
            if charge := self._channel_charges.pop(channel, None):
                charge.release()
        self._ring(why)

    def remote_back(self) -> None:
        """The remote is connected again."""
        self._ring()

    def channel_shut(self, channel: int) -> None:
        """The remote has shut one of this context's channels: it is for the client to close it."""
        _log.warning(
            "the rings of channel %d held an index that can't be; the remote has shut it",
            channel,
            extra=self._who(),
        )
        if self._bell is not None and not self._gone:
            self._bell.ring(shut=channel)

    @property
    def events(self) -> int:
        """How often the bell was rung: what was read beyond it came later."""
        return self._bell.rung if self._bell is not None else 0

    # -- areas and channels --------------------------------------------------------------------

    async def allocate(self, size_bytes: int, heap: str | None) -> Grant:
        """Allocates an area and registers it with the remote."""
        async with self._busy:
            remote, context = await self._connected()
            pages = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
            Policy.check_area(self.quota, size_bytes)
            charge = self._charge(bytes=pages, areas=1)
            return await self._grant(remote, context.allocate(size_bytes, heap), charge)

    async def _grant(
        self, remote: Supervisor, operation: Coroutine[Any, Any, Grant], charge: Charge
    ) -> Grant:
        try:
            grant = await remote.run(operation)
        except BaseException:
            charge.release()
            raise
        charge.settle(bytes=0 if grant.flags & _native.AREA_READONLY else grant.size_bytes)
        self._area_charges[grant.id] = charge
        return grant

    def regions(self) -> dict[str, int]:
        """Bytes of each region that the remote offers, by name."""
        return self._opened()[1].regions

    async def open_region(self, name: str) -> Grant:
        """Makes memory of the remote's an area; it counts as one, its bytes are not the user's."""
        async with self._busy:
            remote, context = await self._connected()
            charge = self._charge(areas=1)
            return await self._grant(remote, context.open_region(name), charge)

    async def free(self, area: int) -> None:
        """Takes an area back from the remote."""
        async with self._busy:
            remote, context = self._opened()  # a remote that is gone has let go
            await remote.run(context.free(area))
            self._area_charges.pop(area).release()

    async def open_channel(
        self, slots: int | None, slot_size_bytes: int | None, priority: int
    ) -> ChannelGrant:
        """Opens a channel; without a geometry, the usual one as far as the link allows it."""
        async with self._busy:
            remote, context = await self._connected()
            limits = context.limits
            geometry = Geometry(
                min(DEFAULT_GEOMETRY.slots, limits["slots"]) if slots is None else slots,
                min(DEFAULT_GEOMETRY.slot_size_bytes, limits["slot_size"])
                if slot_size_bytes is None
                else slot_size_bytes,
            )
            # Roughly; what it really was is settled below.
            ring = _native.ring_size(geometry.slots, geometry.slot_size_bytes, remote.link.line)
            charge = self._charge(channels=1, in_flight=geometry.slots, bytes=2 * ring)
            try:
                grant = await remote.run(context.open_channel(geometry, priority))
                context.check_channel(grant.id)
            except BaseException:
                charge.release()
                raise
            charge.settle(bytes=grant.rings.size_bytes)
            self._channel_charges[grant.id] = charge
            return grant

    async def close_channel(self, channel: int) -> None:
        """Closes a channel and takes its rings back."""
        async with self._busy:
            remote, context = self._opened()
            await remote.run(context.close_channel(channel))
            self._channel_charges.pop(channel).release()

    # -- raw messages ----------------------------------------------------------------------------

    async def open_raw(self, endpoint: str, match: RawMatch) -> RawGrant:
        """Opens an endpoint of the remote's firmware. It counts as a channel."""
        async with self._busy:
            self._opened()
            Policy.check_raw(self.quota, self.peer.uid, endpoint)
            remote, context = await self._connected()
            charge = self._charge(channels=1, in_flight=IN_FLIGHT_MAX)
            try:
                grant = context.open_raw(remote.open_endpoint(endpoint), match)
            except BaseException:
                charge.release()
                raise
            context.when_raw_ends(grant.id, charge.release)
            _log.info("raw messages to %s", endpoint, extra=self._who())
            return grant

    async def send_raw(self, raw: int, message: RawMessage) -> None:
        """Sends a message, with the addresses of this context's areas."""
        async with self._busy:
            self._opened()[1].raw(raw).send(*message)

    async def settle_raw(self, raw: int, number: int) -> None:
        """The client has found the answer to one."""
        async with self._busy:
            self._opened()[1].raw(raw).settle(number)

    async def close_raw(self, raw: int) -> None:
        """Ends an endpoint, once all is answered."""
        async with self._busy:
            self._opened()[1].close_raw(raw)

    # -- services ------------------------------------------------------------------------------

    async def find_service(self, name: str, version: int) -> ServiceInfo:
        """Finds a service of the remote on behalf of this context."""
        async with self._busy:
            remote, context = await self._connected()
            return await remote.ask(remote.link.find_service(context.id, name, version))

    async def list_services(self) -> list[ServiceInfo]:
        """Asks the remote for all of its services."""
        async with self._busy:
            remote, _ = await self._connected()
            return await remote.ask(remote.link.list_services())

    def serve(self, name: str, version: int) -> int:
        """Offers a service of this context to the remote; its id."""
        self._opened()
        return self.offers.add(name, version)

    def unserve(self, name: str) -> None:
        """Offers it no more."""
        self._opened()
        self.offers.remove(name)

    def service(self, name: str | None, index: int) -> tuple[int, int, str] | None:
        """Answers the remote's question: (id, version, name)."""
        return self.offers.look_up(name, index)

    # -- power ---------------------------------------------------------------------------------

    async def power(self, request: PowerRequest, khz: int, timeout_seconds: float) -> None:
        """Asks the remote for something that concerns all who use it."""
        async with self._busy:
            self._opened()
            Policy.check_power(self.quota, self.peer.uid)
            remote, _ = await self._connected()
        # Not under the lock: a client that goes meanwhile does not keep its context for so long.
        await remote.request_power(request, khz, timeout_seconds)
        _log.info("power: %s", request.word, extra=self._who())

    async def restart(self, timeout_seconds: float) -> None:
        """Has the remote ended and started again, for all who use it."""
        async with self._busy:
            remote, _ = self._opened()
            users = {tenant.uid for tenant in remote.tenants.values()} - {self.peer.uid}
            Policy.check_restart(self.quota, self.peer.uid, bool(users))
        await remote.restart(f"{self.owner} of user {self.peer.uid}", timeout_seconds)

    # -- inside --------------------------------------------------------------------------------

    def _opened(self) -> tuple[Supervisor, HostContext]:
        self._check_here()
        if self.context is None or self.remote is None:
            raise BadArgument("this connection has no context yet: call Open first")
        return self.remote, self.context

    async def _connected(self) -> tuple[Supervisor, HostContext]:
        """A remote that is being started again is waited for, as Open does."""
        remote, context = self._opened()
        if not remote.up:
            await self._wait_up(remote)
        return remote, context

    async def _wait_up(self, remote: Supervisor, seconds: float | None = None) -> None:
        """Waits for the remote, no longer than the client is there. Raises LinkError, Timeout."""
        most = WAIT_SECONDS if seconds is None else min(seconds, WAIT_SECONDS)
        self._waiting = asyncio.ensure_future(remote.wait_up(most))
        try:
            await self._waiting
        except asyncio.CancelledError:
            self._check_here()
            raise
        finally:
            self._waiting = None
        self._check_here()

    def _check_here(self) -> None:
        if self._gone:
            raise LinkClosed("the client has gone")

    def _charge(self, **amounts: int) -> Charge:
        return self._broker.accounts.charge(self.peer.uid, self.quota, **amounts)

    def _ring(self, words: str = "") -> None:
        if self._bell is not None and not self._gone:
            self._bell.ring(words)

    def _who(self) -> dict[str, object]:
        return {
            "link": self.remote.name if self.remote else None,
            "context": self.context.id if self.context else None,
            "client": self.name,
            "pid": self.peer.pid,
            "uid": self.peer.uid,
        }

    async def _destroy(self, remote: Supervisor, context: HostContext) -> None:
        """Destroys the context; a remote that can't do it is started again, which ends it too."""
        for _ in range(3):
            try:
                await remote.run(context.close())
                return
            except BadArgument:
                return  # the link knows it no more
            except Error as error:
                if remote.up:
                    remote.reset(f"context {context.id} can't be destroyed: {error}")
                    await remote.wait_down()
        context.release(keep=True)
        _log.error("context lost track of", extra=self._who())
