# SPDX-License-Identifier: Apache-2.0
"""The daemon over the kernel's rpmsg: programs unchanged, remotes that come and go, mistakes."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sbe
from sbe import errors
from sbe.control import PROTOCOL
from sbe.heaps.dmabuf import CoherentHeap
from sbe.kernel import remoteproc, rpmsg
from tests.integration import test_docs
from tests.integration.varlink_client import Daemon, daemon
from tests.pages import ROOT, blocks_of
from tests.rigs.kernel import parts

pytestmark = pytest.mark.kernel

LINK = (
    f"[[link]]\ntransport = 'rpmsg'\nprocessor = '{parts.NAME}'\nrestart = {{max_seconds = 0.2}}\n"
)

PATIENT = LINK.replace("{max_seconds = 0.2}", "{initial_seconds = 600, max_seconds = 600}")
"""Only uevents make it look again in time."""


@pytest.fixture
def processor(tmp_path: Path) -> Iterator[remoteproc.RemoteProcessor]:
    """A remote processor which is not started, and whose core nobody is yet."""
    parts.make_firmware(tmp_path)
    with parts.module("sbe_dmabuf", leave=True), parts.module("sbe_userproc"):
        yield remoteproc.find(parts.NAME)


@contextlib.contextmanager
def core_of(
    processor: remoteproc.RemoteProcessor, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who is its core, and leaves in peace."""
    with parts.core_process(*options) as core:
        try:
            yield core
        finally:
            processor.stop()


@pytest.fixture
def running(processor: remoteproc.RemoteProcessor) -> Iterator[remoteproc.RemoteProcessor]:
    with core_of(processor):
        processor.start()
        parts.wait_for_service("sbe-doorbell")
        yield processor


def connect(running: Daemon) -> sbe.Connection:
    return sbe.connect(f"unix:{running.socket}")


def endpoints() -> list[str]:
    return sorted(path.name for path in Path("/dev").glob("rpmsg[0-9]*"))


@pytest.mark.usefixtures("running")
def test_readme_runs_unchanged(tmp_path: Path):
    with daemon(tmp_path, LINK) as started:
        page = (ROOT / "README.md").read_text()
        program = "\n".join(blocks_of(page, "python"))
        shown = test_docs.run(program, tmp_path, SBE_SOCKET=str(started.socket))
        assert shown.startswith("sobel wrote 76800 bytes, 1272 of them edges\n")
        assert started.stat()["links"][0]["bad_messages"] == 0
        [link] = started.list()["links"]
        assert (link["transport"], link["remote"]) == ("rpmsg", parts.REMOTE.name)
        started.wait_until_empty()
        assert len(endpoints()) == 1, "more than the control endpoint is left"
        assert started.stop() == 0
        assert not endpoints()


@pytest.mark.usefixtures("running")
def test_killed_daemon_leaves_nothing_for_long(tmp_path: Path):
    """Its nodes outlive it; the next one removes them, and nobody else's."""
    control = parts.wait_for_service("sbe-control")
    others = rpmsg.create_endpoint(control.control, "others", control.destination)
    with daemon(tmp_path, LINK) as killed, connect(killed) as link:
        link.call("echo")
        killed.process.kill()
        killed.process.wait()
        assert len(endpoints()) == 3
        with pytest.raises(errors.DaemonGone):
            link.call("echo", timeout=5)
    with daemon(tmp_path, LINK) as started, connect(started) as link:
        assert link.call("echo", payload=b"again").payload == b"again"
        assert len(endpoints()) == 3
    rpmsg.destroy_endpoint(others)


@pytest.mark.usefixtures("running")
def test_clients_hold_no_endpoint(tmp_path: Path):
    """Whoever holds one can crash Linux 6.1 with it (docs/design/kernel.md)."""
    with daemon(tmp_path, LINK) as started, started.client() as client:
        client.open()
        channel = client.call("OpenChannel")
        client.call("Allocate", size=4096)
        links = (os.readlink(f"/proc/self/fd/{fd}") for fd in client.fds)
        there = {re.sub(r"\d+", "N", link) for link in links}
        assert there == {"anon_inode:[eventfd]", "anon_inode:[eventpoll]", "/dmabuf:", "socket:[N]"}
        assert os.readlink(f"/proc/self/fd/{channel['ring_fd']}") == "anon_inode:[eventfd]"


@pytest.mark.usefixtures("running")
def test_clients_do_not_disturb_each_other(tmp_path: Path):
    with daemon(tmp_path, LINK) as started, connect(started) as one, connect(started) as two:
        with connect(started) as third:
            calls = [
                link.submit("echo", payload=bytes([i])) for i in range(50) for link in (one, two)
            ]
            third.call("echo", payload=b"x")
        assert [call.result(10).payload[0] for call in calls] == [i // 2 for i in range(100)]


def test_start_order_is_free(processor: remoteproc.RemoteProcessor, tmp_path: Path):
    """Daemon, client, core, processor: each waits for the next, and hears of it."""
    with daemon(tmp_path, PATIENT, until="listening") as started, started.client() as client:
        client.send("Open", protocol=PROTOCOL, name="early")
        with core_of(processor):
            processor.start()
            assert client.receive()["remote"] == parts.REMOTE.name


def test_remote_restarts_under_other_numbers(running: remoteproc.RemoteProcessor, tmp_path: Path):
    """Stopped and started while its old control node is held open, whose number is taken then."""
    with daemon(tmp_path, PATIENT) as started, connect(started) as link:
        area = link.allocate(1 << 16)
        area[:5] = b"bytes"
        want = link.call("crc32", sbe.In(area)).payload
        control = parts.wait_for_service("sbe-control").control
        held = os.open(control, os.O_RDWR)
        running.stop()
        parts.until(lambda: started.list()["links"][0]["state"] != "connected")
        running.start()
        parts.until(lambda: started.list()["links"][0]["state"] == "connected")
        assert parts.wait_for_service("sbe-control").control != control
        os.close(held)
        with pytest.raises(errors.RemoteRestarted):
            link.call("echo")
        assert link.call("crc32", sbe.In(area)).payload == want
        assert started.stat()["links"][0]["restarts"] >= 1


def test_crashes_under_load(running: remoteproc.RemoteProcessor, tmp_path: Path):
    """Two clients call while the remote crashes: each call ends, and later ones are answered."""
    with daemon(tmp_path, PATIENT) as started, connect(started) as one, connect(started) as two:
        area = two.allocate(1 << 16)
        want = two.call("crc32", sbe.In(area)).payload
        for _ in range(4):
            calls = [link.submit("echo", payload=b"x") for _ in range(50) for link in (one, two)]
            parts.crash(running)
            for call in calls:
                assert isinstance(call.exception(20), (errors.LinkError, type(None)))
            parts.until(lambda: answered(one) and answered(two), 20)
            assert two.call("crc32", sbe.In(area)).payload == want
        started.wait_until(lambda: started.list()["links"][0]["state"] == "connected")


def answered(link: sbe.Connection) -> bool:
    try:
        return link.call("echo", payload=b"x", timeout=5).payload == b"x"
    except errors.LinkError:
        return False


def test_frozen_remote_is_given_up_and_taken_back(
    processor: remoteproc.RemoteProcessor, tmp_path: Path
):
    """It answers no ping; once it goes on, a new epoch ends what it knew."""
    with core_of(processor) as core:
        processor.start()
        parts.wait_for_service("sbe-doorbell")
        with (
            daemon(tmp_path, LINK + "answer_seconds = 0.5\n") as started,
            started.client() as client,
        ):
            client.open()
            core.send_signal(signal.SIGSTOP)
            told = client.refusal("FindService", name="echo", version=0)
            assert "the remote was given up: no answer to a ping within 0.5 s" in told.message
            core.send_signal(signal.SIGCONT)
            started.wait_until(lambda: started.list()["links"][0]["state"] == "connected")
            client.call("FindService", name="echo", version=0)
            with connect(started) as link:
                assert link.call("echo", payload=b"on").payload == b"on"


@pytest.mark.usefixtures("running")
def test_clients_maintain_their_caches(tmp_path: Path):
    with daemon(tmp_path, LINK + "coherent = false\n") as started:
        call_and_count(started)
        started.wait_until_empty()


def call_and_count(started: Daemon) -> None:
    with connect(started) as link:
        area = link.allocate(1 << 16, heap="dma-heap:system")
        area[:4096] = bytes(range(256)) * 16
        reply = link.call("invert", sbe.InOut(area[:4096]))
        assert reply.cost.synced_bytes == 2 * 4096
        assert bytes(memoryview(area)[:256]) == bytes(range(255, -1, -1))


def test_daemon_keeps_its_processor_running(processor: remoteproc.RemoteProcessor, tmp_path: Path):
    def works(started: Daemon) -> None:
        with connect(started) as link:
            assert link.call("echo", payload=b"on").payload == b"on"
        assert processor.state == "running"

    with core_of(processor), daemon(tmp_path, LINK + "start = true\n") as started:
        works(started)
        epoch = started.list()["links"][0]["epoch"]
        with contextlib.suppress(errors.Busy):  # the daemon may be faster than stop()'s last look
            processor.stop()  # by somebody else
        started.wait_until(lambda: started.list()["links"][0]["epoch"] not in (0, epoch))
        started.wait_until(lambda: started.list()["links"][0]["state"] == "connected")
        works(started)


@pytest.mark.usefixtures("running")
def test_heaps_are_those_of_the_configuration(tmp_path: Path):
    with (
        daemon(tmp_path, LINK + "heaps = ['udmabuf', 'coherent']\nbudget_bytes = 1_048_576\n") as a,
        connect(a) as link,
    ):
        kept = link.allocate(1 << 20)
        with pytest.raises(
            errors.BadArgument, match="no heap 'dma-heap:system'; there are: udmabuf"
        ):
            link.allocate(4096, heap="dma-heap:system")
        with pytest.raises(errors.OutOfResources, match="budget of 1048576 bytes has 0 left"):
            link.allocate(1)
        kept.free()
        link.allocate(1 << 20)


@pytest.mark.usefixtures("running")
def test_heap_that_is_not_there(tmp_path: Path):
    with (
        daemon(tmp_path, LINK + "heaps = ['dma-heap:reserved']\n") as started,
        pytest.raises(errors.Error, match=r"no heap dma-heap:reserved .* dma-heap:system"),
    ):
        connect(started)


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("rings", ["coherent", "messages"])
def test_areas_on_reserved_memory(tmp_path: Path, rings: str):
    """Coherent memory that this process keeps, mapped through /dev/mem, stands for a reserve."""
    size = 1 << 20
    with CoherentHeap().allocate(size) as reserve:
        ((address, _),) = reserve.segments
        keys = f"""rings = "{rings}"
heaps = ["carveout:frames", "udmabuf"]
trust_clients = true
[[link.carveout]]
name = "frames"
memory = "/dev/mem"
offset = {address}
size = {size}
address = {address}
"""
        with daemon(tmp_path, LINK + keys) as started:
            with connect(started) as link, connect(started) as other:
                areas = [link.allocate(size // 4), other.allocate(size // 2)]
                for value, (end, area) in enumerate(zip((link, other), areas, strict=True)):
                    end.call("fill", sbe.Out(area), payload=bytes([value + 1]))
                    assert bytes(area) == bytes([value + 1]) * len(area)
                seen = memoryview(reserve_bytes(reserve.fd, size))
                assert seen[: size // 4] == b"\1" * (size // 4)
                assert seen[size // 4 : 3 * size // 4] == b"\2" * (size // 2)
                with pytest.raises(errors.OutOfResources, match=r"carveout:frames: .* 262144 are"):
                    link.allocate(size // 2)
                link.allocate(size // 2, heap="udmabuf")
                assert {row["heap"] for row in link.list()["areas"]} >= {"carveout:frames"}
            started.wait_until_empty()
            with connect(started) as link:
                link.allocate(size)  # all of it came back, in one piece


def reserve_bytes(fd: int, size: int) -> bytes:
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as memory:
        return memory[:]


@pytest.mark.usefixtures("running")
def test_reserved_memory_that_is_not_there(tmp_path: Path):
    missing = tmp_path / "uio0"
    keys = f"""trust_clients = true
[[link.carveout]]
name = "frames"
memory = "{missing}"
size = 1_048_576
address = 0
"""
    with daemon(tmp_path, LINK + keys) as started:
        with pytest.raises(errors.LinkError, match=r"carveout:frames: .*uio0 can't be mapped: No"):
            connect(started)
        missing.write_bytes(bytes(4096))
        with pytest.raises(errors.LinkError, match=r"has 4096 bytes, 1048576 are needed"):
            connect(started)


def trouble(folder: Path, start: Callable[[], object], what: str) -> str:
    """What the daemon says, once, of a link to something that will not do."""
    with daemon(folder, LINK, until="not connected") as started:
        start()
        started.wait_until(lambda: what in started.log(), what)
        return started.log()


def test_remote_that_announces_nothing(processor: remoteproc.RemoteProcessor, tmp_path: Path):
    what = f"{parts.NAME}, which is running, does not announce 'sbe-control' on rpmsg"
    with core_of(processor, "--quiet"):
        log = trouble(tmp_path, processor.start, what)
    assert log.count(what) == 1


def test_remote_of_another_version(processor: remoteproc.RemoteProcessor, tmp_path: Path):
    what = "remote speaks protocol versions 7 to 9, this host 1 to 1: update the older end"
    with core_of(processor, "--protocol", "7-9"):
        log = trouble(tmp_path, processor.start, what)
    assert log.count(what) == 1


def test_processor_that_is_not_there(tmp_path: Path):
    config = LINK.replace(parts.NAME, "m33")
    with daemon(tmp_path, config, until="not connected") as started, started.client() as client:
        told = client.refusal(
            "Open", protocol=PROTOCOL, name="test"
        )  # after 10 s: it might be starting
        assert told.message == "link 'rpmsg': no remote processor 'm33'; there are: none"
        assert started.log().count("no remote processor") == 1


def as_nobody(then: Callable[[], object]) -> str:
    """The error of something done by a user without rights, as text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            then()
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader, "rb") as told:
        return told.read().decode()


def test_devices_of_others(running: remoteproc.RemoteProcessor):
    told = as_nobody(lambda: sbe.connect(f"rpmsg:{running.name}"))
    assert re.match(r"PermissionDenied: /dev/rpmsg_ctrl\d: Permission denied \(for its owner", told)


@pytest.mark.usefixtures("running")
def test_node_that_somebody_else_has_open():
    """rpmsg_char lets one process in; a link makes nodes of its own."""
    control = parts.wait_for_service("sbe-control")
    fd = rpmsg.create_endpoint(control.control, "taken", control.destination)
    try:
        with pytest.raises(errors.Busy, match="/dev/rpmsg0"):
            os.close(parts.open_again(fd))
        with sbe.connect("rpmsg:") as link:
            assert link.call("echo", payload=b"mine").payload == b"mine"
    finally:
        rpmsg.destroy_endpoint(fd)
