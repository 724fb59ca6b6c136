"""Python's parsers of foreign bytes: files and messages changed at will, from fixed seeds.

Each says what is wrong by the one error that it promises; nothing hangs, and no descriptor is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sbe import errors
from sbe.control import ERROR, INTERFACE, PROTOCOL
from sbe.daemon import config
from sbe.kernel import firmware_file
from sbe.remotes.boards import BOARDS, Resident, check_image
from sbe.sdk.varlink import VarlinkClient
from tests.fuzz.mutations import cases, mutated_bytes, mutated_document
from tests.integration.varlink_client import SECONDS, Daemon, daemon
from tests.unit.session_pair import count_fds

ROOT = Path(__file__).resolve().parents[2]
BOARD = BOARDS["mps2-an521"]


@contextlib.contextmanager
def told(case: int, data: object) -> Iterator[None]:
    """What was parsed, where that ends in another error than the promised one."""
    try:
        yield
    except Exception as error:
        error.add_note(f"case {case}: {str(data)[:2000]}")
        raise


# files


def elf_image() -> bytes:
    """As small as firmware for the board gets: a segment, the note with its name, section names."""
    code = b"\0" * 64
    note = struct.pack("<III4s", 4, 16, 1, b"SBE\0") + BOARD.name.encode() + b"\0" * 6
    names = b"\0.note.sbe\0.resource_table\0"
    at = 52 + 32
    parts = [(at, code), (at + len(code), note), (at + len(code) + len(note), names)]
    sections = struct.pack("<10I", *[0] * 10)
    for (place, data), kind, name in zip(parts, (1, 7, 3), (11, 1, 0), strict=True):
        sections += struct.pack("<10I", name, kind, 0, 0, place, len(data), 0, 0, 4, 0)
    table = parts[-1][0] + len(names)
    head = b"\x7fELF\1\1\1" + bytes(9)
    head += struct.pack(
        "<HHIIIIIHHHHHH", 2, 40, 1, BOARD.code.start, 52, table, 0, 52, 32, 1, 40, 4, 3
    )
    segment = struct.pack("<8I", 1, at, BOARD.code.start, BOARD.code.start, 64, 64, 5, 4)
    return head + segment + b"".join(data for _, data in parts) + sections


def test_firmware_images(tmp_path: Path):
    path = tmp_path / "firmware.elf"
    subprocess.run([sys.executable, ROOT / "linux/kernel/make_firmware.py", path], check=True)
    honest = [path.read_bytes(), elf_image()]
    path.write_bytes(honest[1])
    check_image(path, BOARD)
    assert firmware_file.has_resource_table(path) is True
    refused = 0
    for case, dice in enumerate(cases(1, 6000)):
        data = mutated_bytes(
            dice, dice.choice(honest), [b"\x7fELF\1\1", b".resource_table\0", b"SBE\0"]
        )
        path.write_bytes(data)
        with told(case, data):
            assert firmware_file.has_resource_table(path) in (True, False, None)
            assert isinstance(firmware_file.fault(path), str | None)
            try:
                check_image(path, BOARD)
            except errors.BadArgument:
                refused += 1
    assert 1000 < refused < 6000  # neither all nor none get to the end


def test_an_image_whose_tables_name_all_of_it_again_and_again(tmp_path: Path):
    """65,535 notes of 32 MiB each are as good as one: no table costs its square."""
    image = bytearray(elf_image())
    image[48:50] = (0xFFFF).to_bytes(2, "little")
    struct.pack_into("<I", image, 32, len(image))
    section = struct.pack("<10I", 0, 7, 0, 0, 0, 32 << 20, 0, 0, 4, 0)
    path = tmp_path / "firmware.elf"
    path.write_bytes(image + section * 0xFFFF)
    os.truncate(path, 40 << 20)
    words = f"from sbe.remotes.boards import *; check_image({str(path)!r}, BOARDS[{BOARD.name!r}])"
    # A process of its own, which takes a moment or minutes: its end can be waited for.
    subprocess.run([sys.executable, "-c", words], check=True, timeout=60)


def test_records_of_boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    directory = tmp_path / "sbe" / "one"
    directory.mkdir(parents=True, mode=0o700)
    directory.parent.chmod(0o700)
    record = asdict(Resident("one", BOARD.name, "/image.elf", 4000000, 1))
    honest = json.dumps(record).encode()
    read = 0
    said: list[str] = []
    for case, dice in enumerate(cases(2, 4000)):
        if dice.randrange(2):
            data = mutated_bytes(dice, honest, [b"[" * 2000, b'"pid"', b"1e999", b"\xff"])
        else:
            data = json.dumps(mutated_document(dice, record)).encode()
        (directory / "board.json").write_bytes(data)
        with told(case, data):
            try:
                board = Resident.find("one")
                assert not board.alive
                read += 1
            except errors.BadArgument as error:
                said.append(str(error))
    assert 0 < read < 2000
    assert all("is damaged" in line for line in said)


def toml(value: Any) -> str:
    """A value of TOML, as one line."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{json.dumps(str(key))} = {toml(one)}" for key, one in value.items())
        return f"{{ {pairs} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if value is None or isinstance(value, float):
        return '""' if value is None else repr(value)
    return json.dumps(value)


def test_configurations(tmp_path: Path):
    text = (ROOT / "linux/etc/daemon.toml").read_text()
    whole = "\n".join(
        line.removeprefix("# ").removeprefix("#")
        for line in text.splitlines()
        if "=" in line or "[" in line
    )
    honest = {
        "daemon": {"socket": "/run/x/a.sock", "group": "", "mode": "0600", "max_connections": 5},
        "link": [
            {"name": "a", "transport": "embedded", "command": ["sbe-remote"], "answer_seconds": 3.0,
             "limits": {"areas": 8, "slots": 64}, "restart": {"initial_seconds": 1.0}},
            {"name": "b", "transport": "rpmsg", "processor": "m4", "heaps": ["memfd"],
             "power": {"command": ["true"], "seconds": 1.0}},
        ],
        "policy": {"default": {"areas": 5, "bytes": 1000}, "uid": {"0": {"areas": 1}}},
        "log": {"level": "info"},
    }  # fmt: skip
    path = tmp_path / "daemon.toml"
    words = [b"[[link]]", b"[link.limits]", b"= -1", b"= 1e400", b"[" * 2000, b"\xff", b'"""', b"="]
    loaded = 0
    mistakes: list[str] = []
    for case, dice in enumerate(cases(3, 3000)):
        match dice.randrange(3):
            case 0:
                data = mutated_bytes(dice, text.encode(), words)
            case 1:
                data = mutated_bytes(dice, whole.encode(), words)
            case _:
                document = mutated_document(dice, honest)
                lines = (f"{json.dumps(str(key))} = {toml(one)}" for key, one in document.items())
                data = "\n".join(lines).encode(errors="surrogatepass")
        path.write_bytes(data)
        with told(case, data):
            try:
                config.load(path)
                loaded += 1
            except config.ConfigError as error:
                mistakes += error.lines
    assert 100 < loaded < 3000
    assert len(mistakes) >= 3000 - loaded
    assert all(mistakes)


# messages


ANSWERS = [
    {"parameters": {}},
    {"parameters": {"area": 65536, "size": 4096, "memory_fd": 0, "handle": {"x": [1, 2, "three"]}}},
    {"error": ERROR, "parameters": {"code": 13, "message": "no"}},
    {"error": "org.varlink.service.MethodNotFound", "parameters": {"method": "x"}},
]


def wrong_answer(dice: random.Random) -> tuple[bytes, int]:
    """What a daemon sends, and how many descriptors beside it."""
    honest = dice.choice(ANSWERS)
    if dice.randrange(2):
        data = json.dumps(mutated_document(dice, honest)).encode()
    else:
        data = mutated_bytes(
            dice, json.dumps(honest).encode(), [b"\0", b"[" * 2000, b"\xff", b"1e999"]
        )
    return data + b"\0" * dice.choice((1, 1, 1, 2, 0)), dice.choice((0, 0, 1, 3))


def answer_wrongly(listener: socket.socket, count: int) -> None:
    """To each connection: one call is read, a wrong answer sent, the connection closed."""
    for dice in cases(4, count):
        connection, _ = listener.accept()
        with connection, open(os.devnull) as null:
            connection.settimeout(SECONDS)
            with contextlib.suppress(OSError):
                connection.recv(65536)
                data, fds = wrong_answer(dice)
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [null.fileno()] * fds))
                sent = connection.sendmsg([data], [rights] if fds else [])
                connection.sendall(data[sent:])


def test_answers_of_a_daemon(tmp_path: Path):
    count, answered = 1500, 0
    path = str(tmp_path / "control.sock")
    before = count_fds()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        server = threading.Thread(target=answer_wrongly, args=(listener, count), daemon=True)
        server.start()
        for case in range(count):
            with told(case, "an answer"):
                client = VarlinkClient(path, SECONDS)
                try:
                    reply, fds = client.call("Anything")
                    assert isinstance(reply, dict)
                    for fd in fds:
                        os.close(fd)
                    answered += 1
                except errors.Error:
                    pass
                finally:
                    client.close()
        server.join(SECONDS)
        assert not server.is_alive()
    assert 100 < answered < count
    assert count_fds() == before


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("Open", {"protocol": PROTOCOL, "name": "one", "link": None}),
    ("Allocate", {"size": 4096, "heap": None}),
    ("Free", {"area": 65536}),
    ("OpenChannel", {"slots": 8, "slot_size": 256, "priority": 1}),
    ("CloseChannel", {"channel": 1}),
    ("FindService", {"name": "echo", "version": 0}),
    ("Serve", {"name": "mine", "version": 1}),
    ("Unserve", {"name": "mine"}),
    ("ListRegions", {}),
    ("Power", {"request": "frequency", "khz": 1000, "timeout_ms": 100}),
    ("OpenRegion", {"name": "memory"}),
    ("ListServices", {}),
    ("List", {}),
    ("Stat", {}),
    ("org.varlink.service.GetInfo", {}),
    ("org.varlink.service.GetInterfaceDescription", {"interface": INTERFACE}),
]


REFUSALS = {  # ours; varlink's own; and the library's, for JSON that is no call
    ERROR,
    *(f"org.varlink.service.{what}" for what in ("InvalidParameter", "MethodNotFound")),
    *(f"org.varlink.service.{what}" for what in ("InterfaceNotFound", "ExpectedMore")),
    "invalid.asyncvarlink.ProtocolViolation",
}


def wrong_call(dice: random.Random, honest: tuple[str, dict[str, Any]]) -> bytes:
    method, parameters = honest
    name = method if "." in method else f"{INTERFACE}.{method}"
    call = {"method": name, "parameters": parameters}
    data = json.dumps(call).encode()
    match dice.randrange(4):
        case 0:
            pass
        case 1:
            data = mutated_bytes(dice, data, [b"[" * 2000, b"\xff", b"\0"])
        case _:
            data = json.dumps(mutated_document(dice, call)).encode()
    return data + b"\0"


def replies(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """All until its end. Their descriptors are closed: of several at once nobody knows whose."""
    data = b""
    while True:
        try:
            part, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(64 * 4))
        except ConnectionResetError:  # cut off, with calls not read
            return
        for _, _, content in ancillary:
            fds = array("i")
            fds.frombytes(content)
            for fd in fds:
                os.close(fd)
        if not part:
            return
        *whole, data = (data + part).split(b"\0")
        yield from map(json.loads, whole)


def converse(running: Daemon, dice: random.Random) -> tuple[int, int]:
    """A connection that opens as it should, or not, and says what it likes: successes, errors."""
    with running.client() as client:
        if dice.randrange(4):
            client.open()
        with contextlib.suppress(BrokenPipeError):  # it was cut off already
            for honest in dice.choices(CALLS, k=dice.randrange(1, 6)):
                client.send_bytes(wrong_call(dice, honest))
            client.socket.shutdown(socket.SHUT_WR)
        came = list(replies(client.socket))
    failures = [reply for reply in came if "error" in reply]
    assert {reply["error"] for reply in failures} <= REFUSALS
    return len(came) - len(failures), len(failures)


def test_calls_of_clients(tmp_path: Path):
    """A bystander is answered throughout, and in the end the daemon has everything back."""
    embedded = '[[link]]\nname = "one"\ntransport = "embedded"\n'
    with daemon(tmp_path, embedded) as running, running.client() as bystander:
        bystander.open("bystander")
        before = running.descriptors()
        remote = running.remote_pid()
        successes = failures = 0
        for case, dice in enumerate(cases(5, 600)):
            with told(case, "a conversation"):
                some, others = converse(running, dice)
            successes += some
            failures += others
            if case % 20 == 0:
                bystander.call("FindService", name="echo", version=0)
        assert min(successes, failures) > 100
        running.wait_until(lambda: len(running.stat()["users"]) <= 1, "clients are gone")
        running.wait_until(lambda: running.descriptors() <= before, "descriptors are not back")
        assert running.remote_pid() == remote
        said = running.log()
        assert "Traceback" not in said, said
        bystander.call("FindService", name="echo", version=0)
