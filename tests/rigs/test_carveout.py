"""Carve-out links to a board that runs by itself: hosts that come, go and die."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import select
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sbe
from sbe import extras
from sbe.link.rings import Rings
from sbe.remotes.boards import Resident
from sbe.sdk import core
from sbe.transports.doorbell import open_unix
from tests.faults.attacks import application, remote
from tests.rigs.boards import BOARDS, FaultyBoard, check_works, faulty_image, require_board

pytestmark = [pytest.mark.rig, pytest.mark.timeout(120)]

HOST = """
import sys, sbe
link = sbe.connect(sys.argv[1])
area = link.allocate(1 << 20)
area[:] = b"x" * len(area)
link.call("crc32", sbe.In(area))
print("up", flush=True)
while True:
    link.call("crc32", sbe.In(area))
"""

# What the error of the call says that met it.
CRASH = r"\(the firmware crashed: undefined instruction \(.*\) at pc 0x.*, in service 'fault', tran"


@pytest.fixture
def uri(board: FaultyBoard) -> str:
    """Of the board, started and not of this process's links."""
    board.start()
    path = board.directory / "link.toml"
    path.write_text(f'memory = "{board.ram}"\ndoorbell = "unix:{board.directory / "db"}"\n')
    return f"carveout:{path}"


def test_hosts_come_and_go(uri: str, board: FaultyBoard) -> None:
    for _ in range(5):
        with sbe.connect(uri) as link:
            check_works(link)
            assert link.uri == uri
    assert board.alive


def test_hosts_die(uri: str, board: FaultyBoard) -> None:
    """The firmware lets go of a dead host's areas when the next one comes, else none is left."""
    for _ in range(4):
        host = subprocess.Popen(
            [sys.executable, "-c", HOST, uri], stdout=subprocess.PIPE, cwd=Path.cwd()
        )
        assert host.stdout is not None
        with host.stdout:
            assert host.stdout.readline() == b"up\n"
            host.kill()
            host.wait()
    with sbe.connect(uri) as link:
        area = link.allocate(12 << 20)
        link.call("crc32", sbe.In(area), timeout=20)


def test_host_starts_first(board: FaultyBoard) -> None:
    board._arguments = ("-S",)  # the core does not run yet
    board.start()
    path = board.directory / "link.toml"
    path.write_text(f'memory = "{board.ram}"\ndoorbell = "unix:{board.directory / "db"}"\n')
    late = threading.Timer(0.3, board.thaw)
    late.start()
    with sbe.connect(f"carveout:{path}") as link:
        check_works(link)
    late.join()


def test_firmware_restarts_under_a_host(uri: str, board: FaultyBoard) -> None:
    with sbe.connect(uri) as link:
        area = link.allocate(4096)
        area[:] = b"kept" * 1024
        for _ in range(5):
            before = link.call("crc32", sbe.In(area), timeout=10).payload
            board.reset()
            try:
                after = link.call("crc32", sbe.In(area), timeout=10).payload
            except sbe.RemoteRestarted:
                after = link.call("crc32", sbe.In(area), timeout=10).payload
            assert after == before


def test_crashed_firmware_of_another_owner(uri: str, board: FaultyBoard) -> None:
    with sbe.connect(uri, timeout=2.0) as link:
        with pytest.raises(sbe.RemoteRestarted, match=CRASH):
            link.call("fault", payload=b"h", timeout=10)
        board.reset()  # by whoever holds its power
        check_works(link)


@pytest.mark.parametrize("seed", range(3))
@application(1, 2, 3, 8)
@remote(1, 3, 9)
def test_rings_scribbled_over_by_either_end(
    uri: str, board: FaultyBoard, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call ends with its answer or an error, and the next host finds firmware that is well."""
    chance = random.Random(seed)
    rings: list[Rings] = []
    attach = core.attach  # type: ignore[attr-defined]

    def noted(of: Rings, *how: Any, **more: Any) -> Any:
        rings.append(of.duplicate())
        return attach(of, *how, **more)

    monkeypatch.setattr(core, "attach", noted)
    with sbe.connect(uri, timeout=5.0, slots=8, slot_size=256) as link:
        area = link.allocate(4096)
        wrong = 0
        for _ in range(200):
            last = rings[-1]
            near = 2 * last.line_bytes + 2 * 256  # indices and the first slots
            for _ in range(8):
                ring = chance.choice([last.send_offset, last.receive_offset])
                place = last.memory_offset + ring + chance.randrange(near // 4) * 4
                os.pwrite(last.memory_fd, chance.choice([b"\xff" * 4, chance.randbytes(4)]), place)
            os.write(last.ring_fd, (1).to_bytes(8, "little"))
            try:
                link.call("crc32", sbe.In(area[:64]), payload=b"", timeout=0.1)
            except sbe.Error:
                wrong += 1
        assert wrong
    for each in rings:
        each.close()
    monkeypatch.undo()
    assert board.crash() is None
    with sbe.connect(uri) as link:
        check_works(link)
        area = link.allocate(8 << 20)
        assert link.call("crc32", sbe.In(area), timeout=20)


def test_serial_doorbell(board: FaultyBoard) -> None:
    """The doorbell's bytes over a terminal line, as pyserial opens it."""
    pytest.importorskip("serial", reason=f"no pyserial: {extras.install('serial')}")
    board.start()
    with _serial_line(board) as device:
        path = board.directory / "link.toml"
        path.write_text(f'memory = "{board.ram}"\ndoorbell = "serial:{device},115200"\n')
        with sbe.connect(f"carveout:{path}") as link:
            for i in range(100):
                payload = b"%d" % i
                assert link.call("echo", payload=payload).payload == payload


@contextlib.contextmanager
def _serial_line(board: FaultyBoard) -> Iterator[str]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    stream = open_unix(str(board.directory / "db"))
    stop, stopped = os.pipe()

    def pass_on() -> None:
        while True:
            ready, _, _ = select.select([master, stream, stop], [], [])
            if stop in ready:
                return
            for source, target in ((master, stream), (stream, master)):
                if source in ready:
                    os.write(target, os.read(source, 4096))

    thread = threading.Thread(target=pass_on)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        os.close(stopped)
        thread.join()
        for fd in (master, slave, stream, stop):
            os.close(fd)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("memory = 'x'\n", "doorbell is missing"),
        ("memory = 'x'\ndoorbell = 'unix:y'\ncolour = 1\n", "'colour' is not one of"),
        ("memory = 'x'\ndoorbell = 'unix:y'\nsize = '16M'\n", "size = '16M' is no int"),
        ("memory = 'x'\ndoorbell = 'unix:y'\noffset = -1\n", "offset = -1"),
        ("memory = ", "link.toml"),
    ],
)
def test_wrong_configuration(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "link.toml").write_text(text)
    with pytest.raises(sbe.BadArgument, match=words):
        sbe.connect(f"carveout:{tmp_path / 'link.toml'}")


def test_nothing_there(tmp_path: Path) -> None:
    config = tmp_path / "link.toml"
    with pytest.raises(sbe.BadArgument, match="No such file"):
        sbe.connect(f"carveout:{config}")
    config.write_text(f"memory = '{tmp_path / 'ram'}'\ndoorbell = 'unix:{tmp_path / 'db'}'\n")
    with pytest.raises(sbe.LinkError, match=r"the shared RAM .*No such file"):
        sbe.connect(f"carveout:{config}")
    (tmp_path / "ram").write_bytes(bytes(100))
    with pytest.raises(sbe.BadArgument, match="has 100 bytes"):
        sbe.connect(f"carveout:{config}")
    (tmp_path / "ram").write_bytes(bytes(1 << 20))
    with pytest.raises(sbe.LinkError, match=r"the doorbell .*No such file"):
        sbe.connect(f"carveout:{config}")


@pytest.mark.parametrize("name", BOARDS)
def test_resident_board(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `sbe firmware` drives."""
    require_board(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    board = Resident.start("one", name, faulty_image(name))
    try:
        with pytest.raises(sbe.Busy, match="runs already"):
            Resident.start("one", name)
        with sbe.connect(board.uri, timeout=5.0) as link:
            check_works(link)
            board.freeze()
            assert board.state == "frozen"
            board.thaw()
            check_works(link)
            with pytest.raises(sbe.RemoteRestarted, match=r"asked to \(near 0x"):
                link.call("fault", payload=b"a", timeout=10)
        assert board.state == "crashed"
        crash = Resident.find("one").crash()
        assert crash is not None
        assert crash["kind"] == "assert"
        board.reset()
        with sbe.connect(board.uri) as link:
            check_works(link)
        assert board.state == "running"
        board.stop()
        assert [each.state for each in Resident.all()] == ["stopped"]
        with pytest.raises(sbe.LinkError, match="does not run"):
            board.freeze()
    finally:
        board.remove()
    with pytest.raises(sbe.BadArgument, match="there are: none"):
        Resident.find("one")
    with pytest.raises(sbe.BadArgument, match="is no name for a board"):
        Resident.start("../x", name)
