"""A service of files that lies or takes its time, behind a bridge: one clear end, nobody hangs."""

from __future__ import annotations

import errno
import itertools
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sbe
from sbe.sdk import ninep_wire as wire
from tests.integration import ninep
from tests.integration.ninep import LIMIT_S, Client, Served, message, served, text
from tests.integration.ninep_service import DATA, Asked, Liar, lying

TAG = 5


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[Liar]:
    with lying(tmp_path) as found:
        yield found


@pytest.fixture
def link(liar: Liar) -> sbe.Connection:
    return liar.link


def as_sized(answer: bytes) -> bytes:
    """With the size that it has."""
    return struct.pack("<I", len(answer)) + answer[4:]


def with_data(answer: bytes, data: bytes) -> bytes:
    """With other data."""
    return as_sized(answer[:7] + struct.pack("<I", len(data)) + data)


LIES: list[tuple[int, Callable[[bytes], bytes], str]] = [
    (ninep.STATFS, lambda m: b"", "0 bytes, of which none are a header"),
    (ninep.STATFS, lambda m: m[:3], "3 bytes, of which none are a header"),
    (ninep.STATFS, lambda m: m[:5] + b"\6\0" + m[7:], "tag 6, which was 5"),
    (ninep.STATFS, lambda m: m[:5] + b"\xff\xff" + m[7:], "tag 65535"),
    (ninep.STATFS, lambda m: m[:4] + b"\x75" + m[5:], "type 117"),
    (ninep.STATFS, lambda m: m[:4] + b"\x08" + m[5:], "type 8"),
    (ninep.STATFS, lambda m: m + b"x", "68 bytes that say they are 67"),
    (ninep.STATFS, lambda m: b"\0\0\0\0" + m[4:], "say they are 0"),
    (ninep.STATFS, lambda m: b"\xff\xff\xff\xff" + m[4:], "say they are 4294967295"),
    (ninep.STATFS, lambda m: wire.refusal(TAG, 0), "the error 0, which is none"),
    (ninep.STATFS, lambda m: wire.refusal(TAG, 1 << 31), "the error 2147483648"),
    (ninep.STATFS, lambda m: as_sized(wire.refusal(TAG, 5)[:-1]), "an error of 10 bytes"),
    (ninep.READ, lambda m: as_sized(m[:9]), "9 bytes, too few for data"),
]
OF_SIZES: list[tuple[int, Callable[[bytes], bytes], str]] = [
    (ninep.STATFS, lambda m: as_sized(m + bytes(600)), "667 bytes, more than the 512"),
    (ninep.READ, lambda m: as_sized(m + b"x"), "101 bytes of data that say they are 100"),
    (ninep.READ, lambda m: with_data(m, bytes(101)), "101 bytes of data, where 100 were asked"),
    (ninep.READDIR, lambda m: with_data(m, bytes(101)), "101 bytes of data, where 100 were"),
]
"""Where 512 bytes were agreed, and 100 asked for."""


def ask(client: Client, kind: int, fid: int, count: int, tag: int = TAG) -> None:
    body = struct.pack("<I", fid) + (b"" if kind == ninep.STATFS else struct.pack("<QI", 0, count))
    client.send(kind, body, tag)


def check_ends(session: Served, tags: set[int], words: str) -> None:
    """All tags get EIO, and the bridge says why."""
    client = session.client
    answers = [client.receive() for _ in tags]
    eio = struct.pack("<I", errno.EIO)
    assert {(kind, body) for kind, _, body in answers} == {(ninep.RLERROR, eio)}
    assert {tag for _, tag, _ in answers} == tags
    assert client.socket.recv(1) == b""
    error = session.ended()
    assert isinstance(error, sbe.ProtocolError)
    assert words in str(error)
    session.close()


@pytest.mark.parametrize(("kind", "lie", "words"), LIES + OF_SIZES)
def test_lies(
    link: sbe.Connection, liar: Liar, kind: int, lie: Callable[[bytes], bytes], words: str
) -> None:
    session = Served(link)
    session.client.version(512)
    session.client.attach()
    fid = session.client.walk("folder" if kind == ninep.READDIR else "data")
    session.client.ask(ninep.LOPEN, struct.pack("<II", fid, 0))
    liar.lies = {kind: lambda asked, honest: asked.answer(lie(honest)), ninep.CLUNK: liar.hold}
    session.client.send(ninep.CLUNK, struct.pack("<I", 0), 4)  # under way meanwhile
    ask(session.client, kind, fid, 100)
    check_ends(session, {4, TAG}, f"answered a 9P message of type {kind} with ")
    assert words in str(session.error)


@pytest.mark.parametrize("written", [0, 1, 4999, 5001, 5056])
@pytest.mark.parametrize("count", [0, 5000, 5001, 0xFFFFFFFF])
def test_lies_of_data_in_a_buffer(
    link: sbe.Connection, liar: Liar, written: int, count: int
) -> None:
    """What was written to it, and what the message says of that."""

    def lie(asked: Asked, honest: bytes) -> None:
        assert asked.room is not None
        asked.respond(struct.pack("<IBHI", 11 + written, asked.kind + 1, asked.tag, count), written)

    session = Served(link)
    session.client.version(8192)
    session.client.attach()
    fid = session.client.walk("data")
    session.client.ask(ninep.LOPEN, struct.pack("<II", fid, 0))
    liar.lies = {ninep.READ: lie}
    ask(session.client, ninep.READ, fid, 5000)
    if count == written <= 5000:
        assert session.client.answer(ninep.READ, TAG)[:4] == struct.pack("<I", 0)
        session.close()
    else:
        check_ends(session, {TAG}, "answered a 9P message of type 116 with ")


@pytest.mark.parametrize("status", [-errno.ENOENT, -errno.EPROTO, -4096, -(1 << 31)])
def test_statuses_of_messages(link: sbe.Connection, liar: Liar, status: int) -> None:
    """ENOENT is the end of the session, others of the message alone."""
    session = Served(link)
    session.client.version(8192)
    session.client.attach()
    liar.lies = {ninep.STATFS: lambda asked, honest: asked.respond(b"", status=status)}
    ask(session.client, ninep.STATFS, 0, 0)
    kind, tag, body = session.client.receive()
    assert (kind, tag) == (ninep.RLERROR, TAG)
    expected = errno.EPROTO if status == -errno.EPROTO else errno.EIO
    assert body == struct.pack("<I", expected)
    session.close()
    assert isinstance(session.error, sbe.UnknownService | None)


@pytest.mark.parametrize("name", [b"a/b", b"..", b"../../etc/passwd", b"", b"a\0b", b"\xff"])
def test_names_are_the_clients_to_check(link: sbe.Connection, liar: Liar, name: bytes) -> None:
    """A bridge looks at no entry; the kernel does, which the rig shows."""
    entry = struct.pack("<BIQQB", 0, 0, 1, 1, 8) + text(name)
    liar.lies = {ninep.READDIR: lambda asked, honest: asked.answer(with_data(honest, entry))}
    with served(link) as client, client.opened("folder") as fid:
        ask(client, ninep.READDIR, fid, 4000)
        assert client.answer(ninep.READDIR, TAG)[4:] == entry


# -- answers in any order -------------------------------------------------------------------------


@pytest.fixture
def client(link: sbe.Connection) -> Iterator[Client]:
    with served(link) as found:
        yield found


@pytest.fixture
def fid(client: Client) -> Iterator[int]:
    with client.opened("data") as found:
        yield found


def flush(client: Client, tag: int, own: int) -> None:
    client.send(ninep.FLUSH, struct.pack("<H", tag), own)


def test_answers_in_another_order(client: Client, fid: int, liar: Liar) -> None:
    liar.lies = {ninep.READ: liar.hold}
    for tag in range(6):
        ask(client, ninep.READ, fid, 1000 * (tag + 1), tag)
    held = [liar.take_held() for _ in range(6)]
    for asked, honest in reversed(held):
        asked.answer(honest)
    for tag in range(5, -1, -1):
        assert client.answer(ninep.READ, tag)[4:] == DATA[: 1000 * (tag + 1)]
    liar.lies.clear()


@pytest.mark.parametrize("count", [100, 5000])
def test_a_flush_is_answered_first(client: Client, fid: int, liar: Liar, count: int) -> None:
    """More often than there are places for data: each is given back as its late answer comes."""
    for late in itertools.islice(itertools.cycle([True, False]), 30):
        liar.lies = {ninep.READ: liar.hold}
        ask(client, ninep.READ, fid, count)
        flush(client, TAG, 6)
        client.answer(ninep.FLUSH, 6)
        assert liar.given_up.get(timeout=LIMIT_S).tag == TAG
        liar.lies.clear()
        ask(client, ninep.STATFS, fid, 0)  # its tag is free, and what comes is this one's answer
        client.answer(ninep.STATFS, TAG)
        asked, _ = liar.take_held()
        if late:
            asked.answer(wire.message(ninep.READ + 1, TAG, struct.pack("<I", count), count))
        else:
            asked.respond(b"", status=-errno.ECANCELED)
        assert client.read_at(fid, 0, count) == DATA[:count]


def test_a_late_answer_writes_over_nothing(client: Client, fid: int, liar: Liar) -> None:
    liar.lies = {ninep.READ: liar.hold}
    ask(client, ninep.READ, fid, 5000)
    flush(client, TAG, 6)
    client.answer(ninep.FLUSH, 6)
    late, _ = liar.take_held()
    ask(client, ninep.READ, fid, 5000)
    asked, honest = liar.take_held()
    asked.room[:5000] = honest[wire.READ_HEAD :]  # type: ignore[index]
    late.room[:5000] = bytes(5000)  # type: ignore[index]
    late.respond(bytes(11), 5000)
    asked.respond(honest[: wire.READ_HEAD], 5000)
    assert client.answer(ninep.READ, TAG)[4:] == DATA[:5000]
    liar.lies.clear()


def test_a_flush_is_answered_behind_what_it_flushes(client: Client, fid: int, liar: Liar) -> None:
    liar.lies = {ninep.READ: liar.hold, ninep.FLUSH: liar.hold}
    ask(client, ninep.READ, fid, 5000)
    flush(client, TAG, 6)
    flush(client, TAG, 7)  # once more: allowed
    flush(client, 6, 8)  # and a flush is flushed
    for _ in range(4):
        asked, honest = liar.take_held()
        asked.answer(honest)
    assert client.answer(ninep.READ, TAG)[4:] == DATA[:5000]
    for tag in (6, 7, 8):
        client.answer(ninep.FLUSH, tag)
    liar.lies.clear()


def test_a_tag_is_not_free_before_its_flush_is_answered(link: sbe.Connection, liar: Liar) -> None:
    session = Served(link)
    session.client.version(8192)
    session.client.attach()
    liar.lies = {ninep.STATFS: liar.hold, ninep.FLUSH: liar.hold}
    ask(session.client, ninep.STATFS, 0, 0)
    flush(session.client, TAG, 6)
    for _ in range(2):  # both are under way
        liar.take_held()
    session.client.socket.sendall(message(ninep.STATFS, TAG, bytes(4)))
    assert {session.client.receive()[:2] for _ in range(2)} == {(ninep.RLERROR, TAG), (7, 6)}
    with pytest.raises(EOFError):
        session.client.receive()
    assert "used tag 5 twice at a time" in str(session.ended())
    session.close()
