"""Firmware on an emulated Cortex-M: what the conformance suite does not ask of other ends."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import shutil
import struct
import sys
import tempfile
import threading
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import sbe
from sbe import _native
from sbe.link.link import Link
from sbe.remotes.boards import BOARDS, QemuBoard, qemu
from tests.rigs.boards import (
    BOOT_S,
    FaultyBoard,
    check_log_region,
    check_works,
    connect,
    image,
    require_board,
    wait_for,
)

pytestmark = [pytest.mark.rig, pytest.mark.timeout(120)]

CYCLES = int(os.environ.get("SBE_CYCLES", "20"))


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))


# -- life -----------------------------------------------------------------------------------------


def test_boot_says_who_it_is(link: sbe.Connection, board: FaultyBoard) -> None:
    names = {service.name for service in link.services()}
    assert {"echo", "crc32", "copy", "sobel", "mulaw"} <= names
    assert board.console() == f"sbe-firmware on {board.name}\n"
    [entry] = link.list()["links"]
    assert entry["name"] == board.name
    assert entry["transport"] == "qemu"
    assert entry["remote"] == f"sbe-firmware {board.name}"
    assert entry["pid"] == board.pid


def test_the_uri_starts_a_board_of_its_own(board: FaultyBoard) -> None:
    with sbe.connect(f"qemu:{board.name}") as one, sbe.connect(f"qemu:{board.name}") as other:
        check_works(one)
        check_works(other)


def test_idle_firmware_sleeps(link: sbe.Connection, board: FaultyBoard) -> None:
    check_works(link)

    def ticks() -> int:
        fields = Path(f"/proc/{board.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(1.0)  # the span that is measured
    assert ticks() - before <= 5  # of 100 a second


def test_killed_mid_call(link: sbe.Connection, board: FaultyBoard) -> None:
    area = link.allocate(1 << 20)
    area[:] = bytes(range(256)) * 4096
    link.call("crc32", sbe.In(area))
    board.freeze()
    call = link.submit("crc32", sbe.In(area))
    assert board.pid is not None
    os.kill(board.pid, 9)
    with pytest.raises(sbe.RemoteRestarted, match="SIGKILL"):
        call.result()
    reply = link.call("crc32", sbe.In(area), timeout=BOOT_S)  # area and content are still there
    assert reply.payload == struct.pack("<I", zlib.crc32(area))
    assert link.stat()["connection"]["losses"] == 1


def test_reset_is_a_restart(link: sbe.Connection, board: FaultyBoard) -> None:
    check_works(link)
    board.freeze()
    call = link.submit("echo", payload=b"x")
    board.reset()
    board.thaw()
    with pytest.raises(sbe.RemoteRestarted, match="restarted"):
        call.result(BOOT_S)
    check_works(link)


def _poke(link: sbe.Connection) -> bool:
    try:
        link.call("echo", timeout=0.2)
    except sbe.Error:
        return False
    return True


# -- a frozen core --------------------------------------------------------------------------------


def test_frozen_core(link: sbe.Connection, board: FaultyBoard) -> None:
    area = link.allocate(4096)
    area[:] = b"a" * 4096
    link.call("fill", sbe.Out(area), payload=b"a")
    board.freeze()
    with pytest.raises(sbe.Timeout):
        link.call("fill", sbe.Out(area), payload=b"b", timeout=0.3)
    assert area.holds == 1
    with pytest.raises(sbe.Busy):
        area.free()  # the core may write it yet
    board.thaw()
    check_works(link)  # behind the late answer in the ring
    assert link.stat()["connection"]["losses"] == 0
    wait_for(lambda: not area.holds)
    assert area.holds == 0
    area.free()


def test_frozen_core_refuses_new_memory_in_time(board: FaultyBoard) -> None:
    with connect(board, timeout=3.0) as link:  # which a boot on a busy machine takes as well
        check_works(link)
        free = board.window.heap.free_bytes
        board.freeze()
        with pytest.raises(sbe.Timeout):
            link.allocate(4096)
        assert board.window.heap.free_bytes < free  # the core may map it yet
        board.thaw()
        check_works(link)


# -- doorbells ------------------------------------------------------------------------------------


def test_lost_doorbells(link: sbe.Connection, board: FaultyBoard) -> None:
    check_works(link)
    for _ in range(3):
        board.line.drop_to_board = 1
        check_works(link)
        board.line.drop_to_host = 1
        check_works(link)
    assert link.stat()["connection"]["backstops"] >= 3


def test_lost_control_doorbells(link: sbe.Connection, board: FaultyBoard) -> None:
    board.line.deaf = True  # every second one is lost
    for _ in range(3):
        link.allocate(4096).free()


def test_repeated_doorbells(link: sbe.Connection, board: FaultyBoard) -> None:
    board.line.repeat = 3
    for i in range(100):
        payload = b"%d" % i
        assert link.call("echo", payload=payload).payload == payload


def test_burst_of_500_doorbells_and_noise(link: sbe.Connection, board: FaultyBoard) -> None:
    check_works(link)
    everything = bytes(range(256)) * 2
    noise = random.Random(5).randbytes(2000)
    for burst in (b"\x82" * 500, b"\x81" * 500, b"\x83" * 500, everything, noise):
        board.line.inject(to_board=burst)
        check_works(link)
    # The crash doorbell without a crash is noise too.
    for burst in (b"\x82" * 500, b"\x81" * 500, b"\x85" * 500, everything, noise):
        board.line.inject(to_host=burst)
        check_works(link)
    assert link.stat()["connection"]["losses"] == 0


# -- the shared RAM -------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["zero", "ones", "noise", "former life"])
def test_any_content_of_the_ram_at_start(board: FaultyBoard, content: str) -> None:
    window = board.window.memory
    size = _native.CARVEOUT_ARENA
    if content == "ones":
        window[:size] = b"\xff" * size
    elif content == "noise":
        window[:size] = random.Random(7).randbytes(size)
    elif content == "former life":
        with FaultyBoard(board.name) as former, connect(former) as link:
            check_works(link)
            window[:size] = bytes(memoryview(former.window.memory)[:size])
    with connect(board) as link:
        check_works(link)


def test_garbage_in_the_bootstrap_area_while_connected(
    link: sbe.Connection, board: FaultyBoard
) -> None:
    """The user gets an error or nothing; the next call finds a link that works."""
    window = board.window.memory
    rng = random.Random(11)
    area = link.allocate(4096)
    area[:] = b"kept" * 1024
    for begin, end in [
        (0, 0x80),
        (0x80, 0x100),
        (0x100, 0x400),
        (0x1000, 0x4000),
        (0x4000, 0x8000),
        (0, 0x8000),
    ]:
        window[begin:end] = rng.randbytes(end - begin)
        board.line.inject(to_board=b"\x83", to_host=b"\x83")  # both ends look
        with contextlib.suppress(sbe.LinkError, sbe.Timeout):  # and nothing else
            link.allocate(4096).free()  # something that uses it
        check_works(link)
        assert link.call("crc32", sbe.In(area)).payload == struct.pack("<I", zlib.crc32(area))


def test_ram_file_of_another_size(board: FaultyBoard) -> None:
    board.ram.write_bytes(bytes(1 << 20))
    with pytest.raises(sbe.LinkError, match=r"has 1048576 bytes, the board .* has 16777216"):
        connect(board)


def test_host_that_maps_another_size_than_the_firmware(board: FaultyBoard) -> None:
    board.start()
    (board.directory / "link.toml").write_text(
        f'memory = "{board.ram}"\ndoorbell = "unix:{board.directory / "db"}"\nsize = {8 << 20}\n'
    )
    with pytest.raises(sbe.LinkError, match="shares 16777216 bytes of RAM, this end 8388608"):
        sbe.connect(f"carveout:{board.directory / 'link.toml'}")


def test_areas_outside_the_arena_are_refused(board: FaultyBoard) -> None:
    start, size = BOARDS[board.name].window_address, BOARDS[board.name].window_size
    with Link(board.connect) as link:
        link.wait(link.start(), BOOT_S)
        context = link.wait(link.create_context(), BOOT_S)
        for address, length in [
            (start, 4096),  # the bootstrap area
            (start + 0x8000, 4096),  # offered, but only to be read
            (start + 0xF000, 8192),
            (start + size - 4096, 8192),
            (start + size, 4096),
            (BOARDS[board.name].code.start, 4096),
            (0xFFFFF000, 4096),
        ]:
            pending = link.map_area(context, None, length, segments=((address, length),))
            with pytest.raises(sbe.OutOfRange):
                link.wait(pending, BOOT_S)
        for address, length in [(start + 0x7FFC, 8), (start + 0xBFFC, 8), (start, 4096)]:
            pending = link.map_area(
                context, None, length, _native.AREA_READONLY, segments=((address, length),)
            )
            with pytest.raises(sbe.OutOfRange):
                link.wait(pending, BOOT_S)
        with pytest.raises(sbe.BadArgument, match=r"no.* device address|none"):
            link.map_area(context, None, 4096)
        pending = link.map_area(context, None, 4096, segments=((1 << 40, 4096),))
        with pytest.raises(sbe.OutOfRange):  # refused, never cut to 32 bits
            link.wait(pending, BOOT_S)


def test_memory_of_the_firmware_is_an_area(link: sbe.Connection, board: FaultyBoard) -> None:
    check_log_region(link, board)


# -- images ---------------------------------------------------------------------------------------


def test_wrong_images(tmp_path: Path) -> None:
    require_board("mps2-an521")
    require_board("mps2-an385")
    text = tmp_path / "text"
    text.write_text("no ELF at all" * 10)
    with pytest.raises(sbe.BadArgument, match="no ELF file"):
        QemuBoard(image=text)
    with pytest.raises(sbe.BadArgument, match=r"is for .*, the core of mps2-an521 is Arm, 32-bit"):
        QemuBoard(image=sys.executable)
    with pytest.raises(sbe.BadArgument, match="firmware for mps2-an385, the board is mps2-an521"):
        QemuBoard(image=image("mps2-an385"))
    with pytest.raises(sbe.BadArgument, match="No such file"):
        QemuBoard(image=tmp_path / "absent")
    with pytest.raises(sbe.BadArgument, match="mps2-an521, mps2-an385"):
        sbe.connect("qemu:mps3")
    cut = tmp_path / "cut"
    cut.write_bytes(image("mps2-an521").read_bytes()[:60])
    with pytest.raises(sbe.BadArgument, match="nothing to load"):
        QemuBoard(image=cut)


def test_image_without_our_note_for_another_board(tmp_path: Path) -> None:
    require_board("mps2-an385")
    data = image("mps2-an385").read_bytes().replace(b"SBE\0", b"XXX\0")
    (tmp_path / "elf").write_bytes(data)
    with pytest.raises(sbe.BadArgument, match="it is for another board"):
        QemuBoard(image=tmp_path / "elf")


# -- the place of a board -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a,b", "a,,b,", "deep" * 30, "sp ace", "-x", "ä=ö"])
def test_board_in_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU's options end at a comma; a unix socket's address holds 107 bytes."""
    require_board("mps2-an521")
    place = tmp_path / name
    place.mkdir()
    monkeypatch.chdir(place)
    copied = shutil.copy(image("mps2-an521"), place / "image,x.elf")
    for folder in (place, Path("board")):
        with QemuBoard(image=copied, directory=folder) as board, connect(board) as link:
            check_works(link)
            assert board.console() == "sbe-firmware on mps2-an521\n"
            assert board.qmp("query-status")["running"]


def test_temporary_folder_of_a_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /dev/shm, TMPDIR says where."""
    require_board("mps2-an521")
    place = tmp_path / ("deep" * 30 + ",x")
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(qemu, "_MEMORY", str(tmp_path / "no-shm"))
    with QemuBoard() as board, connect(board) as link:
        assert board.directory.parent == place
        check_works(link)
    assert not list(place.iterdir())
    place.rmdir()
    with pytest.raises(sbe.LinkError, match=r"no folder for the board, .*: No such file"):
        QemuBoard()


def test_folder_that_cant_be_used(tmp_path: Path) -> None:
    require_board("mps2-an521")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(sbe.LinkError, match=r"no folder for the board, .*: Not a directory"):
        QemuBoard(directory=file / "x")
    (tmp_path / "ram").mkdir()
    with pytest.raises(sbe.LinkError, match=r"the RAM file .* has .* bytes, the board"):
        QemuBoard(directory=tmp_path).start()


def test_firmware_of_another_version(board: FaultyBoard) -> None:
    other = image(board.name, "sbe-firmware-other-version")
    with pytest.raises(
        sbe.ProtocolError, match="remote speaks protocol versions 9 to 9, this host 1"
    ):
        sbe.connect(f"qemu:{board.name},{other}")


def test_qemu_is_not_installed(board: FaultyBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(sbe.LinkError, match="apt install qemu-system-arm"):
        sbe.connect(f"qemu:{board.name}")


def test_no_firmware_was_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SBE_FIRMWARE", str(tmp_path / "none.elf"))
    with pytest.raises(sbe.BadArgument, match=r"SBE_FIRMWARE='.*none\.elf' names no file"):
        QemuBoard()


# -- asynchronous work ----------------------------------------------------------------------------


def encode(samples: np.ndarray) -> bytes:
    """G.711 mu-law, written from the definition and not from the firmware."""
    level = np.minimum(np.abs(samples.astype(np.int32)), 32635) + 132
    exponent = np.floor(np.log2(level)).astype(np.int32) - 7
    mantissa = (level >> (exponent + 3)) & 15
    sign = np.where(samples < 0, 0x80, 0)
    return bytes((~(sign | exponent << 4 | mantissa) & 0xFF).astype(np.uint8))


def test_work_completes_out_of_order(link: sbe.Connection) -> None:
    samples = np.arange(-32768, 32768, dtype=np.int16)
    sizes = [32 * 65536, 65536, 8 * 65536, 256]
    jobs, order = [], []
    for size in sizes:
        area = link.allocate(3 * size)
        np.frombuffer(area, np.int16)[:size] = np.resize(samples, size)
        jobs.append(area)
    calls = []
    for size, area in zip(sizes, jobs, strict=True):
        call = link.submit("mulaw", sbe.In(area[: 2 * size]), sbe.Out(area[2 * size :]))
        call.add_done_callback(partial(lambda size, _: order.append(size), size))
        calls.append(call)
    assert link.call("echo", payload=b"between").payload == b"between"
    assert not calls[0].done()
    for size, area, call in zip(sizes, jobs, calls, strict=True):
        assert call.result().written == (size,)
        assert bytes(memoryview(area)[2 * size :]) == encode(np.resize(samples, size))
    assert order == sorted(sizes)


def test_asynchronous_work_can_be_cancelled(link: sbe.Connection) -> None:
    area = link.allocate(6 << 20)
    call = link.submit("mulaw", sbe.In(area[: 4 << 20]), sbe.Out(area[4 << 20 :]))
    assert call.cancel()
    with pytest.raises(sbe.Cancelled):
        call.result()
    check_works(link)
    wait_for(lambda: _poke(link) and not area.holds)
    area.free()


class StillBorn(FaultyBoard):
    """Killed between its start and the first contact."""

    def open_doorbell(self) -> int:
        self.kill()
        assert self._process is not None
        self._process.wait()
        return super().open_doorbell()


def test_killed_as_it_starts() -> None:
    require_board("mps2-an521")
    with (
        StillBorn("mps2-an521") as board,
        pytest.raises(sbe.LinkError, match=r"died as it started: .*signal 9"),
    ):
        connect(board)


# -- restarts under load --------------------------------------------------------------------------


@pytest.mark.timeout(60 + 10 * CYCLES)
def test_killed_and_restarted_under_load(link: sbe.Connection, board: FaultyBoard) -> None:
    """SBE_CYCLES kills (20): no hang, no wrong result, nothing leaked."""
    rng = random.Random(3)
    area = link.allocate(1 << 18)
    area[:] = rng.randbytes(1 << 18)
    right = struct.pack("<I", zlib.crc32(area))
    check_works(link)
    gc.collect()
    free, descriptors = board.window.heap.free_bytes, fds()
    stop = threading.Event()
    wrong: list[object] = []
    good = [0, 0]

    def load(index: int) -> None:
        while not stop.is_set():
            try:
                if index:
                    payload = rng.randbytes(20)
                    same = link.call("echo", payload=payload, timeout=BOOT_S).payload == payload
                else:
                    same = link.call("crc32", sbe.In(area), timeout=BOOT_S).payload == right
            except sbe.LinkError:  # RemoteRestarted; or the kill met the next one as it started
                continue  # one that stays shows by calls that no longer move on
            except BaseException as error:
                wrong.append(error)
                return
            if not same:
                wrong.append("wrong result")
            good[index] += 1

    def moved_on(before: list[int]) -> bool:
        return bool(wrong) or all(now > then for now, then in zip(good, before, strict=True))

    threads = [threading.Thread(target=load, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    try:
        kills = 0
        while kills < CYCLES:
            before = list(good)
            wait_for(partial(moved_on, before), 30)
            assert not wrong, (kills, wrong)
            time.sleep(rng.random() * 0.02)  # a random moment of the load
            kills += board.kill()
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)
    with contextlib.suppress(sbe.LinkError):  # the last kill, if no thread met it
        check_works(link)
    check_works(link)
    assert board.window.heap.free_bytes == free
    gc.collect()  # tracebacks of the losses
    assert fds() == descriptors
    print(f"{CYCLES} kills, {sum(good)} good calls")
