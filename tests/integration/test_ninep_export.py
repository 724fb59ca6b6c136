"""Either end of an export dies, hangs or gives up: an error that says so, and nothing is left."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sbe
from sbe.ninep import Quota
from sbe.sdk.ninep_wire import MESSAGE, OPEN
from tests.integration import ninep
from tests.integration.ninep import LIMIT_S, message, wait_until
from tests.integration.test_daemon import NOBODY, as_user, public_folder
from tests.integration.varlink_client import Daemon, daemon
from tests.unit.test_ninep_session import opened_below

__all__ = ["public_folder"]  # a fixture

EXPORT = """
import sys, sbe
with sbe.connect(sys.argv[1]) as link, link.export_9p(sys.argv[2]) as exported:
    shared = exported.share()
    while not exported.sessions:
        assert not shared.done(), shared.exception()
    print("shared", flush=True)
    shared.result()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a file that takes for ever to be read, and one that does not."""
    made = tmp_path / "exported"
    made.mkdir()
    (made / "small").write_bytes(b"small")
    with (made / "endless").open("wb") as file:
        file.truncate(1 << 43)
    return made


def small(link: sbe.Connection) -> tuple[int, int, int]:
    reply = link.call("digest", payload=b"small", timeout=LIMIT_S)
    size, crc, error = struct.unpack("<QIi", reply.payload)
    return size, crc, error


SMALL = (5, zlib.crc32(b"small"), 0)


def remote_pid(link: sbe.Connection) -> int:
    (entry,) = link.list()["links"]
    return int(entry["pid"])


@pytest.mark.parametrize("by_reference", [False, True])
def test_the_remote_dies_in_the_middle(folder: Path, by_reference: bool) -> None:
    with sbe.connect("loopback:") as link, link.export_9p(folder) as exported:
        buffers = (sbe.Out(link.allocate(1 << 16)),) if by_reference else ()
        call = link.submit("digest", *buffers, payload=b"endless", timeout=None)
        wait_until(
            lambda: opened_below(folder / "endless") == 2
        )  # what names it, and what reads it
        os.kill(remote_pid(link), signal.SIGKILL)
        with pytest.raises(sbe.RemoteRestarted):
            call.result(LIMIT_S)
        wait_until(lambda: exported.sessions == 0)
        assert opened_below(folder / "endless") == 0
        assert small(link) == SMALL


@pytest.mark.parametrize("by_reference", [False, True])
def test_whoever_asked_gives_up(folder: Path, by_reference: bool) -> None:
    with sbe.connect("loopback:") as link, link.export_9p(folder) as exported:
        for _ in range(20):  # more than there is room for at a time
            buffers = (sbe.Out(link.allocate(1 << 16)),) if by_reference else ()
            call = link.submit("digest", *buffers, payload=b"endless", timeout=None)
            wait_until(lambda: opened_below(folder / "endless") == 2)
            call.cancel()
            with pytest.raises(sbe.Cancelled):
                call.result(LIMIT_S)
            wait_until(lambda: exported.sessions == 0)
            assert opened_below(folder / "endless") == 0
        assert small(link) == SMALL


def test_the_connection_is_closed_in_the_middle(folder: Path) -> None:
    link = sbe.connect("loopback:")
    exported = link.export_9p(folder)
    call = link.submit("digest", payload=b"endless", timeout=None)
    wait_until(lambda: opened_below(folder / "endless") == 2)
    link.close()
    with pytest.raises(sbe.LinkClosed):
        call.result(LIMIT_S)
    wait_until(lambda: exported.sessions == 0)
    exported.close()
    assert opened_below(folder / "endless") == 0


def test_an_export_is_closed_in_the_middle(folder: Path) -> None:
    with sbe.connect("loopback:") as link:
        with link.export_9p(folder):
            call = link.submit("digest", payload=b"endless", timeout=LIMIT_S)
            wait_until(lambda: opened_below(folder / "endless") == 2)
        with pytest.raises(sbe.RemoteError) as caught:
            call.result(LIMIT_S)
        assert caught.value.code in (errno.EIO, errno.ENOENT)
        wait_until(lambda: opened_below(folder / "endless") == 0)
        with link.export_9p(folder):
            assert small(link) == SMALL


def test_a_closed_export_has_no_sessions(folder: Path) -> None:
    with sbe.connect("loopback:") as link:
        exported = link.export_9p(folder)
        shared = exported.share()
        wait_until(lambda: exported.sessions == 1)
        exported.close()
        wait_until(lambda: exported.sessions == 0)
        shared.cancel()
        with pytest.raises(sbe.Error):  # cancelled, or refused as it had just begun
            shared.result(LIMIT_S)
        with link.export_9p(folder) as exported:
            assert small(link) == SMALL


def test_a_folder_is_open_until_its_last_session_ends(folder: Path) -> None:
    """Its descriptor's number may be another file's at once."""
    began, goes_on = threading.Event(), threading.Event()

    async def hold(payload: bytes) -> None:  # the loop that sessions run in
        began.set()
        goes_on.wait(LIMIT_S)

    with sbe.connect("loopback:") as link:
        exported = link.export_9p(folder)
        shared = exported.share()
        wait_until(lambda: exported.sessions == 1)
        link.serve("hold", hold)
        held = link.submit("relay", payload=b"hold\0")
        assert began.wait(LIMIT_S)
        exported.close()
        named = opened_below(folder)
        goes_on.set()
        assert named > 1  # the folder, and what its session has
        held.result(LIMIT_S)
        wait_until(lambda: opened_below(folder) == 0)
        shared.cancel()


def test_calls_that_are_none(folder: Path) -> None:
    """By `relay`, which passes on what a remote would not say."""
    with sbe.connect("loopback:") as link, link.export_9p(folder, quota=Quota(sessions=3)) as it:

        def refused(call: bytes) -> int:
            with pytest.raises(sbe.Error) as caught:
                link.call("relay", payload=b"files\0" + call, timeout=LIMIT_S)
            return caught.value.code

        statfs = message(ninep.STATFS, 1, bytes(4))
        assert refused(b"") == refused(b"\1\0\0\0\1") == errno.EBADMSG
        assert refused(struct.pack("<II", 3, 1)) == errno.EINVAL
        assert refused(struct.pack("<II", MESSAGE, 1) + statfs) == errno.ENOENT
        assert refused(struct.pack("<II", OPEN, 0)) == errno.EEXIST
        open_ = [
            link.submit("relay", payload=b"files\0" + struct.pack("<II", OPEN, number))
            for number in (1, 2, 0xFFFFFFFF)
        ]
        wait_until(lambda: it.sessions == 3)
        assert refused(struct.pack("<II", OPEN, 2)) == errno.EEXIST
        assert refused(struct.pack("<II", OPEN, 4)) == errno.EBUSY
        assert refused(struct.pack("<II", MESSAGE, 1) + statfs[:-1]) == errno.EBADMSG
        asked = b"files\0" + struct.pack("<II", MESSAGE, 1) + statfs
        answer = link.call("relay", payload=asked, timeout=LIMIT_S).payload
        assert answer == struct.pack("<IBHI", 11, ninep.RLERROR, 1, errno.EPROTO)
        for call in open_:
            call.cancel()
        wait_until(lambda: it.sessions == 0)
        assert small(link) == SMALL


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Daemon]:
    with daemon(tmp_path) as started:
        yield started


@pytest.fixture
def exporter(running: Daemon, folder: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a process that exports the folder to all of this user."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", EXPORT, f"unix:{running.socket}", os.fspath(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "shared\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(LIMIT_S)
        assert process.stdout is not None
        process.stdout.close()


Start = Callable[[], "subprocess.Popen[str]"]


def test_the_exporter_dies_in_the_middle(running: Daemon, exporter: Start) -> None:
    with sbe.connect(f"unix:{running.socket}") as link:
        for _ in range(3):
            process = exporter()
            call = link.submit("digest", payload=b"endless", timeout=None)
            assert small(link) == SMALL
            process.kill()
            with pytest.raises(sbe.RemoteError) as caught:
                call.result(LIMIT_S)
            assert caught.value.code == errno.EIO
            with pytest.raises(sbe.UnknownService):
                small(link)


def test_the_exporter_hangs(running: Daemon, exporter: Start) -> None:
    process = exporter()
    with sbe.connect(f"unix:{running.socket}") as link:
        assert small(link) == SMALL
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(sbe.Timeout):
            link.call("digest", payload=b"small", timeout=0.3)
        assert link.call("echo", payload=b"others go on").payload == b"others go on"
        process.send_signal(signal.SIGCONT)
        assert small(link) == SMALL


def test_the_remote_restarts_under_a_shared_export(running: Daemon, exporter: Start) -> None:
    process = exporter()
    with sbe.connect(f"unix:{running.socket}") as link:
        call = link.submit("digest", payload=b"endless", timeout=None)
        os.kill(running.remote_pid(), signal.SIGKILL)
        with pytest.raises(sbe.RemoteRestarted):
            call.result(LIMIT_S)
        assert process.wait(LIMIT_S) != 0  # it is told, too
        exporter()
        assert small(link) == SMALL


def test_another_user_does_not_have_it(public_folder: Path, folder: Path) -> None:
    with daemon(public_folder, '[daemon]\nmode = "0666"\n') as running:
        running.socket.parent.chmod(0o755)
        uri = f"unix:{running.socket}"
        with as_user(NOBODY):
            other = sbe.connect(uri)
        with other, sbe.connect(uri) as mine, sbe.connect(uri) as also_mine:
            exported = mine.export_9p(folder)
            exported.share()
            wait_until(lambda: exported.sessions == 1)
            assert small(also_mine) == SMALL
            with pytest.raises(sbe.UnknownService):
                small(other)
            theirs = other.export_9p(folder)  # each user has an export
            theirs.share()
            wait_until(lambda: theirs.sessions == 1)
            assert small(other) == SMALL


# -- the command ----------------------------------------------------------------------------------


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "sbe", *map(str, words)]


def test_the_command(running: Daemon, folder: Path) -> None:
    uri = f"unix:{running.socket}"
    words = command("--uri", uri, "9p", "export", folder)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == f"the remote of {uri} reads {folder}, by the service 'files'\n"
            with sbe.connect(uri) as link:
                wait_until(lambda: digest_or_none(link) == SMALL)
                second = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S)
                assert second.returncode == 1
                assert "another program of this user exports a folder" in second.stderr
                os.kill(running.remote_pid(), signal.SIGKILL)
                assert process.stdout.readline() == "the remote restarted; exported again\n"
                wait_until(lambda: digest_or_none(link) == SMALL)
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT_S) == 130
        finally:
            process.kill()


def digest_or_none(link: sbe.Connection) -> tuple[int, int, int] | None:
    """As `small()`; None as long as nobody exports, or the remote starts."""
    try:
        return small(link)
    except (sbe.UnknownService, sbe.LinkError):
        return None


def test_the_command_checks(folder: Path) -> None:
    (folder / "outside").symlink_to("/etc/passwd")
    (folder / os.fsdecode(b"no UTF-8: \xff")).write_bytes(b"a name is bytes")

    def check(name: str) -> subprocess.CompletedProcess[str]:
        words = command("--uri", "loopback:", "9p", "export", folder, "--check", name)
        return subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S)

    done = check("small")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("PASS small: the remote read 5 B in ")
    assert "0x" in done.stdout
    done = check(os.fsdecode(b"no UTF-8: \xff"))
    assert (done.returncode, done.stderr) == (0, "")
    done = check("nothing")
    assert (done.returncode, done.stderr) == (
        1,
        "sbe: error: nothing: No such file or directory\n",
    )
    done = check("outside")
    assert done.returncode == 1
    assert "a link leads out of the folder" in done.stderr
    words = command("9p", "export", folder, "--check", "small", "--service", "models")
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 2
    assert "--check reads by the service 'files', not by 'models'" in done.stderr


def test_nothing_is_shared_by_a_name_that_nobody_serves() -> None:
    with sbe.connect("loopback:") as link:
        with pytest.raises(sbe.UnknownService):
            link.call("files", payload=b"nothing", timeout=LIMIT_S)
        for payload in (b"", b"n" * 32, b"nul\0"):
            with pytest.raises(sbe.RemoteError) as caught:
                link.call("files", payload=payload, timeout=LIMIT_S)
            assert caught.value.code == errno.EINVAL
