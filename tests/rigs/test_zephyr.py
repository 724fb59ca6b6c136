"""The Zephyr image on the emulated board: what is its own. `make rig-zephyr` runs these, and the
conformance suite and the board's tests on the same image."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
from sbe import _native
from sbe.remotes.boards import BOARDS, QemuBoard
from tests.rigs.boards import FaultyBoard, connect
from tests.unit.session_pair import Recorder

IMAGE = os.environ.get("SBE_ZEPHYR_IMAGE", "")
# Both applications are built into one folder: FOLDER/APPLICATION/zephyr/zephyr.elf.
OPENAMP = Path(IMAGE, "../../..").resolve() / "openamp_mps2_an521_cpu0/zephyr/zephyr.elf"

pytestmark = [
    pytest.mark.rig,
    # Not even SBE_RIGS=required asks for it: no Debian package has Zephyr.
    pytest.mark.skipif(not IMAGE, reason="no Zephyr given: make rig-zephyr ZEPHYR_BASE=..."),
]


@pytest.fixture
def board() -> Iterator[FaultyBoard]:
    with FaultyBoard("mps2-an521", IMAGE) as board:
        yield board


@pytest.fixture
def link(board: FaultyBoard) -> Iterator[sbe.Connection]:
    with connect(board) as link:
        yield link


def test_boot_says_who_it_is(link: sbe.Connection, board: FaultyBoard) -> None:
    assert {"echo", "crc32", "mulaw", "uptime"} <= {service.name for service in link.services()}
    assert "sbe: carve-out link on mps2/an521/cpu0" in board.console()
    assert link.list()["links"][0]["remote"].startswith("sbe-zephyr ")


def test_service_of_the_application(link: sbe.Connection) -> None:
    first, second = (int.from_bytes(link.call("uptime").payload, "little") for _ in range(2))
    assert 0 < first <= second


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        (b"h", "instruction", r"undefined instruction \(UsageFault\) at pc 0x"),
        (b"a", "assert", "kernel panic"),
    ],
)
def test_fatal_error_is_told_with_its_record(
    link: sbe.Connection, board: FaultyBoard, how: bytes, kind: str, words: str
) -> None:
    with pytest.raises(sbe.RemoteRestarted, match=words):
        link.call("fault", payload=how, timeout=10.0)
    crash = board.crash()
    assert crash is not None
    assert (crash["kind"], crash["service"]) == (kind, "fault")
    assert crash["transaction"] != 0
    assert crash["backtrace"]
    assert crash["pc"] in BOARDS[board.name].code
    assert link.call("echo", payload=b"alive", timeout=10.0).payload == b"alive"  # a new life
    assert board.crash() is None


class Driver:
    """What Linux' remoteproc and virtio_rpmsg_bus set up, in the RAM that the board shares."""

    TABLE, QUEUES, BUFFERS = 0xFFF000, (0xF00000, 0xF01000), 0xF10000  # offsets into the window
    COUNT, ALIGN, BUFFER_BYTES = 16, 16, 512
    AVAILABLE = 16 * COUNT  # in a queue: behind the descriptors
    USED = (AVAILABLE + 2 * (3 + COUNT) + ALIGN - 1) // ALIGN * ALIGN
    STATUS, FEATURES = 20 + 24, 20 + 16  # in the table, as the firmware's only resource has them

    def __init__(self, memory: memoryview, base: int) -> None:
        self._memory = memory
        self._base = base
        self._seen = 0

    def wait(self, offset: int, form: str, value: int) -> None:
        """The firmware has no doorbell to the host here."""
        end = time.monotonic() + 10
        while self._word(offset, form) < value:
            assert time.monotonic() < end, f"{offset:#x} holds {self._word(offset, form)}"
            time.sleep(0.005)

    def start(self, message: bytes) -> None:
        """Set up both queues, with a message in the one to the firmware, and say so."""
        self.wait(self.TABLE + 68 + 8, "<I", self.COUNT)  # its last number: it is complete
        for index, queue in enumerate(self.QUEUES):
            self._put(self.TABLE + 48 + 20 * index, "<I", self._base + queue)
            for i in range(self.COUNT):
                buffer = self._base + self._buffer(index, i)
                self._put(queue + 16 * i, "<QIHH", buffer, self.BUFFER_BYTES, 2 * (1 - index), 0)
                self._put(queue + self.AVAILABLE + 4 + 2 * i, "<H", i)
        self._memory[self._buffer(1, 0) :][: len(message)] = message
        self._put(self.QUEUES[0] + self.AVAILABLE + 2, "<H", self.COUNT)
        self._put(self.QUEUES[1] + self.AVAILABLE + 2, "<H", 1)
        self._put(self.TABLE + self.FEATURES, "<I", 1)  # the name service
        self._put(self.TABLE + self.STATUS, "<B", 7)

    def receive(self) -> tuple[int, int, bytes]:
        """Source, destination and payload of the firmware's next message."""
        queue = self.QUEUES[0]
        self.wait(queue + self.USED + 2, "<H", self._seen + 1)
        buffer = self._buffer(0, self._word(queue + self.USED + 4 + 8 * self._seen, "<I"))
        self._seen += 1
        source, destination, _, size, _ = struct.unpack_from("<IIIHH", self._memory, buffer)
        return source, destination, bytes(self._memory[buffer + 16 : buffer + 16 + size])

    def _buffer(self, queue: int, index: int) -> int:
        return self.BUFFERS + self.BUFFER_BYTES * (self.COUNT * queue + index)

    def _word(self, offset: int, form: str) -> int:
        return int(struct.unpack_from(form, self._memory, offset)[0])

    def _put(self, offset: int, form: str, *values: int) -> None:
        struct.pack_into(form, self._memory, offset, *values)


@pytest.mark.skipif(not OPENAMP.is_file(), reason="the Zephyr that was given has no OpenAMP")
def test_openamp_meets_a_driver() -> None:
    """Up to the first doorbell: resource table, virtqueues, announcements, negotiation."""
    host = Recorder()
    session = _native.Session(host, role=_native.ROLE_HOST, address_bits=32)
    session.start(7)
    hello = host.out.popleft()
    with QemuBoard("mps2-an521", OPENAMP) as board:
        board.start()
        driver = Driver(memoryview(board.window.memory), board.board.window_address)
        driver.start(struct.pack("<IIIHH", 1030, 1024, 0, len(hello), 0) + hello)
        for name, address in ((b"sbe-control", 1024), (b"sbe-doorbell", 1025)):
            source, destination, announcement = driver.receive()
            assert (source, destination) == (address, 53)
            assert announcement.split(b"\0")[0] == name
            assert struct.unpack("<II", announcement[32:]) == (address, 0)
        for _ in ("its answer", "its own HELLO"):
            source, destination, message = driver.receive()
            assert (source, destination) == (1024, 1030)
            session.receive(message, 0)
        assert session.peer_epoch != 0
        assert session.peer_limits["channels"] == 8
        assert "sbe: rpmsg link on mps2/an521/cpu0" in board.console()
