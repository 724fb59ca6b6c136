# SPDX-License-Identifier: Apache-2.0
"""Start, stop, crash and recovery of a remote processor, and what the link makes of them."""

import os
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbe import errors
from sbe.kernel import remoteproc, rpmsg, userproc
from sbe.link.link import Link
from sbe.remotes.rpmsg import RpmsgRemote
from sbe.sdk.connection import Connection
from sbe.sdk.direct import DirectBackend
from sbe.transports.rpmsg import RpmsgTransport
from tests.rigs.kernel import parts
from tests.rigs.kernel.parts import until

pytestmark = pytest.mark.kernel


@pytest.fixture
def processor(tmp_path: Path) -> Iterator[remoteproc.RemoteProcessor]:
    """A remote processor whose core nobody is yet; it waits 0.2 s for one."""
    parts.make_firmware(tmp_path)
    with parts.module("sbe_userproc", "attach_ms=200"):
        yield remoteproc.find(parts.NAME)


def test_status_and_orderly_life(processor: remoteproc.RemoteProcessor):
    assert (processor.name, processor.state) == ("sbe-userproc0", "offline")
    assert processor.device == "sbe-userproc.0"
    assert processor.firmware == "sbe-userproc.elf"
    processor.stop()  # nothing to do
    with parts.core_process():
        processor.start()
        assert processor.state == "running"
        with pytest.raises(errors.Busy, match="runs already"):
            processor.start()
        with pytest.raises(errors.Busy, match="stop it before"):
            processor.load("sbe-userproc.elf")
        parts.wait_for_service("sbe-control")
        assert processor.log()["trace0"] == "up\n"
        processor.stop()
        assert processor.state == "offline"
        assert rpmsg.services() == []


def test_start_errors_name_the_cause(processor: remoteproc.RemoteProcessor, tmp_path: Path):
    with pytest.raises(errors.LinkError, match="did not answer its start"):
        processor.start()  # no core
    with pytest.raises(errors.BadArgument, match=r"no firmware 'none.elf' in .*/lib/firmware"):
        processor.load("none.elf")
    (tmp_path / "text.elf").write_text("not an ELF file" * 100)
    processor.load("text.elf")
    with pytest.raises(errors.BadArgument, match="no ELF image"):
        processor.start()
    (tmp_path / "text.elf").unlink()
    with pytest.raises(errors.BadArgument, match="no firmware"):
        processor.start()
    assert processor.state == "offline"


def test_firmware_without_resource_table(processor: remoteproc.RemoteProcessor, tmp_path: Path):
    image = bytearray((tmp_path / "sbe-userproc.elf").read_bytes())
    place = image.index(b".resource_table\0")
    image[place : place + 4] = b".xxx"
    (tmp_path / "bare.elf").write_bytes(image)
    processor.load("bare.elf")
    with parts.core_process(), pytest.raises(errors.BadArgument, match="no resource table"):
        processor.start()
    assert processor.state == "offline"


def test_link_without_remote_says_what_is_missing(processor: remoteproc.RemoteProcessor):
    with Link(RpmsgRemote("m33").connect) as link, pytest.raises(errors.LinkError) as raised:
        link.start()
    assert "there are: sbe-userproc0" in str(raised.value)
    with Link(RpmsgRemote(parts.NAME).connect) as link, pytest.raises(errors.LinkError) as raised:
        link.start()
    assert "sbe-userproc0, which is offline, does not announce 'sbe-control'" in str(raised.value)


def test_core_is_one_process(processor: remoteproc.RemoteProcessor):
    core = userproc.Core()
    with pytest.raises(errors.Busy):
        userproc.Core()
    with pytest.raises(errors.LinkError):
        core.map(0, 4096)  # not started
    with pytest.raises(errors.LinkError):
        core.table()
    core.close()
    userproc.Core().close()


def test_frozen_core_loses_the_memory(processor: remoteproc.RemoteProcessor):
    """Without an acknowledgment the stop goes on, and the core can reach nothing any more."""
    with parts.core_process() as process:
        processor.start()
        parts.wait_for_service("sbe-control")
        assert "/dev/sbe-userproc0" in Path(f"/proc/{process.pid}/maps").read_text()
        process.send_signal(signal.SIGSTOP)
        Path("/sys/module/sbe_userproc/parameters/stop_ms").write_text("100")
        processor.stop()
        assert processor.state == "offline"
        rss = Path(f"/proc/{process.pid}/smaps").read_text().split("/dev/sbe-userproc0")[1:]
        assert all("Rss:                   0 kB" in part for part in rss)


def test_killed_core_is_a_crash_and_recovers(processor: remoteproc.RemoteProcessor):
    with parts.core_process() as process:
        processor.start()
        parts.wait_for_service("sbe-doorbell")
        with Link(RpmsgRemote(parts.NAME).connect) as link:
            link.wait(link.start(), 5)
            process.kill()
            begun = time.monotonic()
            with pytest.raises(errors.LinkError, match="is gone"):
                link.wait(link.ping(), 5)
            assert time.monotonic() - begun < 2
            process.wait()
            with parts.core_process():
                until(lambda: processor.state == "running" and rpmsg.services("sbe-control"))
                link.reconnect()
                link.wait(link.ping(), 5)
                link.close()
                processor.stop()


def test_message_of_497_bytes(processor: remoteproc.RemoteProcessor):
    with parts.core_process():
        processor.start()
        parts.wait_for_service("sbe-control")
        transport = RpmsgRemote(parts.NAME).connect()
        transport.send(bytes(496))
        with pytest.raises(errors.MessageTooLarge, match="497 bytes: rpmsg carries 1 to 496"):
            transport.send(bytes(497))
        with pytest.raises(errors.BadArgument, match="descriptors"):
            transport.send(b"x", [0])
        transport.close()
        transport.close()
        processor.stop()


def flood(transport: RpmsgTransport) -> None:
    for _ in range(3000):
        transport.send(bytes(16))


def drained(transport: RpmsgTransport) -> bool:
    transport.flush()
    return not transport.wants_write


def test_flood_never_blocks(processor: remoteproc.RemoteProcessor):
    """A frozen remote: 256 messages fit, then the queue takes them, then it says so. No 15 s."""
    with parts.core_process() as process:
        processor.start()
        parts.wait_for_service("sbe-control")
        transport = RpmsgRemote(parts.NAME).connect()
        assert isinstance(transport, RpmsgTransport)
        process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(errors.WouldBlock, match="messages unread"):
            flood(transport)
        assert time.monotonic() - begun < 3
        assert transport.wants_write
        process.send_signal(signal.SIGCONT)
        until(lambda: drained(transport))
        transport.close()
        processor.stop()


def test_doorbell_stays_with_the_first(processor: remoteproc.RemoteProcessor, tmp_path: Path):
    """A client that names another one's channel gets nothing, and the channel goes on."""
    with parts.module("sbe_dmabuf"), parts.core_process():
        processor.start()
        parts.wait_for_service("sbe-doorbell")
        remote = RpmsgRemote(parts.NAME)
        hijack(remote)
        processor.stop()


def hijack(remote: RpmsgRemote) -> None:
    with Connection(DirectBackend(5, remote)) as connection:
        thief = remote.open_doorbell()
        os.write(thief, struct.pack("<II", 0x42454253, 1))
        for _ in range(20):
            connection.call("echo", payload=b"mine", timeout=5)
        with pytest.raises(BlockingIOError):
            os.read(thief, 8)
        rpmsg.destroy_endpoint(thief)


def test_unloading_while_it_runs(processor: remoteproc.RemoteProcessor):
    with parts.core_process():
        processor.start()
        with pytest.raises(subprocess.CalledProcessError):
            parts.remove("sbe_userproc")
        assert processor.state == "running"
        processor.stop()


def test_foreign_user_is_told(processor: remoteproc.RemoteProcessor):
    pid = os.fork()
    if pid == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            processor.start()
        except errors.PermissionDenied as error:
            os._exit(0 if "not writable for this user" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
