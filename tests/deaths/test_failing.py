"""Each system call and allocation of a remote and of a daemon fails once, as the kernel may let it.

What is raised is ours and says what failed; a daemon that can't start says so; nothing is left, and
then everything works. Calls of an application's own process: tests/faults/test_failing_calls.py.
"""

from __future__ import annotations

import errno
import os
import signal
from functools import partial
from pathlib import Path

import pytest

import sbe
from tests.deaths.exchange import Exchange
from tests.deaths.gate import Gate
from tests.deaths.processes import Remote, Zygote, until
from tests.deaths.test_kills import (  # noqa: F401 - fixtures
    ALL,
    NEVER,
    Life,
    gate,
    held,
    is_back,
    mother,
    remote,
)

ERRORS = (errno.ENOMEM, errno.EMFILE, errno.EPERM)
SOON = "answer_seconds = 1\n"

pytestmark = [
    pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer is preloaded"),
    pytest.mark.timeout(600),  # each call fails in each way: half a minute on a quiet machine
]


def ways(total: int) -> list[tuple[int, int]]:
    """Each call with one of the errors, or with each."""
    calls = range(1, total + 1)
    if ALL:
        return [(call, error) for call in calls for error in ERRORS]
    return [(call, ERRORS[call % len(ERRORS)]) for call in calls]


def failed_call(error: sbe.Error) -> bool:
    """One for which a call that has failed is a reason."""
    if isinstance(error, sbe.RemoteError):  # its service could ask nobody
        return error.code == errno.ENOTCONN
    return isinstance(error, (sbe.LinkError, sbe.OutOfResources, sbe.PermissionDenied))


def test_calls_of_an_embedded_remote(
    gate: Gate,  # noqa: F811
    remote: Remote,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SBE_REMOTE", str(remote.path))
    monkeypatch.setenv("SBE_GATE", str(gate.path))
    gate.arm("sbe-remote", NEVER, error=errno.ENOMEM)
    Exchange("loopback:", lambda error: False).run()
    total, before = NEVER - gate.left, held()
    assert total > 60
    for call, error in ways(total):
        exchange = Exchange("loopback:", failed_call)
        with gate.armed("sbe-remote", call, error=error):
            exchange.run()
        where = f"call {call} ({gate.name}): {os.strerror(error)}"
        for words in exchange.errors:  # who asks when it has ended is told why
            assert not words.endswith("exited with status 0"), where
        del exchange
        until(is_back(before), f"{where}: {held()}, before {before}")
    until(lambda: not remote.processes(), "remotes are left")


class Daemons:
    """Daemons that live one after the other at one socket."""

    def __init__(self, folder: Path, mother: Zygote) -> None:  # noqa: F811
        self.folder = folder
        self.mother = mother
        self.uri = f"unix:{folder / 'run' / 'control.sock'}"

    def begin(self) -> Life:
        return Life(self.mother, self.folder, SOON)

    def end(self, life: Life) -> int:
        os.kill(life.pid, signal.SIGTERM)
        return self.mother.wait(life.pid)

    def there(self) -> bool:
        try:
            with sbe.connect(self.uri, timeout=5):
                return True
        except (sbe.LinkError, sbe.OutOfResources, sbe.PermissionDenied):
            return False

    def ended(self, life: Life) -> bool:
        """It has, and waits to be reaped."""
        state = Path(f"/proc/{life.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z"

    def holds_nothing(self, where: str) -> None:
        """Of others than who asks, who has the rings of a channel."""
        with sbe.connect(self.uri) as link:
            listed = link.list()
            assert len(listed["contexts"]) == 1, where
            assert len(listed["areas"]) <= 1, where

    def either(self, life: Life) -> bool:
        return self.ended(life) or self.there()


def test_calls_of_a_daemon_that_starts(
    tmp_path: Path,
    gate: Gate,  # noqa: F811
    remote: Remote,  # noqa: F811
    mother: Zygote,  # noqa: F811
) -> None:
    daemons = Daemons(tmp_path, mother)
    gate.arm("daemon", NEVER, error=errno.ENOMEM)
    life = daemons.begin()
    until(daemons.there, "the daemon is not there")
    total = NEVER - gate.left
    assert daemons.end(life) == 0
    assert total > 20
    for call, error in ways(total):
        said = mother.log.stat().st_size
        gate.arm("daemon", call, error=error)
        life = daemons.begin()
        until(partial(daemons.either, life), f"call {call}: {mother.log.read_text()[said:]}")
        where = f"call {call} ({gate.name}): {os.strerror(error)}"
        gate.disarm()
        if not daemons.ended(life):
            Exchange(daemons.uri, failed_call).run()
            assert daemons.end(life) == 0, where
        else:
            assert mother.wait(life.pid) == 1, where
            text = mother.log.read_bytes()[said:].decode()
            said_so = [line for line in text.splitlines() if line.startswith("sbe-daemon: ")]
            assert len(said_so) == 1, f"{where}: {text}"
            assert os.strerror(error) in said_so[0], f"{where}: {text}"
    until(lambda: not remote.processes(), "remotes are left")


def test_calls_of_a_daemon_that_runs(
    tmp_path: Path,
    gate: Gate,  # noqa: F811
    remote: Remote,  # noqa: F811
    mother: Zygote,  # noqa: F811
) -> None:
    daemons = Daemons(tmp_path, mother)
    life = daemons.begin()
    until(daemons.there, "the daemon is not there")
    gate.arm("daemon", NEVER, error=errno.ENOMEM)
    Exchange(daemons.uri, lambda error: False).run()
    total, before = NEVER - gate.left, held()
    assert total > 20
    descriptors = len(os.listdir(f"/proc/{life.pid}/fd"))
    for call, error in ways(total):
        with gate.armed("daemon", call, error=error):
            Exchange(daemons.uri, failed_call).run_once()
        where = f"call {call} ({gate.name}): {os.strerror(error)}"
        Exchange(daemons.uri, failed_call).run()  # another connection; it may be the one that hears
        until(lambda: len(os.listdir(f"/proc/{life.pid}/fd")) <= descriptors, where)
        until(is_back(before), f"{where}: {held()}, before {before}")
        daemons.holds_nothing(where)
    assert daemons.end(life) == 0
    until(lambda: not remote.processes(), "remotes are left")
