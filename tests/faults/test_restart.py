"""`link.restart()`: whoever is in flight hears it, everything that lives on is there afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sbe
import sbe.testing
from examples.own_remote import Simulator
from sbe.cli import app, exit_codes
from sbe.daemon.config import Quota
from sbe.daemon.policy import Policy
from sbe.remotes.carveout import CarveoutConfig
from sbe.remotes.process import RemoteProcess
from tests.faults.stubborn import link_table, program
from tests.integration.varlink_client import SECONDS, Daemon, daemon


@contextlib.contextmanager
def embedded(_: Path) -> Iterator[sbe.Connection]:
    with sbe.connect(RemoteProcess(program())) as link:
        yield link


@contextlib.contextmanager
def through_daemon(folder: Path) -> Iterator[sbe.Connection]:
    with daemon(folder, link_table()) as running, connect(running) as link:
        yield link


def connect(running: Daemon) -> sbe.Connection:
    return sbe.connect(f"unix:{running.socket}", timeout=SECONDS)


KINDS = [embedded, through_daemon]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stuck", [False, True], ids=["well", "stuck"])
def test_everything_in_flight_ends_and_the_next_epoch_works(
    kind: Callable[[Path], contextlib.AbstractContextManager[sbe.Connection]],
    stuck: bool,
    tmp_path: Path,
) -> None:
    with kind(tmp_path) as link:
        area = link.allocate(4096)
        area[:] = b"kept" * 1024
        link.call("echo")
        epoch = link.epoch
        calls = []
        if stuck:
            calls.append(link.submit("spin", timeout=SECONDS))
            calls += [link.submit("echo", timeout=SECONDS) for _ in range(20)]
            calls.append(link.submit("echo", sbe.In(area), timeout=SECONDS))
        link.restart(timeout=SECONDS)
        for call in calls:
            with pytest.raises(sbe.RemoteRestarted, match="restarted"):
                call.result()
        assert link.epoch != epoch
        reply = link.call("crc32", sbe.In(area), timeout=SECONDS)
        assert reply.payload == zlib.crc32(b"kept" * 1024).to_bytes(4, "little")
        assert link.stat()["connection"]["losses"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_asyncio_goes_on_meanwhile(
    kind: Callable[[Path], contextlib.AbstractContextManager[sbe.Connection]], tmp_path: Path
) -> None:
    async def main(link: sbe.Connection) -> None:
        stuck = link.submit("spin", timeout=SECONDS)
        waits = asyncio.create_task(link.acall("echo", timeout=SECONDS))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        while turns < 2:  # the other task has sent its call
            await asyncio.sleep(0)
        await link.arestart(timeout=SECONDS)
        before, after = turns, counting.cancel()
        assert (before > 2, after) == (True, True)
        for each in (waits, stuck):
            with pytest.raises(sbe.RemoteRestarted):
                await each
        assert (await link.acall("echo", payload=b"on", timeout=SECONDS)).payload == b"on"

    with kind(tmp_path) as link:
        link.call("echo")
        asyncio.run(main(link))


def test_a_frozen_process_too() -> None:
    with sbe.connect("loopback:") as link:
        pid = link.list()["links"][0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        link.restart(timeout=SECONDS)
        assert link.list()["links"][0]["pid"] != pid


def test_a_link_that_is_lost_comes_back() -> None:
    with sbe.connect("loopback:") as link:
        os.kill(link.list()["links"][0]["pid"], signal.SIGKILL)
        link.restart(timeout=SECONDS)
        assert link.call("echo", payload=b"on").payload == b"on"


def test_a_remote_of_functions() -> None:
    with (
        sbe.testing.Remote({"echo": lambda payload: payload}) as remote,
        remote.link() as link,
    ):
        epoch = link.epoch
        link.restart(timeout=SECONDS)
        assert link.epoch != epoch
        assert link.call("echo", payload=b"on").payload == b"on"


def test_what_nothing_can_restart_is_left_alone() -> None:
    with sbe.connect(Simulator()) as link:
        epoch = link.epoch
        with pytest.raises(sbe.Error, match="nothing here can restart simulator:") as raised:
            link.restart()
        assert raised.value.code == errno.EOPNOTSUPP
        assert (link.call("echo", payload=b"on").payload, link.epoch) == (b"on", epoch)


def test_a_closed_link_stays_closed() -> None:
    link = sbe.connect("loopback:")
    link.close()
    with pytest.raises(sbe.LinkClosed):
        link.restart()


# -- through a daemon: by its policy -------------------------------------------------------------


def test_others_hear_who_did_it_and_go_on(tmp_path: Path) -> None:
    with (
        daemon(tmp_path, link_table()) as running,
        connect(running) as one,
        connect(running) as other,
    ):
        area = other.allocate(4096)
        area[:] = b"kept" * 1024
        stuck = other.submit("spin", timeout=SECONDS)
        one.restart(timeout=SECONDS)
        with pytest.raises(sbe.RemoteRestarted) as raised:
            stuck.result()
        assert f"(process {os.getpid()}) of user {os.getuid()} had it restarted" in str(
            raised.value
        )
        reply = other.call("crc32", sbe.In(area), timeout=SECONDS)
        assert reply.payload == zlib.crc32(b"kept" * 1024).to_bytes(4, "little")
        assert "had it restarted" in running.log()


def test_restarts_that_were_asked_for_make_no_pause(tmp_path: Path) -> None:
    """Else who does so a dozen times has everybody wait for half a minute after the next crash."""
    pauses = "[[link]]\n[link.restart]\ninitial_seconds = 0.05\nmax_seconds = 3600.0\n"
    with daemon(tmp_path, pauses) as running:
        with connect(running) as link:
            for _ in range(16):
                link.restart(timeout=SECONDS)
        before = running.remote_pid()
        os.kill(before, signal.SIGKILL)
        running.wait_until(
            lambda: running.list()["links"][0]["pid"] not in (before, None), "no other remote"
        )


def test_policy_says_who_may(tmp_path: Path) -> None:
    never = '\n[policy.default]\nrestart = "never"\n'
    with daemon(tmp_path, link_table() + never) as running, connect(running) as link:
        epoch = link.epoch
        with pytest.raises(sbe.PermissionDenied) as raised:
            link.restart()
        words = f'that takes restart = "alone" under [policy.uid.{os.getuid()}], or a group'
        assert words in str(raised.value)
        assert (link.call("echo", payload=b"on").payload, link.epoch) == (b"on", epoch)


@pytest.mark.parametrize(
    ("word", "others", "may"),
    [
        ("never", False, False),
        ("never", True, False),
        ("alone", False, True),
        ("alone", True, False),
        ("always", False, True),
        ("always", True, True),
    ],
)
def test_who_is_alone_may_by_default(word: str, others: bool, may: bool) -> None:
    assert Quota().restart == "alone"
    quota = Quota.model_validate({"restart": word})
    if may:
        Policy.check_restart(quota, 1000, others)
        return
    with pytest.raises(sbe.PermissionDenied, match="takes restart = ") as raised:
        Policy.check_restart(quota, 1000, others)
    assert ("which other users use too" in str(raised.value)) is others


def test_a_remote_that_does_not_come_back_is_told(tmp_path: Path) -> None:
    program_of_link = tmp_path / "remote"
    program_of_link.symlink_to(program())
    config = f"[[link]]\ncommand = ['{program_of_link}']\n"
    with daemon(tmp_path, config) as running, connect(running) as link:
        program_of_link.unlink()
        with pytest.raises(sbe.Timeout, match=r"the remote is not back in time: .* is missing"):
            link.restart(timeout=0.5)
        program_of_link.symlink_to(program())
        link.restart(timeout=SECONDS)
        assert link.call("echo", payload=b"on", timeout=SECONDS).payload == b"on"


def test_cli_restarts_the_daemons_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path, link_table()) as running, connect(running) as link:
        epoch = link.epoch
        words = ["--uri", f"unix:{running.socket}", "firmware", "reset"]
        assert app.run([*words, "stubborn", "--json"]) == exit_codes.OK
        facts = json.loads(capsys.readouterr().out)
        assert (facts["name"], facts["state"]) == ("stubborn", "connected")
        assert facts["epoch"] != epoch
        with contextlib.suppress(sbe.RemoteRestarted):  # the loss, told once
            link.call("echo", timeout=SECONDS)
        link.call("echo", timeout=SECONDS)
        assert link.epoch == facts["epoch"]
        assert app.run([*words, "moon"]) == exit_codes.USAGE
        assert "the daemon's link is stubborn" in capsys.readouterr().err


# -- a core that a program resets ----------------------------------------------------------------


@pytest.mark.parametrize("value", [True, "qmp:", "reset-it", [1], ["a", ""], ["a\0"], {"a": 1}])
def test_what_is_no_reset(value: object) -> None:
    values = {"memory": "/m", "doorbell": "unix:/d", "reset": value}
    with pytest.raises(sbe.BadArgument, match=r"link.toml: reset = .* neither a list of words"):
        CarveoutConfig.parse(values, "link.toml")


def test_resets_of_a_configuration() -> None:
    values = {"memory": "/m", "doorbell": "unix:/d"}
    assert CarveoutConfig.parse(values, "x").reset == ()
    for given, taken in (("qmp:/a", "qmp:/a"), (["/a", "b"], ("/a", "b")), ([], ())):
        assert CarveoutConfig.parse({**values, "reset": given}, "x").reset == taken
