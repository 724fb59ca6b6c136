"""Power through the daemon: who may ask, what is run when a remote asks, what lists show."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
from tests.children import alive
from tests.integration.test_daemon import NOBODY, as_user, public_folder
from tests.integration.varlink_client import Daemon, daemon

__all__ = ["public_folder"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = "[policy.default]\npower = true\n"

# Asks for what its arguments say, one after the other, and writes the answers to a file.
REMOTE = """#!{python}
import os, socket, sys, threading
from tests.faults.raw_remote import Events, Life

_, _, fd, *rest = sys.argv
place, *asks = [word for word in rest if not word.startswith("--")]
events = Events()
life = Life(
    socket.socket(fileno=int(fd)),
    os.eventfd(0),
    lambda rings, frame: rings.put(frame.response()),
    events,
)
threading.Thread(target=life.run).start()
answers = [str(events.ask(*map(int, ask.split(":")))) for ask in asks]
with open(place + ".new", "w") as file:
    print(*answers, file=file)
os.rename(place + ".new", place)
"""


@contextlib.contextmanager
def asking(folder: Path, power: str, *asks: str) -> Iterator[tuple[Daemon, Path]]:
    """A daemon with this [link.power], and where its remote, which asks "event:value" each, puts
    the answers."""
    remote, told = folder / "remote.py", folder / "answers"
    remote.write_text(REMOTE.format(python=sys.executable))
    remote.chmod(0o755)
    config = f"[[link]]\ncommand = {[str(remote), str(told), *asks]!r}\n[link.power]\n{power}\n"
    with daemon(folder, config, environment={"PYTHONPATH": str(ROOT)}) as running:
        yield running, told


def answers_to(folder: Path, power: str, *asks: str) -> list[int]:
    """What such a daemon answers."""
    with asking(folder, power, *asks) as (running, told):
        running.wait_until(told.exists, "the remote has no answers")
        assert running.stop() == 0
    return [int(word) for word in told.read_text().split()]


def program(folder: Path, text: str) -> list[str]:
    """A program that notes its arguments, then does as the text says."""
    path = folder / "power.sh"
    path.write_text(f'echo "$@" >> "{folder}/called"\n{text}\n')
    return ["/bin/sh", str(path), "first"]


def called(folder: Path) -> list[str]:
    path = folder / "called"
    return path.read_text().splitlines() if path.exists() else []


# -- what the remote asks --------------------------------------------------------------------------


def test_the_program_is_run_for_what_the_remote_asks(tmp_path: Path):
    command = program(tmp_path, 'test "$2" != resume || exit 16')
    asks = ("2:0", "3:0", "4:1200000", "4:0")
    assert answers_to(tmp_path, f"command = {command!r}", *asks) == [0, errno.EBUSY, 0, 0]
    words = ["suspend", "resume", "frequency 1200000", "frequency 0"]
    assert called(tmp_path) == [f"first {word}" for word in words]


def test_without_a_program_the_answer_is_not_supported(tmp_path: Path):
    assert answers_to(tmp_path, "", "2:0", "3:7", "4:1") == [errno.EOPNOTSUPP] * 3


def test_a_program_that_is_not_there(tmp_path: Path):
    power = f"command = ['{tmp_path}/none']"
    assert answers_to(tmp_path, power, "2:0", "2:0") == [errno.ENOENT] * 2


def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path):
    text = f'sleep 1000 & echo $! > "{tmp_path}/pid"\nwait'
    power = f"command = {program(tmp_path, text)!r}\nseconds = 2.0"
    assert answers_to(tmp_path, power, "2:0") == [errno.ETIMEDOUT]
    pid = int((tmp_path / "pid").read_text())
    assert not alive(pid)


def test_a_program_that_a_signal_ends(tmp_path: Path):
    power = f"command = {program(tmp_path, 'kill -9 $$')!r}"
    assert answers_to(tmp_path, power, "2:0") == [errno.EIO]


def test_no_program_outlives_the_daemon(tmp_path: Path):
    text = f'echo $$ > "{tmp_path}/pid.new"\nmv "{tmp_path}/pid.new" "{tmp_path}/pid"\nsleep 1000'
    power = f"command = {program(tmp_path, text)!r}"
    with asking(tmp_path, power, "2:0") as (running, _):
        running.wait_until((tmp_path / "pid").exists, "the program was not run")
        assert running.stop() == 0
    assert not alive(int((tmp_path / "pid").read_text()))


# -- what clients ask ------------------------------------------------------------------------------


def test_the_policy_says_who_may(public_folder: Path):
    config = f'[policy.uid.{NOBODY}]\npower = true\n[daemon]\nmode = "0666"\n'
    with daemon(public_folder, config) as running:
        running.socket.parent.chmod(0o755)
        with as_user(NOBODY):
            guest = running.client()
        with guest, running.client() as client:
            client.open()
            guest.open()
            refused = client.refusal("Power", request="suspend")
            assert refused.code == errno.EPERM
            assert f"power = true under [policy.uid.{os.getuid()}]" in refused.message
            guest.call("Power", request="suspend")
            assert state(running) == "suspended"
            assert client.refusal("Power", request="resume").code == errno.EPERM
            guest.call("Power", request="resume")
            assert state(running) == "connected"


def test_a_group_may(tmp_path: Path):
    config = f"[policy.gid.{os.getgid()}]\npower = true\n"
    with daemon(tmp_path, config) as running, running.client() as client:
        client.open()
        client.call("Power", request="suspend")


def test_what_is_wrong_with_a_request(tmp_path: Path):
    with daemon(tmp_path, ALLOWED) as running, running.client() as client:
        assert "call Open first" in client.refusal("Power", request="suspend").message
        client.open()
        assert "suspend, resume, frequency" in client.refusal("Power", request="off").message
        for wrong in ({"khz": -1}, {"khz": 1 << 32}, {"timeout_ms": 0}, {"timeout_ms": 1 << 30}):
            refused = client.refusal("Power", request="frequency", **wrong)
            assert refused.code == errno.EINVAL
        assert client.refusal("Power", request="frequency").code == errno.EOPNOTSUPP
        client.call("Power", request="resume")


def state(running: Daemon) -> str:
    return str(running.list()["links"][0]["state"])


@pytest.fixture
def link(tmp_path: Path) -> Iterator[tuple[Daemon, sbe.Connection]]:
    with daemon(tmp_path, ALLOWED) as running, sbe.connect(f"unix:{running.socket}") as made:
        yield running, made


def test_the_sdk_over_the_daemon(link: tuple[Daemon, sbe.Connection]):
    running, connection = link
    connection.suspend()
    assert state(running) == "suspended"
    call = connection.submit("echo", payload=b"x")
    with sbe.connect(f"unix:{running.socket}") as other:
        with pytest.raises(sbe.Timeout):
            other.call("echo", timeout=0.05)
        other.resume()
    assert call.result().payload == b"x"
    with pytest.raises(sbe.BadArgument, match=r"\[link\.power\]"):
        connection.on_power(lambda request, khz: None)


def test_a_remote_that_dies_is_not_suspended_any_more(link: tuple[Daemon, sbe.Connection]):
    running, connection = link
    connection.suspend()
    waits = connection.submit("echo")
    former = running.remote_pid()
    os.kill(former, signal.SIGKILL)
    with pytest.raises(sbe.RemoteRestarted):
        waits.result()
    assert connection.call("echo", payload=b"y").payload == b"y"
    assert running.remote_pid() != former
    assert state(running) == "connected"


def test_a_client_that_dies_leaves_nothing_while_suspended(link: tuple[Daemon, sbe.Connection]):
    running, connection = link
    connection.suspend()
    with running.client() as client:
        client.open()
        client.call("Allocate", size=4096)
        client.call("OpenChannel")
    running.wait_until(lambda: len(running.list()["contexts"]) == 1, "its context is still there")
    assert state(running) == "suspended"
    connection.resume()
    connection.close()
    running.wait_until_empty()
