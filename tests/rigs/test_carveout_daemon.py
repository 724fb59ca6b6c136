"""A daemon whose co-processor shares a window of RAM and a byte stream with it, nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
from sbe.control import PROTOCOL
from tests.faults.arena import Attacker, attack
from tests.faults.attacks import application
from tests.integration.varlink_client import Daemon, daemon
from tests.rigs.boards import FaultyBoard, check_log_region, check_works

pytestmark = [pytest.mark.rig, pytest.mark.timeout(120)]


def configuration(board: FaultyBoard, keys: str = "") -> str:
    return f"""
[[link]]
name = "m33"
transport = "carveout"
memory = "{board.ram}"
doorbell = "unix:{board.directory / "db"}"
trust_clients = true
{keys}
[link.restart]
initial_seconds = 0.01
max_seconds = 0.1
"""


@pytest.fixture
def running(board: FaultyBoard, tmp_path: Path) -> Iterator[Daemon]:
    board.start()
    with daemon(tmp_path, configuration(board)) as running:
        yield running


def connect(running: Daemon) -> sbe.Connection:
    return sbe.connect(f"unix:{running.socket}")


def test_clients_share_the_window(running: Daemon, board: FaultyBoard) -> None:
    with connect(running) as one, connect(running) as other:
        mine, theirs = one.allocate(4096), other.allocate(1 << 20)
        mine[:], theirs[:] = b"m" * 4096, b"t" * (1 << 20)
        one.call("invert", sbe.InOut(mine))
        other.call("invert", sbe.InOut(theirs))
        assert bytes(mine) == b"\x92" * 4096
        assert bytes(theirs) == b"\x8b" * (1 << 20)
        # Each may map the other's memory, but the firmware takes buffers of its context only.
        assert {row["heap"] for row in one.list()["areas"]} == {"carveout"}
        (link,) = one.list()["links"]
        assert (link["name"], link["transport"], link["pid"]) == ("m33", "carveout", None)
        with pytest.raises(sbe.OutOfResources, match=r"carveout: \d+ bytes asked for; of"):
            one.allocate(15 << 20)
    running.wait_until_empty()


def test_memory_of_the_firmware(running: Daemon, board: FaultyBoard) -> None:
    with connect(running) as link:
        check_log_region(link, board)
        assert running.used()["bytes"] < 1 << 20  # the rings; the log is the firmware's
    running.wait_until_empty()


def test_other_ends_offer_no_regions(tmp_path: Path) -> None:
    with daemon(tmp_path) as running, connect(running) as link:
        assert link.regions() == {}
        with pytest.raises(sbe.BadArgument, match="no region 'log'; it offers: none"):
            link.region("log")


def test_daemon_starts_first(board: FaultyBoard, tmp_path: Path) -> None:
    with daemon(tmp_path, configuration(board), until="not connected") as running:
        assert f"the shared RAM {board.ram}: No such file or directory" in running.log()
        with running.client() as client:
            assert "No such file" in client.refusal("Open", protocol=PROTOCOL, name="early").message
        board.start()
        running.wait_until(lambda: "is connected" in running.log())
        with connect(running) as link:
            check_works(link)


def test_firmware_crashes(running: Daemon, board: FaultyBoard) -> None:
    with connect(running) as link:
        area = link.allocate(4096)
        area[:] = b"kept" * 1024
        before = link.call("crc32", sbe.In(area)).payload
        for _ in range(3):
            with pytest.raises(sbe.RemoteRestarted):
                link.call("fault", payload=b"h", timeout=10)
            board.reset()
            running.wait_until(lambda: running.list()["links"][0]["state"] == "connected")
            assert link.call("crc32", sbe.In(area), timeout=10).payload == before
    assert "the firmware crashed: " in running.log()
    running.wait_until_empty()


def test_daemon_dies(running: Daemon, board: FaultyBoard, tmp_path: Path) -> None:
    """The next one begins over memory that is as the first has left it."""
    with connect(running) as link:
        area = link.allocate(1 << 20)
        future = link.submit("crc32", sbe.In(area))
        running.process.kill()
        with contextlib.suppress(sbe.LinkError):  # it may have been answered before
            future.result(10)
        with pytest.raises(sbe.DaemonGone):
            link.allocate(4096)
    folder = tmp_path / "next"
    folder.mkdir()
    with daemon(folder, configuration(board)) as later, connect(later) as link:
        check_works(link)
        link.allocate(8 << 20).free()  # nothing of the former life is left


def test_frozen_firmware_is_told(board: FaultyBoard, tmp_path: Path) -> None:
    board.start()
    with (
        daemon(tmp_path, configuration(board, "answer_seconds = 1.0")) as running,
        connect(running) as link,
    ):
        epoch = link.epoch
        board.freeze()
        with pytest.raises(sbe.Error):
            link.find("fir")  # the daemon asks, and asks whether anybody is there
        assert "no answer to a ping" in running.log()
        board.thaw()
        running.wait_until(lambda: running.list()["links"][0]["state"] == "connected")
        with contextlib.suppress(sbe.RemoteRestarted):  # the loss, told once
            link.call("echo", timeout=10)
        check_works(link)
        assert link.epoch != epoch


@application(1, 2, 3, 4, 8, 25)
def test_a_hostile_client_hurts_nobody_else(running: Daemon, board: FaultyBoard) -> None:
    """It is trusted with the window's memory, and still keeps to none of the rules of its own."""
    with connect(running) as bystander:
        area = bystander.allocate(4096)
        area[:] = b"kept" * 1024
        before = bystander.call("crc32", sbe.In(area), timeout=10).payload
        for seed in range(6):
            attack(Attacker(running.client()), seed)
            check_works(bystander)
            assert bystander.call("crc32", sbe.In(area), timeout=10).payload == before
        check_works(bystander)
    running.wait_until_empty()
    assert running.list()["links"][0]["state"] == "connected"
