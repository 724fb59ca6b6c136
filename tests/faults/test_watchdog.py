"""A remote that works for long is let work, one that hangs is ended; both are named."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from pathlib import Path

import sbe
from sbe.remotes.process import RemoteProcess
from tests.faults.stubborn import begin, ends_with, link_table, milliseconds, program
from tests.integration.varlink_client import SECONDS, Daemon, daemon

SOON = "answer_seconds = 0.2\n"


def connect(running: Daemon) -> sbe.Connection:
    return sbe.connect(f"unix:{running.socket}", timeout=SECONDS)


def restarts(running: Daemon) -> int:
    number: int = running.stat()["links"][0]["restarts"]
    return number


def test_a_service_that_hangs_is_ended_and_named(tmp_path: Path) -> None:
    with (
        daemon(tmp_path, link_table(SOON + "stuck_seconds = 0.6")) as running,
        connect(running) as evil,
        connect(running) as good,
    ):
        good.call("echo")
        evil.find("echo")
        held = begin(evil, "spin")
        waiting = [good.submit("echo", timeout=SECONDS) for _ in range(3)]
        began = time.monotonic()
        ends_with(sbe.RemoteRestarted, lambda: good.allocate(4096))  # it asks, and is told why
        assert time.monotonic() - began > 0.6
        said = [ends_with(sbe.RemoteRestarted, call.result) for call in (held, *waiting)]
        for words in said:
            assert "the remote was given up: no answer to a ping within " in words
            assert ": service 'spin' of " in words
            behind = re.search(r"s without a sign of life; (\d+) calls wait behind it", words)
            assert behind is not None
            assert int(behind[1]) >= 3
        assert "service 'spin' of " in running.log()
        assert good.call("echo", payload=b"on", timeout=SECONDS).payload == b"on"
        running.wait_until(lambda: restarts(running) == 1)


def test_a_service_that_works_is_let_work(tmp_path: Path) -> None:
    """Longer than a ping may take and than a hang may last, in one piece that shows itself."""
    with (
        daemon(tmp_path, link_table(SOON + "stuck_seconds = 0.6")) as running,
        connect(running) as busy,
        connect(running) as other,
    ):
        epoch = other.epoch
        busy.find("echo")
        work = begin(busy, "toil", milliseconds(2500))
        area = other.allocate(4096)  # waits for the remote to read it
        assert work.result() is not None
        assert other.call("crc32", sbe.In(area)).payload
        assert (other.epoch, restarts(running)) == (epoch, 0)
        assert "the remote is let go on: service 'toil' of " in running.log()
        assert "s and is at work" in running.log()


def test_work_has_a_limit_too(tmp_path: Path) -> None:
    """Whoever uses a channel can write what the remote shows in it: it buys time, not for ever."""
    keys = SOON + "stuck_seconds = 'never'\nwork_seconds = 1.0"
    with (
        daemon(tmp_path, link_table(keys)) as running,
        connect(running) as busy,
        connect(running) as other,
    ):
        busy.find("echo")
        held = begin(busy, "toil", milliseconds(1 << 31))
        ends_with(sbe.RemoteRestarted, lambda: other.allocate(4096))
        assert "service 'toil'" in ends_with(sbe.RemoteRestarted, held.result)
        running.wait_until(lambda: restarts(running) == 1)


def test_never_leaves_it_to_people(tmp_path: Path) -> None:
    keys = SOON + "stuck_seconds = 'never'\nwork_seconds = 'never'"
    with (
        daemon(tmp_path, link_table(keys)) as running,
        connect(running) as evil,
        connect(running) as good,
    ):
        evil.find("echo")
        held = begin(evil, "spin")
        asking = threading.Thread(
            target=lambda: ends_with(sbe.RemoteRestarted, lambda: good.allocate(4096))
        )
        asking.start()
        running.wait_until(lambda: "is let go on: service 'spin'" in running.log())
        assert restarts(running) == 0
        evil.restart(timeout=SECONDS)
        asking.join(SECONDS)
        assert not asking.is_alive()
        assert "had it restarted" in ends_with(sbe.RemoteRestarted, held.result)
        with contextlib.suppress(sbe.RemoteRestarted):  # the loss, told once
            good.call("echo", timeout=SECONDS)
        assert good.call("echo", payload=b"on", timeout=SECONDS).payload == b"on"


def test_without_a_daemon_the_same_is_told() -> None:
    remote = RemoteProcess(program())
    with sbe.connect(remote, timeout=0.6) as link:
        link.find("echo")
        held = begin(link, "spin")
        words = ends_with(sbe.Timeout, lambda: link.allocate(4096))
        assert "the remote has not answered within 0.6 s: service 'spin' has run for " in words
        assert "s without a sign of life; " in words
        link.restart(timeout=SECONDS)
        assert "restarted by this end" in ends_with(sbe.RemoteRestarted, held.result)
        link.find("echo")
        work = begin(link, "toil", milliseconds(1500))
        assert "s and is at work; " in ends_with(sbe.Timeout, lambda: link.find("crc32"))
        assert work.result() is not None
