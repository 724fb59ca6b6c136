# SPDX-License-Identifier: Apache-2.0
"""The link over the kernel's rpmsg: negotiation, questions, the remote's end."""

import zlib
from pathlib import Path

import pytest

import sbe
from sbe import Error, In, InOut, Out, Shared, _native, errors
from sbe.kernel import remoteproc, rpmsg
from sbe.link.link import Link
from sbe.remotes.rpmsg import RpmsgRemote
from sbe.sdk.connection import Connection
from sbe.sdk.direct import DirectBackend
from tests.rigs.kernel import parts

pytestmark = pytest.mark.kernel


def test_link_negotiates(tmp_path: Path):
    with parts.running(tmp_path) as processor:
        with Link(RpmsgRemote(processor.name).connect) as link:
            link.wait(link.start(), 5)
            assert link.peer_name == parts.REMOTE.name
            assert link.wait(link.find_service(0, "echo"), 5).name == "echo"
            assert link.wait(link.ping(), 5) > 0
            names = {service.name for service in link.wait(link.list_services(), 5)}
            assert {"echo", "copy", "crc32"} <= names
        assert processor.log()["trace0"].startswith("up\n")


def exchange(remote: RpmsgRemote, heap: str) -> None:
    """What any application does; its mappings end with this function."""
    with Connection(DirectBackend(5, remote)) as connection:
        assert connection.call("echo", payload=b"hello").payload == b"hello"
        area = connection.allocate(1 << 20, heap=heap)
        memoryview(area)[:] = bytes(range(256)) * 4096
        reply = connection.call("crc32", In(area))
        assert int.from_bytes(reply.payload[:4], "little") == zlib.crc32(memoryview(area))
        for number in range(500):
            payload = number.to_bytes(4, "little")
            assert connection.call("echo", payload=payload).payload == payload


@pytest.mark.parametrize("heap", ["dma-heap:system", "udmabuf"])
def test_calls_over_rings(tmp_path: Path, heap: str):
    """The SDK as anywhere: inline payloads, and a MiB by reference through scattered memory."""
    with parts.running(tmp_path) as processor:
        exchange(RpmsgRemote(processor.name), heap)
        assert not list(Path("/dev").glob("rpmsg[0-9]*")), "an endpoint was left"


def test_caches_are_maintained_by_range(tmp_path: Path):
    """Where the remote does not see them: what a call names, and no more."""
    with parts.running(tmp_path) as processor:
        maintain_and_count(RpmsgRemote(processor.name, coherent=False))


def maintain_and_count(remote: RpmsgRemote) -> None:
    with Connection(DirectBackend(5, remote)) as connection:
        area = connection.allocate(1 << 16, heap="dma-heap:system")
        area[:8192] = bytes(range(256)) * 32
        given = bytes(memoryview(area)[:4096])
        assert connection.call("crc32", In(area[:4096])).cost.synced_bytes == 4096
        reply = connection.call("invert", InOut(area[:4096]))
        assert reply.cost.synced_bytes == 2 * 4096  # there, and back
        assert bytes(memoryview(area)[:4096]) == bytes(255 - byte for byte in given)
        reply = connection.call("copy", In(area[:1000]), Out(area[8192:9192]))
        assert reply.cost.synced_bytes == 3 * 1000
        assert bytes(memoryview(area)[8192:9192]) == bytes(memoryview(area)[:1000])
        connection.batch("invert", area.descriptors(InOut, [0, 64], 64).reshape(2, 1)).check()
        assert bytes(memoryview(area)[:128]) == given[:128]
        assert connection.call("echo", payload=b"inline").cost.synced_bytes == 0
        with pytest.raises(Error, match="coherent"):
            connection.call("echo", Shared(area[:64]))


def test_machine_without_coherent_memory(tmp_path: Path):
    """No module that knows device addresses: frames are messages, what needs areas says so."""
    parts.make_firmware(tmp_path)
    with parts.module("sbe_userproc"), parts.core_process():
        processor = remoteproc.find(parts.NAME)
        processor.start()
        parts.wait_for_service("sbe-doorbell")
        with sbe.connect("rpmsg:") as link:
            assert link.slot_size == 448
            for number in range(500):
                payload = number.to_bytes(4, "little") * (number % 100)
                assert link.call("echo", payload=payload).payload == payload
            small, large = b"small" * 20, bytes(100_000)
            assert link.call("crc32", In(small)).payload == zlib.crc32(small).to_bytes(4, "little")
            with pytest.raises(errors.MessageTooLarge, match="pass large data as a buffer"):
                link.call("echo", payload=large)
            for ask in (lambda: link.allocate(4096), lambda: link.call("crc32", In(large))):
                with pytest.raises(errors.LinkError, match="no memory that the remote can reach"):
                    ask()
            assert link.call("echo", payload=b"on").payload == b"on"
        processor.stop()


def test_rings_that_the_remote_has_no_room_for(tmp_path: Path):
    with parts.running(tmp_path), Link(RpmsgRemote(rings="messages").connect) as link:
        link.wait(link.start(), 5)
        flags = _native.AREA_RING | _native.AREA_COHERENT
        with pytest.raises(errors.OutOfResources):
            link.wait(link.map_area(0, None, 1 << 30, flags), 5)
        with pytest.raises(errors.BadArgument, match="device address"):
            link.map_area(0, None, 4096)
        with pytest.raises(errors.Error, match="refused mapping"):
            link.wait(link.map_area(0, None, 4096, _native.AREA_RING), 5)
        area = link.wait(link.map_area(0, None, 1 << 16, flags), 5)
        large = link.open_channel(
            0, area, slots=4, slot_size=512, send_offset=0, receive_offset=1 << 15
        )
        with pytest.raises(errors.MessageTooLarge):
            link.wait(large, 5)
        link.wait(link.unmap_area(area), 5)


def test_channel_that_is_being_removed_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An endpoint made under it would hear nothing and never end; the next life is taken."""
    with parts.running(tmp_path) as processor:
        remote = RpmsgRemote(processor.name)
        transport = remote.connect()
        former = rpmsg.services("sbe-control")[0]
        life = former.life
        processor.stop()
        assert former.life == 0
        with pytest.raises(errors.LinkError, match="stopped or crashed"):
            transport.receive()
        transport.close()
        processor.start()
        parts.wait_for_service("sbe-doorbell")
        with monkeypatch.context() as patched:
            patched.setattr(rpmsg.Service, "life", life)  # as if it had not left yet
            with pytest.raises(errors.LinkError, match="still removing 'sbe-control'"):
                remote.connect()
        remote.connect().close()
