"""Firmware that does what it must not, on an emulated core: each fault ends in a record which says
where it was, or in a deadline, and never in silence or in other memory."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

import sbe
from sbe import _native
from sbe.remotes.boards import BOARDS, QemuBoard
from tests.integration.ninep import served
from tests.rigs import boards
from tests.rigs.boards import FaultyBoard, check_works, connect, image
from tests.rigs.missing import require

pytestmark = [pytest.mark.rig, pytest.mark.timeout(120)]

MEM_MANAGE, USAGE_FAULT = 4, 6


@cache
def functions(board: str) -> dict[str, range]:
    """Where the functions of the faulty image lie."""
    require(
        shutil.which("arm-none-eabi-nm") is not None,
        "arm-none-eabi-nm is not installed (sudo apt install binutils-arm-none-eabi)",
    )
    words = [
        line.split()
        for line in subprocess.run(
            ["arm-none-eabi-nm", "--print-size", image(board, "sbe-firmware-faults")],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()
    ]
    return {
        each[3]: range(int(each[0], 16), int(each[0], 16) + int(each[1], 16))
        for each in words
        if len(each) == 4 and each[2] in "tT"
    }


@pytest.fixture(params=boards.BOARDS)
def board(request: pytest.FixtureRequest) -> Iterator[FaultyBoard]:
    """A board with our own image of this kind, whatever SBE_FIRMWARE names."""
    boards.require_board(request.param)
    with FaultyBoard(request.param, image(request.param, "sbe-firmware-faults")) as board:
        yield board


def crash_of(link: sbe.Connection, board: FaultyBoard, how: bytes) -> tuple[dict[str, Any], str]:
    """Break it. The record, which names the service and the call; and the caller's words."""
    check_works(link)
    call = link.submit("fault", payload=how)
    assert isinstance(call, _native.Call)
    with pytest.raises(sbe.RemoteRestarted, match="the firmware crashed") as caught:
        call.result(boards.BOOT_S)
    crash = board.crash()
    assert crash is not None
    assert (crash["service"], crash["transaction"]) == ("fault", call.transaction)
    said = str(caught.value)
    assert f"in service 'fault', transaction {call.transaction}" in said
    assert f"pc {crash['pc']:#010x}" in said or f"near {crash['pc']:#010x}" in said
    assert 0 < len(crash["backtrace"]) <= 8
    assert all(address in BOARDS[board.name].code for address in crash["backtrace"])
    return crash, said


def check_next_life(link: sbe.Connection, board: FaultyBoard) -> None:
    check_works(link)
    assert board.crash() is None


@pytest.mark.parametrize(
    ("how", "function", "kind", "exception", "words"),
    [
        (b"a", "fail_assertion", "assert", 0, "assertion failed: the fault service was asked to"),
        (b"h", "undefined_instruction", "instruction", USAGE_FAULT, "undefined instruction"),
        (b"r", "null_read", "access", MEM_MANAGE, "illegal access at 0x00000000"),
        (b"w", "null_write", "access", MEM_MANAGE, "illegal access at 0x00000000"),
        (b"c", "write_to_code", "access", MEM_MANAGE, "illegal access at 0x"),
        (b"u", "unaligned_read", "alignment", USAGE_FAULT, "unaligned access"),
        (b"d", "divide_by_zero", "division", USAGE_FAULT, "division by zero"),
        (b"i", "stray_interrupt", "interrupt", 17, "exception without a handler"),
    ],
)
def test_fault_is_told_with_its_place(
    link: sbe.Connection,
    board: FaultyBoard,
    how: bytes,
    function: str,
    kind: str,
    exception: int,
    words: str,
) -> None:
    crash, said = crash_of(link, board, how)
    assert (crash["kind"], crash["exception"]) == (kind, exception)
    assert words in said
    place = functions(board.name)[function]
    # Behind the call of the assertion, as a return address is.
    assert crash["pc"] - (kind == "assert") - 1 in range(place.start - 1, place.stop)
    if how in b"rw":
        assert crash["mmfar"] == 0
    boards.wait_for(lambda: f"crash at {crash['pc']:08x}: {crash['text']}\n" in board.console())
    check_next_life(link, board)


@pytest.mark.parametrize(
    ("how", "function"),
    [(b"j", "jump_to_null"), (b"x", "execute_ram"), (b"X", "execute_window")],
)
def test_nothing_but_code_is_executed(
    link: sbe.Connection, board: FaultyBoard, how: bytes, function: str
) -> None:
    """The core is where it was sent to; the link register has who sent it."""
    crash, said = crash_of(link, board, how)
    assert crash["kind"] == "execute"
    assert "execution of what is no code (MemManage)" in said
    address = {"j": 0, "X": BOARDS[board.name].window_address + _native.CARVEOUT_ARENA}
    if how == b"x":
        assert crash["pc"] not in BOARDS[board.name].code
    else:
        assert crash["pc"] == address[how.decode()]
    assert crash["lr"] - 1 in functions(board.name)[function]
    check_next_life(link, board)


@pytest.mark.parametrize(
    ("how", "function"), [(b"o", "overflow_stack"), (b"O", "descend")], ids=["local", "recursion"]
)
def test_stack_overflow_reaches_no_data(
    link: sbe.Connection, board: FaultyBoard, how: bytes, function: str
) -> None:
    """16 KiB at once, or little by little. Where the core was is lost with its frame: the limit
    register of the M33 stops it before the first."""
    crash, said = crash_of(link, board, how)
    assert crash["kind"] == "stack"
    assert "stack overflow (" in said
    known = functions(board.name)
    if crash["pc"]:
        assert crash["pc"] in known[function]
    else:
        assert (board.name, how) != ("mps2-an521", b"o")
        # A function that calls nothing keeps its return address in a register.
        behind = ("sbe_engine_handle",) if how == b"o" else ("fault", "recurse", "descend")
        assert any(address in known[name] for address in crash["backtrace"] for name in behind)
    check_next_life(link, board)


def test_interrupt_that_does_not_end(link: sbe.Connection, board: FaultyBoard) -> None:
    crash, said = crash_of(link, board, b"I")
    assert crash["kind"] == "interrupt"
    assert "interrupts without end" in said
    assert crash["pc"] - 1 in functions(board.name)["uart_receive"]
    check_next_life(link, board)


def test_the_next_life_tells_of_it(link: sbe.Connection, board: FaultyBoard) -> None:
    """In its file /crash, and the one behind that has nothing to tell."""
    crash, _ = crash_of(link, board, b"d")
    check_next_life(link, board)
    with served(link) as client:
        lines = client.read("crash").decode().splitlines()
    said = {name: value for name, value in (line.split(None, 1) for line in lines)}
    assert said.pop("backtrace").split() == [f"{each:#010x}" for each in crash["backtrace"]]
    assert said.pop("transaction") == str(crash["transaction"])
    for name in ("text", "kind", "service"):
        assert said.pop(name) == crash[name]
    for name in ("pc", "lr", "sp", "cfsr", "hfsr", "mmfar", "bfar"):
        assert said.pop(name) == f"{crash[name]:#010x}"
    assert said == {}
    board.reset()
    with pytest.raises(sbe.RemoteRestarted, match="restarted"):
        link.call("echo", timeout=boards.BOOT_S)
    with served(link) as client:
        assert client.read("crash") == b""


def test_storm_of_doorbells_is_survived(link: sbe.Connection, board: FaultyBoard) -> None:
    """As many interrupts as the line gives: each has a byte, and calls go on between them."""
    check_works(link)
    noise = random.Random(17).randbytes(4000)
    for _ in range(10):
        calls = [link.submit("echo", payload=b"%d" % i) for i in range(20)]
        board.line.inject(to_board=noise)
        assert [call.result(boards.BOOT_S).payload for call in calls] == [
            b"%d" % i for i in range(20)
        ]
    assert board.crash() is None
    assert link.stat()["connection"]["losses"] == 0


@pytest.mark.parametrize("how", [b"l", b"s"], ids=["interrupts on", "interrupts off"])
def test_endless_loop_ends_in_the_deadline(
    link: sbe.Connection, board: FaultyBoard, how: bytes
) -> None:
    check_works(link)
    begun = time.monotonic()
    with pytest.raises(sbe.Timeout):
        link.call("fault", payload=how, timeout=0.3)
    with pytest.raises(sbe.Timeout):
        link.call("echo", timeout=0.3)
    assert time.monotonic() - begun < boards.BOOT_S
    assert board.crash() is None
    board.reset()
    with pytest.raises(sbe.RemoteRestarted, match="restarted"):
        link.call("echo", timeout=boards.BOOT_S)
    check_works(link)


def test_crash_without_a_request_at_hand(link: sbe.Connection, board: FaultyBoard) -> None:
    """A task of the service runs when its handler has long returned: no service is blamed."""
    check_works(link)
    with contextlib.suppress(sbe.RemoteRestarted):  # the answer may be seen after the crash
        link.call("fault", payload=b"t", timeout=boards.BOOT_S)
    boards.wait_for(board.crash)
    crash = board.crash()
    assert crash is not None
    assert (crash["service"], crash["transaction"], crash["context"]) == ("", 0, 0)
    assert crash["pc"] in functions(board.name)["null_write"]


@pytest.mark.parametrize("name", boards.BOARDS)
def test_usual_image_can_not_be_broken(name: str) -> None:
    boards.require_board(name)
    with QemuBoard(name, image(name)) as board, connect(board) as link:
        assert not {"fault", "ask_power"} & {service.name for service in link.services()}
