"""Daemon, clients, deaths; and after each round the account of all that was held."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.children import end_with_parent
from tests.integration.varlink_client import Refused, daemon
from tests.soak.client import BOUND_S, PATIENCE_S, Plan, live
from tests.soak.held import Held, resident_bytes
from tests.soak.ledger import FIELDS, Flag, Ledger, Outages
from tests.soak.table import KINDS

__all__ = ["PLACES", "Failed", "Soak"]

# Quotas are per user, and all clients are one: small enough that they are hit.
_CONFIG = """
[[link]]
[link.restart]
max_seconds = 0.4
[policy.default]
bytes = 201_326_592
areas = 90
channels = 26
contexts = 26
in_flight = 5_000
connections = 30
"""

PLACES = (*KINDS, "plain", "staging", "serving", "mortal", "impatient")
_ROUND_S = 60.0
_LONGER_S = 120.0  # of a round, where the machine is slow
_DECK = ("client",) * 5 + ("remote",) * 2 + ("twice",) + ("stop",) * 3
# Bytes resident that allocators may keep beyond the first round's.
_GROWTH = {"daemon": 16 << 20, "remote": 4 << 20}


class Failed(AssertionError):
    """What the soak found."""


class Soak:
    """A daemon and its clients. Used by one thread, which forks and so has to be the only one."""

    def __init__(self, folder: Path, seed: int, places: tuple[str, ...]) -> None:
        self.folder = folder
        self.seed = seed
        self.chance = random.Random(seed)
        self.places = places
        self.ledger = Ledger(2 * len(places))  # the second of each: what a client forks
        self.outages = Outages()
        self.deeds: Counter[str] = Counter()
        self.kills = 0  # of the remote
        self.rounds = 0
        self.over = Flag()
        self._lives: Counter[int] = Counter()  # by place
        self._running: dict[int, int] = {}  # place by pid
        self._killed: set[int] = set()  # pids
        self._resident: dict[str, int] = {}

    # -- the whole ------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Rounds for about so long. Raises Failed."""
        count = max(2, round(seconds / _ROUND_S))
        with daemon(self.folder, _CONFIG, preexec_fn=end_with_parent) as self.daemon:
            try:
                self._settle()
                for _ in range(count):
                    self._round(seconds / count)
                    self._account()
                    self.rounds += 1
                    print(f"round {self.rounds} of {count}: {self}", flush=True)
                self._stop()
            except Refused as error:
                raise Failed(f"the daemon refuses who looks after it: {error}\n{self}") from error
            finally:
                self._end_all()

    def _settle(self) -> None:
        """What is loaded and made once; then what daemon and remote hold is what they may hold."""
        with self._control():
            self._kill_remote(1)
        self.daemon.wait_until_empty()
        self.before = self._held()

    def _held(self) -> dict[str, Held]:
        """With one connection, ours: others that have just asked may not have ended yet."""
        with self._control():
            remote = self._wait_remote(connected=True)
            self.daemon.wait_until(self._is_alone, "a connection does not end")
            return {"daemon": Held.by(self.daemon.pid), "remote": Held.by(remote)}

    def _is_alone(self) -> bool:
        users = self.control.call("Stat")["users"]
        connections: int = sum(user["used"]["connections"] for user in users)
        return connections == 1

    def _stop(self) -> None:
        remote = self.daemon.remote_pid()
        status = self.daemon.stop()
        self._expect(status == 0, f"the daemon ended with {status}")
        self._expect(not Path(f"/proc/{remote}").exists(), "the remote outlives its daemon")
        self._expect(not self.daemon.socket.exists(), "the daemon's socket is still there")

    # -- a round --------------------------------------------------------------------------------

    def _round(self, seconds: float) -> None:
        deeds = random.Random(self.chance.random()).sample(_DECK, len(_DECK))
        begun = time.monotonic()
        before = self.by_kind("calls")
        self.over.set(False)
        # Not at the very end, so that clients have time to work again.
        when = sorted(self.chance.uniform(0.1, 0.9) for _ in deeds)
        with self._control():
            for place in range(len(self.places)):
                self._spawn(place)
            while time.monotonic() < begun + seconds or self._idle(before):
                if time.monotonic() > begun + seconds + _LONGER_S:
                    raise Failed(f"no call of {self._idle(before)} has ended well\n{self}")
                if deeds and time.monotonic() > begun + seconds * when[-len(deeds)]:
                    self._do(deeds.pop(0))
                self._reap(respawn=True)
                time.sleep(0.01)
        self.over.set(True)
        self._wait_all()

    def _idle(self, before: Counter[str]) -> set[str]:
        """Kinds that have done nothing since; some of those that die soon never do."""
        now = self.by_kind("calls")
        return {kind for kind in now if now[kind] == before[kind]} - {"mortal"}

    @contextlib.contextmanager
    def _control(self) -> Iterator[None]:
        """A connection that no quota refuses later."""
        with self.daemon.client() as self.control:
            self.control.call("List")
            yield

    def _spawn(self, place: int) -> None:
        self._lives[place] += 1
        plan = Plan(
            kind=self.places[place],
            seed=f"{self.seed}/{place}/{self._lives[place]}",
            uri=f"unix:{self.daemon.socket}",
            over=self.over,
            tally=self.ledger.row(2 * place),
            children=self.ledger.row(2 * place + 1),
            outages=self.outages,
        )
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self.control.close()  # the runner's, not ours
                log = os.open(self._log(place), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.close(log)
                status = live(plan)
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(status)
        self._running[pid] = place

    def _log(self, place: int) -> Path:
        return self.folder / f"client-{place}-{self.places[place]}.log"

    def _reap(self, *, respawn: bool) -> None:
        for pid, place in list(self._running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done == 0:
                continue
            del self._running[pid]
            code = os.waitstatus_to_exitcode(status)
            died = code == -signal.SIGKILL
            self.deeds["deaths"] += died
            mine = died and (pid in self._killed or self.places[place] == "mortal")
            if code != 0 and not mine:
                log = self._log(place).read_text(errors="replace")
                raise Failed(
                    f"client {place} ({self.places[place]}), pid {pid}, ended with {code}:\n"
                    f"{log[-6000:]}"
                )
            if respawn:
                self._spawn(place)

    def _wait_all(self) -> None:
        """All clients end by themselves, within what one call may take."""
        deadline = time.monotonic() + 3 * PATIENCE_S + BOUND_S
        while self._running:
            if time.monotonic() > deadline:
                self._name_the_hanging()
            self._reap(respawn=False)
            time.sleep(0.01)

    def _name_the_hanging(self) -> None:
        words = []
        for pid, place in self._running.items():
            os.kill(pid, signal.SIGUSR1)  # faulthandler's
            time.sleep(0.5)
            log = self._log(place).read_text(errors="replace")
            words.append(f"client {place} ({self.places[place]}) hangs:\n{log[-4000:]}")
        raise Failed("\n".join(words))

    def _end_all(self) -> None:
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
        for pid in self._running:
            os.waitpid(pid, 0)
        self._running.clear()

    # -- deeds ----------------------------------------------------------------------------------

    def _do(self, deed: str) -> None:
        match deed:
            case "client":
                if not self._running:
                    return  # all between two lives
                pid = self.chance.choice([*self._running])
                self._killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            case "remote":
                self._kill_remote(1)
            case "twice":  # while it is being recovered
                self._kill_remote(2)
            case "stop":
                self._stop_remote(self.chance.uniform(0.02, 0.6))
        self.deeds[deed] += 1

    def _kill_remote(self, times: int) -> None:
        """Until it is connected again."""
        self.outages.begin()
        for _ in range(times):
            pid = self._wait_remote()
            os.kill(pid, signal.SIGKILL)
            self.kills += 1
            self._wait_remote(other_than=pid)
        self._wait_remote(connected=True)
        self.outages.end()

    def _wait_remote(self, *, other_than: int = 0, connected: bool = False) -> int:
        """The pid of one that is there."""
        found = 0

        def is_there() -> bool:
            nonlocal found
            link = self.control.call("List")["links"][0]
            found = link["pid"] or 0
            return found not in (0, other_than) and (link["state"] == "connected" or not connected)

        self.daemon.wait_until(is_there, "the remote does not come back")
        return found

    def _stop_remote(self, seconds: float) -> None:
        pid = self._wait_remote(connected=True)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    # -- the account ----------------------------------------------------------------------------

    def _expect(self, right: object, words: str) -> None:
        if not right:
            raise Failed(f"{words}\n{self}\n{self.daemon.log()[-4000:]}")

    def _account(self) -> None:
        """Nobody is there: nothing is held, and what was counted on both sides agrees."""
        try:
            self.daemon.wait_until_empty()
        except AssertionError as error:
            raise Failed(f"{error}\n{self.daemon.list()}\n{self.daemon.stat()}") from error
        self._wait_for_baseline()
        listed, told = self.daemon.list(), self.daemon.stat()
        for what in ("contexts", "areas", "channels"):
            self._expect(listed[what] == [], f"{what} are left: {listed[what]}")
        link = told["links"][0]
        self._expect(
            link["restarts"] == self.kills,
            f"{link['restarts']} restarts for {self.kills} kills of the remote",
        )
        self._expect(link["bad_messages"] == 0, "the remote broke the rules")
        self._compare_log()
        self._compare_memory()

    def _wait_for_baseline(self) -> None:
        deadline = time.monotonic() + BOUND_S
        while (now := self._held()) != self.before:
            if time.monotonic() > deadline:
                raise Failed(f"held now:\n{now}\nbefore:\n{self.before}\n{self}")
            time.sleep(0.05)

    def _compare_log(self) -> None:
        log = self.daemon.log()
        for line in log.splitlines():
            bad = " error " in line or line.startswith("Traceback")
            # Killed while it was being brought up, which is an error unless we did it.
            self._expect(not bad or "killed by signal 9" in line, f"the daemon's log: {line}")

    def _compare_memory(self) -> None:
        pids = {"daemon": self.daemon.pid, "remote": self.daemon.remote_pid()}
        for name, pid in pids.items():
            now = resident_bytes(pid)
            first = self._resident.setdefault(name, now)
            self._expect(
                now <= first + _GROWTH[name], f"the {name} has {now} bytes, after a round {first}"
            )

    # -- words ----------------------------------------------------------------------------------

    def by_kind(self, field: str) -> Counter[str]:
        found: Counter[str] = Counter()
        for place, kind in enumerate(self.places):
            rows = self.ledger.row(2 * place), self.ledger.row(2 * place + 1)
            found[kind] += sum(row.get(field) for row in rows)
        return found

    def __str__(self) -> str:
        sums = ", ".join(f"{field} {self.ledger.sum(field):,}" for field in FIELDS)
        deeds = ", ".join(f"{deed} {count}" for deed, count in sorted(self.deeds.items()))
        memory = ", ".join(f"{name} {size >> 10:,} KiB" for name, size in self._resident.items())
        return f"{sums}; {deeds}; after the first round {memory}"
