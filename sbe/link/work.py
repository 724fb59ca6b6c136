"""What a remote is about, by the words that it shows in the rings of a link's channels (0023).

The one judgment of a remote that does not answer: the daemon asks here before it starts one again,
the SDK before it says that there was no answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from sbe.host.text import one_line
from sbe.link.grants import ChannelGrant
from sbe.link.rings import BEATS, Sight

__all__ = ["Channels", "Limits", "Watch", "Work"]

Channels = Callable[[], Iterable[tuple[str, ChannelGrant]]]
"""Those of a link that are open now, each with whose it is, in words; "" needs no word."""

_NAME_MAX = 64


class Limits(NamedTuple):
    """How long a remote may leave a ping unanswered, seconds; infinity: for ever."""

    answer_s: float
    """Without any sign of life, and when it works for nobody."""
    stuck_s: float
    """While the handler of a service runs and shows no sign of life."""
    work_s: float
    """While it shows that it goes on."""


class Work(NamedTuple):
    """A request whose handler runs. `service` is -1 where its frame is not there to be seen."""

    service: int
    owner: str
    since: float
    """`time.monotonic()`, at which it was first seen."""


class Watch:
    """Looks at a remote that owes an answer, from its making on. Belongs to the link's owner.

    The words are the remote's, and can be written by whoever uses the channel: they explain, and
    grant time, but never more than `Limits.work_s`.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._seen: dict[int, Sight] = {}
        self._since: dict[int, float] = {}  # when the request at hand of each was first seen
        self._begun = self._moved = time.monotonic()
        self._ever_moved = False
        self.work: Work | None = None
        """What runs, by the last look. Others may be between two of their pieces."""
        self.waiting = 0
        """Frames of all channels beside it that the remote has not taken."""
        self.look()
        self._moved, self._ever_moved = self._begun, False

    def look(self) -> None:
        """Compares all rings with the last look."""
        now = time.monotonic()
        sights: dict[int, Sight] = {}
        running: list[tuple[int, Work]] = []
        for owner, grant in self._channels():
            try:
                sight = sights[grant.id] = grant.rings.look()
            except (OSError, ValueError):  # it is being closed
                continue
            before = self._seen.get(grant.id)
            if sight != before:
                self._moved, self._ever_moved = now, True
            if before is None or before.request != sight.request:
                self._since[grant.id] = now
            if sight.request is not None:
                work = Work(sight.service, owner, self._since[grant.id])
                running.append((sight.beat, work))
        self._seen = sights
        self.waiting = sum(sight.waiting for sight in sights.values())
        self.work = _latest(running)

    @property
    def owed_s(self) -> float:
        """Seconds since its making."""
        return time.monotonic() - self._begun

    def verdict(self, limits: Limits) -> str | None:
        """Why the remote is to be given up, by the last look, in words; None: not yet."""
        now = time.monotonic()
        owed, silent = now - self._begun, now - self._moved
        bounds = [limits.answer_s, limits.stuck_s if self.work is not None else limits.answer_s]
        given_up = owed >= limits.work_s or (owed >= bounds[0] and silent >= bounds[1])
        return f"no answer to a ping within {owed:.1f} s" if given_up else None

    def words(self, services: Mapping[int, str]) -> str:
        """What it is about, after the last look; "" where nothing shows. `services`: names."""
        now = time.monotonic()
        if self.work is None:
            return "it takes requests" if self._is_alive(now) else ""
        name = services.get(self.work.service)
        number = "a service" if self.work.service < 0 else f"service {self.work.service}"
        what = number if name is None else f"service {one_line(name, _NAME_MAX)!r}"
        owner = f" of {self.work.owner}" if self.work.owner else ""
        life = "and is at work" if self._is_alive(now) else "without a sign of life"
        behind = ""
        if self.waiting:
            waits = "call waits" if self.waiting == 1 else "calls wait"
            behind = f"; {self.waiting} {waits} behind it"
        return f"{what}{owner} has run for {now - self.work.since:.1f} s {life}{behind}"

    def _is_alive(self, now: float) -> bool:
        """It has moved since it was asked, and not only in the first half of that time."""
        return self._ever_moved and now - self._moved <= max((now - self._begun) / 2, 1.0)


def _latest(running: list[tuple[int, Work]]) -> Work | None:
    """The one that has shown itself last: beats count across all rings."""
    if not running:
        return None
    any_beat = running[0][0]
    return max(running, key=lambda each: (each[0] - any_beat + BEATS // 2) % BEATS)[1]
