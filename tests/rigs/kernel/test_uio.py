# SPDX-License-Identifier: Apache-2.0
"""A carve-out in a UIO device, and its interrupt as the doorbell: the kernel's UIO_PDRV_GENIRQ.

The board is sbe_rig_uio.c; its firmware is uio/remote.c, the port for carve-outs as a process.
"""

import contextlib
import mmap
import os
import select
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
from sbe import _native, errors
from sbe.heaps.carveout import CarveoutHeap
from sbe.kernel import uio
from sbe.transports.doorbell import Interrupt, open_doorbell
from tests.integration.varlink_client import daemon
from tests.rigs.kernel import parts

pytestmark = pytest.mark.kernel

RIG = "/dev/sbe-rig-uio"
WINDOW = 2 << 20
FIRMWARE = parts.ROOT / "build" / "kernel" / "uio-remote"


def find(name: str) -> Path:
    """The UIO device of this name."""
    [found] = [
        entry
        for entry in Path("/sys/class/uio").iterdir()
        if (entry / "name").read_text().strip() == name
    ]
    return Path("/dev", found.name)


@pytest.fixture
def device() -> Iterator[Path]:
    with parts.module("sbe_rig_uio"):
        yield find("sbe-window")


@contextlib.contextmanager
def firmware(bell: str = RIG) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([FIRMWARE, RIG, str(WINDOW), bell])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def keys(device: Path) -> str:
    return f'memory = "{device}"\ndoorbell = "uio:{device},1,0,1"\n'


@pytest.fixture
def uri(device: Path, tmp_path: Path) -> str:
    (tmp_path / "link.toml").write_text(keys(device))
    return f"carveout:{tmp_path / 'link.toml'}"


def crc(reply: sbe.Reply) -> int:
    return int.from_bytes(reply.payload[:4], "little")


def test_maps_are_those_of_sysfs(device: Path):
    fd = os.open(device, os.O_RDWR)
    window, registers, within = uio.find(fd) or []
    assert (window.number, window.name, window.size_bytes) == (0, "window", WINDOW)
    assert (registers.name, registers.size_bytes, registers.offset_bytes) == ("registers", 4096, 0)
    assert (within.address, within.offset_bytes) == (window.address, 0x800)
    os.close(fd)


def test_a_place_in_a_map_is_what_it_says(device: Path):
    """The kernel knows whole maps only; an arena lies anywhere in one."""
    fd, rig = os.open(device, os.O_RDWR), os.open(RIG, os.O_RDWR)
    with pytest.raises(OSError, match="Invalid argument"):
        mmap.mmap(fd, 4096, offset=65536)  # this is why
    at, size = uio.place(fd, str(device), None, 65536, None)
    assert size == WINDOW - 65536
    heap = CarveoutHeap(fd, at, size, address=0)
    with mmap.mmap(rig, WINDOW) as seen:
        kept = [heap.allocate(4096) for _ in range(3)]
        for value, each in enumerate(kept):
            memory = _native.Memory(each.fd, 4096, trusted=True, offset=each.offset_bytes)
            memory[:4] = bytes([value + 1]) * 4
            assert seen[65536 + 4096 * value :][:4] == bytes([value + 1]) * 4
            del memory
            each.close()
    heap.close()
    del heap
    os.close(rig)
    os.close(fd)


def test_calls_and_areas(uri: str):
    with firmware(), sbe.connect(uri) as link:
        assert link.call("echo", payload=b"hello", timeout=10).payload == b"hello"
        areas = [link.allocate(4096 * (1 + each)) for each in range(8)]
        for each, area in enumerate(areas):
            link.call("fill", sbe.Out(area), payload=bytes([each]), timeout=10)
        for each, area in enumerate(areas):
            assert bytes(area) == bytes([each]) * len(area)
            assert crc(link.call("crc32", sbe.In(area), timeout=10)) == zlib.crc32(area)


def test_many_calls_lose_no_interrupt(uri: str):
    """Both ends sleep and are woken thousands of times; each lost one would cost 250 ms."""
    with firmware(), sbe.connect(uri) as link:
        for number in range(1000):
            payload = number.to_bytes(4, "little")
            assert link.call("echo", payload=payload, timeout=10).payload == payload
        calls = [link.submit("echo", payload=bytes([each])) for each in range(64)]
        assert [call.result(10).payload for call in calls] == [bytes([each]) for each in range(64)]


def test_either_end_dies(uri: str):
    with firmware() as first, sbe.connect(uri) as link:
        area = link.allocate(4096)
        area[:] = b"kept" * 1024
        first.kill()
        first.wait()
        with firmware():
            with contextlib.suppress(errors.LinkError):
                link.call("echo", timeout=10)
            assert crc(link.call("crc32", sbe.In(area), timeout=10)) == zlib.crc32(area)
            del area
            with pytest.raises(errors.RemoteRestarted, match="as it was told"):
                link.call("crash", timeout=10)
    with firmware(), sbe.connect(uri) as link:
        assert link.call("echo", payload=b"again", timeout=10).payload == b"again"


def test_a_daemon_serves_it(device: Path, tmp_path: Path):
    head = "[[link]]\nname = 'board'\ntransport = 'carveout'\ntrust_clients = true\n"
    with firmware(), daemon(tmp_path, head + keys(device)) as started:
        name = f"unix:{started.socket}"
        with sbe.connect(name) as link, sbe.connect(name) as other:
            for value, end in enumerate((link, other)):
                area = end.allocate(65536)
                end.call("fill", sbe.Out(area), payload=bytes([value + 1]), timeout=10)
                assert bytes(area) == bytes([value + 1]) * 65536
        started.wait_until_empty()


def test_reserve_of_a_link_by_rpmsg(device: Path, tmp_path: Path):
    fd = os.open(device, os.O_RDWR)
    [window, *_] = uio.find(fd) or []
    os.close(fd)
    text = f"""[[link]]
transport = "rpmsg"
processor = "{parts.NAME}"
heaps = ["carveout:frames"]
trust_clients = true
[[link.carveout]]
name = "frames"
memory = "{device}"
map = 0
offset = 65536
size = 1_048_576
address = {window.address + 65536}
"""
    with parts.running(tmp_path), daemon(tmp_path, text) as started:
        fill_one_of_two(f"unix:{started.socket}")
        started.wait_until_empty()


def fill_one_of_two(uri: str) -> None:
    """No area is left behind, so that modules can go."""
    with sbe.connect(uri) as link:
        first, second = link.allocate(4096), link.allocate(8192)
        link.call("fill", sbe.Out(second), payload=b"\7", timeout=10)
        assert (bytes(first), bytes(second)) == (bytes(4096), b"\7" * 8192)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("map = 7", r"has no map 7; there are: 0 \(window, 2097152 bytes at 0x\w+\), 1 \(reg"),
        ("size = 4194304", r"map 0 of .* has 2097152 bytes from 0, 4194304 are needed"),
        ("offset = 2097152", r"has 0 bytes from 2097152, 1 are needed"),
        ("map = 1", r"has 4096 bytes from 0, 131072 are needed"),
        ("map = 2", r"map 2 of .* begins 2048 bytes into a page"),
    ],
)
def test_window_that_is_not_there(device: Path, tmp_path: Path, more: str, words: str):
    (tmp_path / "link.toml").write_text(f"{keys(device)}{more}\n")
    with pytest.raises(errors.BadArgument, match=words):
        sbe.connect(f"carveout:{tmp_path / 'link.toml'}")


@pytest.mark.parametrize(
    ("doorbell", "words"),
    [
        ("uio:/dev/null,0,0", "/dev/null is no UIO device"),
        ("uio:{device},9,0", "has no map 9"),
        ("uio:{device},1,0x1000", "has 0 bytes from 4096, 4 are needed"),
        ("uio:{device},1,2", "a multiple of 4"),
        ("uio:{device}", "is no doorbell: say unix:PATH"),
        ("uio:{device},1,0,0x100000000", "is no doorbell: say unix:PATH"),
        ("uio:{device},1,010", "is no doorbell: say unix:PATH"),
        ("UIO:{device},1,0", "is no doorbell: say unix:PATH"),
    ],
)
def test_doorbell_that_is_not_there(device: Path, doorbell: str, words: str):
    with pytest.raises(errors.BadArgument, match=words):
        open_doorbell(doorbell.format(device=device))


def test_what_is_no_uio_device(device: Path, tmp_path: Path):
    text = keys(device).replace(f'memory = "{device}"', 'memory = "/dev/null"\nmap = 0')
    (tmp_path / "link.toml").write_text(text)
    with pytest.raises(errors.BadArgument, match="/dev/null is no UIO device: it has no map 0"):
        sbe.connect(f"carveout:{tmp_path / 'link.toml'}")


def test_missing_permission_is_named(device: Path):
    pid = os.fork()
    if pid == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            open_doorbell(f"uio:{device},1,0")
        except errors.PermissionDenied as error:
            os._exit(0 if str(device) in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_interrupt_left_disabled_is_enabled_again(device: Path):
    """Whoever had the device before died between the interrupt and enabling it."""
    rig = os.open(RIG, os.O_RDWR)
    dead = os.open(device, os.O_RDWR)
    os.write(rig, b"!")
    assert os.read(dead, 4)
    os.close(dead)
    bell = open_doorbell(f"uio:{device},1,0")
    assert isinstance(bell, Interrupt)
    os.write(rig, b"!")
    assert select.select([bell.fd], [], [], 10)[0]
    os.close(bell.fd)
    os.close(rig)
    del bell


@contextlib.contextmanager
def mailbox() -> Iterator[Path]:
    """The file of the kernel's mailbox-test, which is bound to a controller as long."""
    drivers = Path("/sys/bus/platform/drivers/mailbox_test")
    with parts.module("sbe_rig_mailbox"):
        if not list(drivers.glob("*mailbox-client")):
            (drivers / "bind").write_text("mailbox-client")
        [file] = Path("/sys/kernel/debug").glob("mailbox*/message")
        try:
            yield file
        finally:
            (drivers / "unbind").write_text("mailbox-client")  # it holds the module


def test_a_mailbox_is_the_doorbell(device: Path, tmp_path: Path):
    with mailbox() as file:
        text = f'memory = "{device}"\ndoorbell = "mailbox:{file}"\n'
        (tmp_path / "link.toml").write_text(text)
        uri = f"carveout:{tmp_path / 'link.toml'}"
        with firmware("/dev/sbe-rig-mailbox"), sbe.connect(uri) as link:
            for number in range(100):
                payload = number.to_bytes(4, "little")
                assert link.call("echo", payload=payload, timeout=10).payload == payload
            area = link.allocate(8192)
            area[:] = b"abcd" * 2048
            assert crc(link.call("crc32", sbe.In(area), timeout=10)) == zlib.crc32(area)
