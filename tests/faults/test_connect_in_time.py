"""Connecting ends in its time, whatever is at the other end, and says how far it came."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import sbe
from sbe import _native
from sbe.cli import app, exit_codes
from sbe.remotes.boards import QemuBoard
from sbe.remotes.process import RemoteProcess
from tests.faults.stubborn import begin, link_table
from tests.integration.varlink_client import daemon
from tests.rigs.boards import image, require_board

SHORT_S = 0.5
SLACK_S = 3.0  # for a busy machine: far less than any of the usual limits


def refused(connect: Callable[[], object]) -> str:
    """The words of the Timeout, which comes in time."""
    begun = time.monotonic()
    with pytest.raises(sbe.Timeout) as raised:
        connect()
    assert time.monotonic() - begun < SHORT_S + SLACK_S
    return str(raised.value)


@pytest.fixture
def mute(tmp_path: Path) -> Path:
    """A remote that hangs before it has said anything, and heeds no SIGTERM."""
    path = tmp_path / "mute"
    path.write_text("#!/bin/sh\ntrap '' TERM\nexec sleep 1000\n")
    path.chmod(0o755)
    return path


# -- without a daemon ----------------------------------------------------------------------------


def test_a_process_that_says_nothing(mute: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBE_REMOTE", str(mute))
    words = refused(lambda: sbe.connect("loopback:", timeout=SHORT_S))
    assert words.startswith("no link to loopback: within 0.5 s: the negotiation with the remote: ")
    assert words.endswith(") runs and has sent nothing yet")
    assert "mute (process " in words


class Freezing(RemoteProcess):
    """Is stopped as it is about to be asked for something."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self._asked = asked

    def connect(self) -> Any:
        transport: Any = super().connect()
        send = transport.send

        def send_or_freeze(message: bytes, fds: Sequence[int] = ()) -> None:
            if int.from_bytes(message[:2], "little") == self._asked:
                assert self.pid is not None
                os.kill(self.pid, signal.SIGSTOP)
            send(message, fds)

        transport.send = send_or_freeze
        return transport


@pytest.mark.parametrize(
    ("asked", "step"),
    [
        (_native.CONTROL_CONTEXT_CREATE, "creation of context 1"),
        (_native.CONTROL_AREA_MAP, "mapping of an area of "),
        (_native.CONTROL_CHANNEL_OPEN, "opening of channel 1"),
    ],
)
def test_a_process_that_stops_at_a_later_step(asked: int, step: str) -> None:
    remote = Freezing(asked)
    words = refused(lambda: sbe.connect(remote, timeout=SHORT_S))
    assert words.startswith(f"no link to loopback: within 0.5 s: {step}")
    assert remote.exit_description is not None  # nothing is left of it


def carveout(tmp_path: Path) -> tuple[str, socket.socket]:
    """A window of RAM without firmware, and its doorbell, which nobody hears."""
    (tmp_path / "ram").touch()
    os.truncate(tmp_path / "ram", 16 << 20)
    bell = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bell.bind(str(tmp_path / "db"))
    bell.listen(1)
    (tmp_path / "link.toml").write_text(
        f'memory = "{tmp_path / "ram"}"\ndoorbell = "unix:{tmp_path / "db"}"\n'
    )
    return f"carveout:{tmp_path / 'link.toml'}", bell


def test_a_carveout_without_firmware(tmp_path: Path) -> None:
    uri, bell = carveout(tmp_path)
    with bell:
        words = refused(lambda: sbe.connect(uri, timeout=SHORT_S))
    assert words.startswith(f"no link to {uri} within 0.5 s: the negotiation with the remote: ")
    assert words.endswith(
        ": no firmware has shown itself in the shared RAM: does it run, and has it no other host?"
    )


@pytest.mark.rig
def test_a_board_whose_firmware_does_not_begin() -> None:
    require_board("mps2-an521")
    board = QemuBoard("mps2-an521", image("mps2-an521"), arguments=("-S",))
    words = refused(lambda: sbe.connect(board, timeout=SHORT_S))
    assert words.endswith(") runs, its firmware has not shown itself yet")


# -- through a daemon ----------------------------------------------------------------------------


def test_a_daemon_that_is_frozen(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        os.kill(running.pid, signal.SIGSTOP)
        uri = f"unix:{running.socket}"
        words = refused(lambda: sbe.connect(uri, timeout=SHORT_S))
        assert words.startswith(f"no link to {uri} within 0.5 s: the daemon at ")
        assert words.endswith(" did not answer Open in time")
        os.kill(running.pid, signal.SIGCONT)


def test_a_daemon_that_takes_nobody(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first,
    ):
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        words = refused(lambda: sbe.connect(f"unix:{path}", timeout=SHORT_S))
        assert "has too many who wait, and has not taken this one" in words


def test_a_daemon_whose_remote_does_not_begin(tmp_path: Path, mute: Path) -> None:
    config = f"[[link]]\ncommand = ['{mute}']\nanswer_seconds = 60\n"
    with daemon(tmp_path, config, until="listening") as running:
        words = refused(lambda: sbe.connect(f"unix:{running.socket}", timeout=SHORT_S))
        assert ": link 'embedded': the remote is starting: mute (process " in words
        assert words.endswith(") runs and has sent nothing yet")


def test_a_daemon_whose_remote_hangs(tmp_path: Path) -> None:
    with daemon(tmp_path, link_table()) as running:
        uri = f"unix:{running.socket}"
        with sbe.connect(uri) as evil:
            evil.call("echo")
            begin(evil, "spin")
            words = refused(lambda: sbe.connect(uri, timeout=SHORT_S))
            assert (
                "link 'stubborn': the remote is connected and has not answered in time: " in words
            )
            assert ": service 'spin' of " in words


# -- from a shell --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("call", "echo"), ("ping",)])
def test_the_option_of_commands(
    command: tuple[str, ...],
    mute: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SBE_REMOTE", str(mute))
    begun = time.monotonic()
    code = app.run(["--uri", "loopback:", *command, "-W", str(SHORT_S)])
    assert code == exit_codes.TIMEOUT
    assert time.monotonic() - begun < SHORT_S + SLACK_S
    assert "no link to loopback: within 0.5 s: the negotiation" in capsys.readouterr().err
