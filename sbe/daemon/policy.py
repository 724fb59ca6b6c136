"""Quotas: what each user holds, counted in one place.

Whoever asks pays: the user is the one that the kernel names for the connection (SO_PEERCRED).
Everything held is a `Charge`; releasing it twice changes nothing, so every error path may.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sbe.daemon.config import RESTART_WORDS, PolicyConfig, Quota, QuotaOverride
from sbe.errors import Error, OutOfResources, PermissionDenied

__all__ = [
    "COUNTERS",
    "Accounts",
    "Charge",
    "Peer",
    "Policy",
    "descriptors_for_clients",
    "descriptors_needed",
]

COUNTERS: Final = ("bytes", "areas", "channels", "contexts", "in_flight", "connections")

_DESCRIPTORS: Final = {"connections": 1, "contexts": 1, "areas": 3, "channels": 7}
"""That the daemon has open for one, with the copies in an answer that was not taken yet."""
_OWN_DESCRIPTORS = 64  # of the daemon itself, its links and remotes, and calls under way
_FEW = 16  # a user who holds so many or fewer gets what is reserved

_USERS_KNOWN = 256

_WORDS: Final = {
    "bytes": "bytes of memory",
    "areas": "areas",
    "channels": "channels",
    "contexts": "contexts",
    "in_flight": "ring slots (transactions in flight)",
    "connections": "connections",
}


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of a connection, by the kernel's word. All processes of a user with
    the same groups are equal."""

    pid: int = field(compare=False)
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Policy:
    """Which quota holds for whom. Immutable, so any thread may ask."""

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self._quota = functools.lru_cache(maxsize=_USERS_KNOWN)(self._work_out)

    def quota(self, peer: Peer) -> Quota:
        """Returns the quota of a peer's user.

        Its uid's entry decides each key; else the most generous of its groups' entries; else the
        default. A user who was here lately costs no more than a look.
        """
        return self._quota(peer)

    def _work_out(self, peer: Peer) -> Quota:
        chosen = self._config.default.model_dump()
        groups = [
            self._config.gid[gid]
            for gid in dict.fromkeys((peer.gid, *peer.groups))
            if gid in self._config.gid
        ]
        for key in chosen:
            granted = [value for entry in groups if (value := getattr(entry, key)) is not None]
            if granted and key == "raw":
                chosen[key] = sorted({name for names in granted for name in names})
            elif granted:
                chosen[key] = max(granted, key=_generosity)
        own = self._config.uid.get(peer.uid, QuotaOverride())
        chosen.update(own.model_dump(exclude_none=True))
        return Quota(**chosen)

    @staticmethod
    def check_power(quota: Quota, uid: int) -> None:
        """Refuses who may not decide for all users of a link. Raises PermissionDenied."""
        if not quota.power:
            raise PermissionDenied(
                f"user {uid} may not change the power of a remote that others use too: that takes "
                f"power = true under [policy.uid.{uid}], or a group's or the default policy"
            )

    @staticmethod
    def check_restart(quota: Quota, uid: int, others: bool) -> None:
        """Refuses who may not end a remote, which `others` use too. Raises PermissionDenied."""
        if quota.restart == "always" or (quota.restart == "alone" and not others):
            return
        wanted = "always" if others else "alone"
        raise PermissionDenied(
            f"user {uid} may not restart this remote"
            + (", which other users use too" if others else "")
            + f': that takes restart = "{wanted}" under [policy.uid.{uid}], or a group\'s or the '
            f'default policy; it is "{quota.restart}"'
        )

    @staticmethod
    def check_raw(quota: Quota, uid: int, endpoint: str) -> None:
        """Refuses who may not send the firmware what it takes. Raises PermissionDenied."""
        if endpoint not in quota.raw:
            raise PermissionDenied(
                f"user {uid} may not send raw messages to {endpoint!r:.80}, whose firmware may do "
                f"anything with memory: that takes raw = [{endpoint!r:.80}] under "
                f"[policy.uid.{uid}], or a group's or the default policy"
            )

    @staticmethod
    def check_area(quota: Quota, size_bytes: int) -> None:
        """Refuses a single area above the quota's largest. Raises PermissionDenied."""
        if size_bytes > quota.max_area_bytes:
            raise PermissionDenied(
                f"quota max_area_bytes: an area of {size_bytes} bytes asked for, "
                f"the limit is {quota.max_area_bytes}"
            )


def _generosity(value: int | str) -> int:
    return RESTART_WORDS.index(value) if isinstance(value, str) else value


def _descriptors(amounts: Mapping[str, int]) -> int:
    return sum(each * amounts.get(counter, 0) for counter, each in _DESCRIPTORS.items())


def descriptors_for_clients(limit: int) -> int:
    """Of so many that the process may have open, those that are not its own."""
    return max(limit - _OWN_DESCRIPTORS, 0)


def descriptors_needed(quota: Quota) -> int:
    """The limit of the process that lets one user have all of this quota, and others something."""
    one = _descriptors({counter: getattr(quota, counter) for counter in _DESCRIPTORS})
    return _OWN_DESCRIPTORS + -(-one * 4 // 3)


class Charge:
    """Something that a user holds, until `release()`. Not thread-safe: it belongs to the loop."""

    def __init__(self, accounts: Accounts, uid: int, amounts: dict[str, int]) -> None:
        self._accounts = accounts
        self._uid = uid
        self._amounts = amounts

    def settle(self, **amounts: int) -> None:
        """Corrects amounts to what was really granted, which no quota stops any more."""
        for counter, amount in amounts.items():
            self._accounts._add(self._uid, counter, amount - self._amounts.get(counter, 0))
            self._amounts[counter] = amount

    def release(self) -> None:
        """Gives everything back. Twice is fine."""
        amounts, self._amounts = self._amounts, {}
        for counter, amount in amounts.items():
            self._accounts._add(self._uid, counter, -amount)


@dataclass
class Accounts:
    """What each user holds at this moment. Not thread-safe: it belongs to the loop.

    A user who holds nothing has no entry, so the counters of a quiet daemon are an empty dict.
    """

    used: dict[int, dict[str, int]] = field(default_factory=dict)
    descriptors_max: int | None = None
    """That all users' things may need together; None: as many as they like."""
    _descriptors: int = 0

    def usage(self, uid: int) -> dict[str, int]:
        """Returns what a user holds, every counter named."""
        return dict.fromkeys(COUNTERS, 0) | self.used.get(uid, {})

    def charge(self, uid: int, quota: Quota, **amounts: int) -> Charge:
        """Charges all of these amounts, or none.

        Raises PermissionDenied for what this user may never have, OutOfResources for what is only
        used up at present.
        """
        held = self.usage(uid)
        for counter, asked in amounts.items():
            limit: int = getattr(quota, counter)
            if asked < 0 or counter not in COUNTERS:
                raise ValueError(f"a charge of {asked} {counter}")
            if held[counter] + asked > limit:
                raise self._refusal(uid, counter, held[counter], asked, limit)
        self._check_descriptors(held, amounts)
        for counter, asked in amounts.items():
            self._add(uid, counter, asked)
        return Charge(self, uid, dict(amounts))

    def _check_descriptors(self, held: dict[str, int], amounts: dict[str, int]) -> None:
        """A quarter is for users who hold few: where there are not many, none takes them all."""
        most = self.descriptors_max
        asked = _descriptors(amounts)
        if most is None or not asked:
            return
        few = _descriptors(held) + asked <= max(_FEW, most // 16)
        if self._descriptors + asked > (most if few else most - most // 4):
            raise OutOfResources(
                f"the daemon has no file descriptors left for this: it may have {most} for its "
                "clients, a quarter of them for users who hold few; raise its limit "
                "(LimitNOFILE= in its unit, or ulimit -Hn)",
                errno.EMFILE,
            )

    @staticmethod
    def _refusal(uid: int, counter: str, used: int, asked: int, limit: int) -> Error:
        kind = PermissionDenied if asked > limit else OutOfResources
        return kind(
            f"quota {counter}: user {uid} may hold {limit} {_WORDS[counter]}, "
            f"has {used} and asks for {asked} more"
        )

    def _add(self, uid: int, counter: str, amount: int) -> None:
        self._descriptors += _DESCRIPTORS.get(counter, 0) * amount
        held = self.used.setdefault(uid, {})
        left = held.get(counter, 0) + amount
        assert left >= 0, f"{counter} of user {uid} would be {left}"
        if left:
            held[counter] = left
        else:
            held.pop(counter, None)
        if not held:
            self.used.pop(uid, None)
