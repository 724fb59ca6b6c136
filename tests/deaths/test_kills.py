"""SIGKILL at a named point of each process: before and after its calls, and at those of the core.

Whoever lives hears within its deadline what happened; what was held comes back to the last
descriptor and area; then everything works. Points are spread evenly over all there are; `make
deaths` takes each.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import sbe
from tests.deaths.exchange import Exchange
from tests.deaths.gate import Gate
from tests.deaths.processes import Remote, Zygote, until, zygote
from tests.integration.varlink_client import Daemon, daemon
from tests.soak.held import Held

ALL = bool(os.environ.get("SBE_DEATHS"))
NEVER = 1 << 30
AT_ONCE = "[[link]]\nrestart = { initial_seconds = 0.001, max_seconds = 0.001 }\n"

pytestmark = [
    pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer is preloaded"),
    pytest.mark.timeout(600),  # hundreds of lives each, some tens of ms apart on a quiet machine
]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path)


@pytest.fixture
def mother(tmp_path: Path, gate: Gate, remote: Remote) -> Iterator[Zygote]:
    with zygote(tmp_path, gate, remote) as running:
        yield running


def spread(total: int, count: int) -> list[int]:
    """So many points of all, evenly, or all."""
    step = 1 if ALL else max(1, total // count)
    return list(range(1, total + 1, step))


def dead_remote(error: sbe.Error) -> bool:
    """Says that the remote died, and of what where this end knows."""
    text = str(error)
    return isinstance(error, sbe.LinkError) and (
        "killed by signal 9 (SIGKILL)" in text or "the remote died or restarted" in text
    )


def held() -> Held:
    gc.collect()
    return Held.by("self")


def is_back(before: Held) -> Callable[[], bool]:
    return lambda: held() == before


class Embedded:
    """This process with remotes that are killed."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.deaths = 0
        self.heard = 0
        """Of them, those that some call was told of; between calls nobody has to be."""
        gate.arm("sbe-remote", NEVER)
        Exchange("loopback:", lambda error: False).run()
        self.points = gate.passed
        self.before = held()

    def kill(self, point: int, again: int = 0) -> None:
        gate, where = self.gate, f"point {point}, then {again}"
        with gate.armed("sbe-remote", point, again=again):
            exchange = Exchange("loopback:", dead_remote)
            try:
                exchange.run()
            except AssertionError as error:
                raise AssertionError(f"{where} ({gate.name}): {error}") from error
        self.deaths += gate.done
        self.heard += bool(exchange.errors)
        del exchange  # with its area, which is mapped as long as it is there
        until(is_back(self.before), f"{where} ({gate.name}): {held()}, before {self.before}")


def test_an_embedded_remote(gate: Gate, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBE_REMOTE", str(remote.path))
    monkeypatch.setenv("SBE_GATE", str(gate.path))
    world = Embedded(gate)
    assert world.points > 800
    for point in spread(world.points, 300):
        world.kill(point)
    for number, point in enumerate(spread(world.points, 40)):
        # In what the next one does first, which is its recovery; and anywhere.
        world.kill(point, again=1 + number * 7 % (150 if number % 2 else world.points))
    until(lambda: not remote.processes(), "remotes are left")
    print(f"{world.deaths} SIGKILLs of an embedded remote, {world.points} points")
    assert world.deaths >= 330
    assert world.heard > 250


class Served:
    """A daemon, and what it holds while nothing is going on."""

    def __init__(self, running: Daemon) -> None:
        self.running = running
        self.uri = f"unix:{running.socket}"
        running.wait_until_empty()
        self.descriptors = running.descriptors()

    def settle(self, where: str) -> None:
        """Nothing of whoever died is left: areas, contexts and channels, and descriptors."""
        self.running.wait_until_empty()
        until(
            lambda: self.running.descriptors() <= self.descriptors,
            f"{where}: {self.running.descriptors()} descriptors, before {self.descriptors}",
        )


def environment(gate: Gate, remote: Remote) -> dict[str, str]:
    return {**gate.environment, "SBE_REMOTE": str(remote.path)}


def test_the_remote_of_a_daemon(tmp_path: Path, gate: Gate, remote: Remote) -> None:
    with daemon(tmp_path, AT_ONCE, environment=environment(gate, remote)) as running:
        uri = f"unix:{running.socket}"
        gate.arm("sbe-remote", NEVER)
        Exchange(uri, lambda error: False).run()
        points, deaths = gate.passed, 0
        served, before = Served(running), held()
        for number, point in enumerate(spread(points, 80)):
            again = 1 + number * 7 % 150 if number % 4 == 0 else 0
            with gate.armed("sbe-remote", point, again=again):
                Exchange(uri, dead_remote).run()
            deaths += gate.done
            where = f"point {point}, then {again} ({gate.name})"
            served.settle(where)
            until(is_back(before), f"{where}: {held()}, before {before}")
        assert len(remote.processes()) == 1
    until(lambda: not remote.processes(), "remotes are left")
    print(f"{deaths} SIGKILLs of a daemon's remote, {points} points")
    assert deaths >= 80


def test_a_client_of_a_daemon(tmp_path: Path, gate: Gate, remote: Remote, mother: Zygote) -> None:
    with daemon(tmp_path, environment={"SBE_REMOTE": str(remote.path)}) as running:
        uri = f"unix:{running.socket}"
        with sbe.connect(uri) as other:
            area = other.allocate(4096)
            area[:] = b"\3" * 4096
            at_rest = running.used()
            gate.arm("client", NEVER)
            assert mother.wait(mother.client(uri)) == 0, mother.log.read_text()
            points, deaths = gate.passed, 0
            until(lambda: running.used() == at_rest, "the client has ended")
            descriptors, theirs = running.descriptors(), Held.by(running.remote_pid())
            for point in spread(points, 80):
                gate.arm("client", point)
                status = mother.wait(mother.client(uri))
                assert status == (-9 if gate.done else 0), mother.log.read_text()
                deaths += gate.done
                where = f"point {point} ({gate.name})"
                until(lambda: running.used() == at_rest, f"{where}: {running.used()}")
                until(lambda: running.descriptors() <= descriptors, where)
                until(lambda: Held.by(running.remote_pid()) == theirs, where)
                assert other.call("crc32", sbe.In(area)).payload
            assert bytes(area) == b"\3" * 4096
    print(f"{deaths} SIGKILLs of a client, {points} points")
    assert deaths >= 75


def test_a_client_with_an_embedded_remote(gate: Gate, remote: Remote, mother: Zygote) -> None:
    gate.arm("client", NEVER)
    assert mother.wait(mother.client("loopback:")) == 0, mother.log.read_text()
    points, deaths = gate.passed, 0
    for point in spread(points, 25):
        gate.arm("client", point)
        status = mother.wait(mother.client("loopback:"))
        assert status == (-9 if gate.done else 0), mother.log.read_text()
        deaths += gate.done
        until(lambda: not remote.processes(), f"point {point} ({gate.name}): its remote is left")
    print(f"{deaths} SIGKILLs of a client with its remote, {points} points")
    assert deaths >= 20


def dead_daemon(error: sbe.Error) -> bool:
    """Says that the daemon is gone, or is not there."""
    return isinstance(error, sbe.LinkError) and "daemon" in str(error)


class Life:
    """A daemon that the zygote forks, from its start until it has ended."""

    def __init__(self, mother: Zygote, folder: Path, also: str = "") -> None:
        self.socket = folder / "run" / "control.sock"
        config = folder / "daemon.toml"
        config.write_text(AT_ONCE + also)
        self.uri = f"unix:{self.socket}"
        self.pid = mother.daemon(["--config", str(config), "--socket", str(self.socket)])


def test_a_daemon(tmp_path: Path, gate: Gate, remote: Remote, mother: Zygote) -> None:
    def there() -> bool:
        try:
            with sbe.connect(uri, timeout=5):
                return True
        except sbe.LinkError:
            return False

    def heard(lives: list[Life]) -> bool:
        return gate.done == len(lives) or there()

    def end(life: Life) -> int:
        os.kill(life.pid, 15)
        return mother.wait(life.pid)

    uri = f"unix:{tmp_path / 'run' / 'control.sock'}"
    gate.arm("daemon", NEVER)
    life = Life(mother, tmp_path)
    until(there, mother.log.read_text())
    Exchange(uri, dead_daemon).run()
    assert end(life) == 0, mother.log.read_text()
    points, deaths, before = gate.passed, 0, held()
    for number, point in enumerate(spread(points, 60)):
        gate.arm("daemon", point, again=1 + number * 31 % points if number % 3 == 0 else 0)
        lives = [Life(mother, tmp_path)]
        while True:
            until(partial(heard, lives), f"point {point}")
            Exchange(uri, dead_daemon).run_once()
            if gate.done < len(lives) or len(lives) == 2:
                break
            assert mother.wait(lives[0].pid) == -9
            lives.append(Life(mother, tmp_path))
        deaths += gate.done
        last, died = lives[-1], gate.done == len(lives)
        gate.disarm()
        if died:
            assert mother.wait(last.pid) == -9
            last = Life(mother, tmp_path)
        until(there, f"point {point} ({gate.name})\n{mother.log.read_text()}")
        Exchange(uri, lambda error: False).run()
        assert len(remote.processes()) == 1, f"point {point} ({gate.name})"
        assert end(last) == 0, mother.log.read_text()
        until(is_back(before), f"point {point} ({gate.name}): {held()}, before {before}")
    until(lambda: not remote.processes(), "remotes are left")
    print(f"{deaths} SIGKILLs of a daemon, {points} points")
    assert deaths >= 60
