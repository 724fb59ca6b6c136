"""A client process: what may be raised when, how late, and what it owes at its end."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sbe
from tests.children import end_with_parent
from tests.soak.held import Held
from tests.soak.jobs import Jobs
from tests.soak.ledger import Flag, Outages, Tally

__all__ = [
    "BOUND_S",
    "PATIENCE_S",
    "Client",
    "Plan",
    "Unexplained",
    "check_nothing_left",
    "held",
    "live",
]

PATIENCE_S = 60.0  # of calls that must not time out
BOUND_S = 15.0  # beyond its deadline, which a call may take where everything is slow
CONTROL_S = 30.0  # of each control operation

_QUOTA = re.compile(r"quota \w+: user \d+ may hold (\d+) .*, has (\d+) and asks for (\d+) more")


class Unexplained(AssertionError):
    """An error for which nothing has happened, or one that came too late."""


@dataclass
class Plan:
    """What the runner has decided for a process."""

    kind: str
    seed: str
    uri: str
    over: Flag
    """The round has ended: finish what is under way."""
    tally: Tally
    children: Tally
    """Of processes that this one forks."""
    outages: Outages


class Client:
    """A process' connections and what it makes of their errors. Used by one process, any thread."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = plan.tally
        self.chance = random.Random(plan.seed)
        self.jobs = Jobs(self.chance)
        self.tight = False
        """This process may run out of memory."""
        self.well = time.monotonic()
        """When a call began that has succeeded: what it is told of may have happened since."""
        self._pid = os.getpid()

    @property
    def has_time(self) -> bool:
        return not self.plan.over.is_set

    def log(self, text: str) -> None:
        print(f"{time.monotonic():.3f} {os.getpid()} {text}", flush=True)

    def connect(self, **how: Any) -> sbe.Connection | None:
        """A connection; None when it was refused with reason."""
        self.tally.add("attempts")
        with self.expecting(3 * CONTROL_S):
            link = sbe.connect(self.plan.uri, timeout=CONTROL_S, **how)
            self.tally.add("connects")
            return link
        return None

    @contextlib.contextmanager
    def expecting(
        self, timeout: float = PATIENCE_S, *allowed: type[Exception], since: float | None = None
    ) -> Iterator[None]:
        """What is called inside ends within its deadline, well or for a known reason.

        The rest of the block is left out then. `since`: `well` when what is waited for was begun.
        """
        begun = time.monotonic()
        well = begun if since is None else since  # what was begun before may have ended long ago
        since = self.well if since is None else since
        try:
            yield
        except sbe.Error as error:
            reason = self._reason(error, allowed, since)
            if reason is None:
                raise Unexplained(f"{type(error).__name__}: {error}") from error
            self.tally.add(reason)
            self.log(f"{reason}: {error}")
        else:
            self.well = max(self.well, well)
        took = time.monotonic() - begun
        if took > timeout + BOUND_S:
            raise Unexplained(f"it took {took:.1f} s, where {timeout:g} s were the deadline")

    def _reason(
        self, error: sbe.Error, allowed: tuple[type[Exception], ...], since: float
    ) -> str | None:
        match error:
            case sbe.RemoteRestarted():
                return "restarted" if self.plan.outages.explain(since) else None
            case sbe.Timeout():  # the remote is never away for as long as others wait
                return "timeouts" if isinstance(error, allowed) else None
            case sbe.Cancelled():
                return "cancelled" if isinstance(error, allowed) else None
            case sbe.OutOfResources() | sbe.PermissionDenied():
                return self._shortage(error)
            case sbe.Error(code=errno.EBUSY):
                return "busy" if isinstance(error, allowed) else None
        if type(error) is sbe.LinkError:  # it is being started
            return "restarted" if self.plan.outages.explain(since) else None
        return None

    def _shortage(self, error: sbe.Error) -> str | None:
        """A quota is refused with figures, which have to be true."""
        if found := _QUOTA.search(str(error)):
            limit, used, asked = map(int, found.groups())
            return "quota" if used + asked > limit else None
        return "exhausted" if self.tight else None

    def did(self, job: Any) -> None:
        """A call has ended well."""
        self.tally.add("calls")
        self.tally.add("bytes", job.size)

    def rest(self) -> None:
        """Where somebody else has to let go first."""
        time.sleep(self.chance.uniform(0.01, 0.1))


def live(plan: Plan) -> int:
    """The whole life of a client process; its exit status."""
    from tests.soak.table import KINDS  # it needs what is above

    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    end_with_parent()
    client = Client(plan)
    client.log(f"begins as {plan.kind}, seed {plan.seed!r}")
    KINDS[plan.kind].warm_up(client)
    before = held()
    try:
        while client.has_time:
            _one_link(client, KINDS[plan.kind])
        check_nothing_left(before)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    client.log("ends")
    return 0


def _one_link(client: Client, kind: Any) -> None:
    chance = client.chance
    link = client.connect(slots=chance.choice((8, 64, 256)), slot_size=chance.choice((512, 4096)))
    if link is None:
        client.rest()
        return
    with link:
        work = kind(client, link)
        for _ in range(chance.randint(1, 40)):
            if not client.has_time:
                break
            work.step()
        work.end()


def held() -> Held:
    """By this process, without what only waits to be collected."""
    gc.collect()
    return Held.by("self")


def check_nothing_left(before: Held) -> None:
    """All connections are closed: this process holds what it held."""
    deadline = time.monotonic() + BOUND_S
    while True:
        now = held()
        if now == before:
            return
        if time.monotonic() > deadline:
            raise Unexplained(f"the client holds\n{now}, before it connected it was\n{before}")
        time.sleep(0.02)  # threads that end by themselves
