"""Cores that hang or crashed are started anew by who uses them, and who was there hears why."""

from __future__ import annotations

import contextlib
import errno
import sys
from pathlib import Path

import pytest

import sbe
from sbe.cli import app, exit_codes
from sbe.remotes.boards import Resident
from tests.faults.stubborn import begin, ends_with
from tests.integration.varlink_client import daemon
from tests.rigs.boards import FaultyBoard, faulty_image, require_board
from tests.rigs.test_carveout_daemon import configuration

pytestmark = [pytest.mark.rig, pytest.mark.timeout(180)]

BOOT_S = 20.0
BOARD = "mps2-an521"
CRASH = r"the firmware crashed: undefined instruction .* at pc 0x.*, in service 'fault', tran"


def check_works(link: sbe.Connection) -> None:
    assert link.call("echo", payload=b"alive", timeout=BOOT_S).payload == b"alive"


def check_restarts(link: sbe.Connection) -> None:
    """Out of an endless loop with interrupts off: nothing but a reset helps."""
    area = link.allocate(4096)
    area[:] = b"kept" * 1024
    before = link.call("crc32", sbe.In(area), timeout=BOOT_S).payload
    check_works(link)
    epoch = link.epoch
    stuck = [link.submit("fault", payload=b"s", timeout=BOOT_S)]
    stuck += [link.submit("echo", timeout=BOOT_S) for _ in range(3)]
    link.restart(timeout=BOOT_S)
    for call in stuck:
        with pytest.raises(sbe.RemoteRestarted, match="restarted"):
            call.result()
    assert link.epoch != epoch
    assert link.call("crc32", sbe.In(area), timeout=BOOT_S).payload == before


def program(tmp_path: Path, board: FaultyBoard) -> list[str]:
    """What an integrator would write: it resets the core."""
    path = tmp_path / "reset.py"
    path.write_text(
        "import sys\nfrom pathlib import Path\nfrom sbe.remotes.boards import qemu\n"
        "qemu.reset(Path(sys.argv[1]))\n"
    )
    return [sys.executable, str(path), str(board.directory / "qmp")]


def test_an_emulated_board(link: sbe.Connection) -> None:
    check_restarts(link)


def test_a_resident_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_board(BOARD)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    board = Resident.start("one", BOARD, faulty_image(BOARD))
    try:
        with sbe.connect(board.uri) as link:
            check_restarts(link)
    finally:
        board.remove()


def test_a_carveout_with_a_program(board: FaultyBoard, tmp_path: Path) -> None:
    board.start()
    path = tmp_path / "link.toml"
    command = ", ".join(f'"{word}"' for word in program(tmp_path, board))
    path.write_text(
        f'memory = "{board.ram}"\ndoorbell = "unix:{board.directory / "db"}"\nreset = [{command}]\n'
    )
    with sbe.connect(f"carveout:{path}") as link:
        check_restarts(link)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/nowhere/reset"], r"/nowhere/reset, which is to reset the core, can't be run: No such"),
        (
            ["/bin/sh", "-c", "echo no power; exit 3"],
            r"/bin/sh, which is to reset the core, ended with status 3: no power",
        ),
        ([], r"nothing here can restart carveout:.* takes reset = \[\"PROGRAM\""),
    ],
    ids=["missing", "failing", "none"],
)
def test_a_reset_that_fails_ends_nothing(
    board: FaultyBoard, tmp_path: Path, command: list[str], words: str
) -> None:
    board.start()
    path = tmp_path / "link.toml"
    listed = ", ".join(f'"{word}"' for word in command)
    path.write_text(
        f'memory = "{board.ram}"\ndoorbell = "unix:{board.directory / "db"}"\nreset = [{listed}]\n'
    )
    with sbe.connect(f"carveout:{path}") as link:
        check_works(link)
        epoch = link.epoch
        with pytest.raises(sbe.Error, match=words) as raised:
            link.restart()
        assert command or raised.value.code == errno.EOPNOTSUPP
        check_works(link)
        assert link.epoch == epoch


def test_through_a_daemon(board: FaultyBoard, tmp_path: Path) -> None:
    board.start()
    keys = f"reset = {program(tmp_path, board)!r}\n"
    with daemon(tmp_path, configuration(board, keys)) as running:
        uri = f"unix:{running.socket}"
        with sbe.connect(uri) as link:
            check_restarts(link)
            words = ["--uri", uri, "firmware", "reset", "m33"]
            assert app.run(words) == exit_codes.OK
            with pytest.raises(sbe.RemoteRestarted, match="had it restarted"):
                link.call("echo", timeout=BOOT_S)
            check_works(link)


def test_a_daemon_resets_a_core_that_hangs(board: FaultyBoard, tmp_path: Path) -> None:
    board.start()
    keys = f"answer_seconds = 1.0\nstuck_seconds = 2.0\nreset = {program(tmp_path, board)!r}\n"
    with (
        daemon(tmp_path, configuration(board, keys)) as running,
        sbe.connect(f"unix:{running.socket}") as evil,
        sbe.connect(f"unix:{running.socket}") as good,
    ):
        check_works(evil)
        stuck = begin(evil, "fault", b"s")
        ends_with(sbe.RemoteRestarted, lambda: good.allocate(4096))
        with pytest.raises(sbe.RemoteRestarted) as raised:
            stuck.result()
        assert "the remote was given up: no answer to a ping" in str(raised.value)
        assert ": service 'fault' of " in str(raised.value)
        assert "without a sign of life" in str(raised.value)
        with contextlib.suppress(sbe.RemoteRestarted):  # the loss, told once
            check_works(good)
        check_works(good)


def test_the_crash_record_reaches_every_caller(board: FaultyBoard, tmp_path: Path) -> None:
    """Those in flight, those who were told between two calls, and those who come meanwhile."""
    board.start()
    with (
        daemon(tmp_path, configuration(board, "answer_seconds = 1.0\n")) as running,
        sbe.connect(f"unix:{running.socket}") as one,
        sbe.connect(f"unix:{running.socket}") as other,
    ):
        for link in (one, other):
            check_works(link)
        with pytest.raises(sbe.RemoteRestarted, match=CRASH):
            one.call("fault", payload=b"h", timeout=BOOT_S)
        with pytest.raises(sbe.RemoteRestarted, match=CRASH):
            other.call("echo", timeout=BOOT_S)
        running.wait_until(lambda: "the firmware crashed" in running.log())
        with pytest.raises(sbe.LinkError, match=CRASH):  # it is still down
            one.call("echo", timeout=BOOT_S)
        board.reset()
        running.wait_until(lambda: running.list()["links"][0]["state"] == "connected")
        check_works(one)
