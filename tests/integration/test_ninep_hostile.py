"""A 9P client that lies, answers that do: one clear end, and nobody else is hurt."""

from __future__ import annotations

import contextlib
import errno
import random
import struct
from collections.abc import Iterator

import pytest

import sbe
from sbe.sdk import ninep_wire
from tests.integration import ninep
from tests.integration.ninep import NOFID, Served, message, served, text

NAME_MAX = 255


@pytest.fixture
def link() -> Iterator[sbe.Connection]:
    with sbe.connect("loopback:") as connection:
        yield connection
        with served(connection) as client:  # whatever came before
            assert "ram" in client.names("")


@pytest.fixture
def session(link: sbe.Connection) -> Iterator[Served]:
    found = Served(link)
    found.client.version(8192)
    found.client.attach()
    yield found
    found.close()


def refusal(session: Served, kind: int, body: bytes = b"") -> int:
    """The error that a message is answered with."""
    try:
        session.client.ask(kind, body)
    except OSError as error:
        return error.errno or 0
    return 0


@pytest.mark.parametrize("size", [0, 1, 6, 8193, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_size_that_can_not_be_ends_the_session(session: Served, size: int) -> None:
    session.client.socket.sendall(message(ninep.STATFS, 1, b"\0\0\0\0", size))
    with contextlib.suppress(ConnectionError):
        assert session.client.socket.recv(1) == b""
    error = session.ended()
    assert isinstance(error, sbe.ProtocolError)
    assert f"a message of {size} bytes; one has 7 to 8192" in str(error)


def test_a_message_of_exactly_the_agreed_size(session: Served) -> None:
    """Some clients think of 24 bytes before the data, and some of less."""
    client = session.client
    fid = client.create("ram/file")
    data = random.Random(1).randbytes(8192 - 23)
    assert client.write_at(fid, 0, data) == len(data)
    assert client.read_at(fid, 0, 8192 - 11) == data
    body = client.ask(ninep.READ, struct.pack("<IQI", fid, 0, 0xFFFFFFFF))
    assert body[4:] == data  # no more than a message holds is sent
    client.unlink("ram/file")


def test_a_tag_in_use(session: Served) -> None:
    fid = session.client.create("ram/file")
    session.client.unlink("ram/file")
    two = message(ninep.WRITE, 7, struct.pack("<IQI", fid, 0, 7000) + bytes(7000))
    with contextlib.suppress(EOFError, ConnectionError):
        session.client.socket.sendall(two * 200)  # some come before the first is answered
        for _ in range(200):
            assert session.client.receive()[1] == 7
    session.client.socket.close()
    error = session.ended()
    assert error is None or "used tag 7 twice at a time" in str(error)


def test_it_leaves_in_the_middle_of_a_message(session: Served) -> None:
    session.client.socket.sendall(message(ninep.WRITE, 1, bytes(100), 8000))
    session.client.socket.close()
    assert "in the middle of a message" in str(session.ended())


def test_it_leaves_without_taking_its_answers(session: Served) -> None:
    session.client.socket.sendall(message(ninep.STATFS, 1, b"\0\0\0\0"))
    session.client.socket.close()
    assert session.ended() is None


def test_before_a_version(link: sbe.Connection) -> None:
    session = Served(link)
    assert refusal(session, ninep.STATFS, b"\0\0\0\0") == errno.EPROTO
    for msize in (0, 1, 511):
        with pytest.raises(OSError, match="Invalid"):
            session.client.version(msize)
    assert session.client.version(8192, "9P2000.u") == "unknown"
    assert session.client.version(8192, "") == "unknown"
    session.client.msize = 0
    assert refusal(session, ninep.STATFS, b"\0\0\0\0") == errno.EPROTO
    assert session.client.version(8192) == "9P2000.L"
    session.client.attach()
    session.close()


@pytest.mark.parametrize("kind", [*range(0, 8), 16, 22, 30, 32, 51, 52, 54, 70, 102, 106, 200, 255])
def test_types_that_are_not_served(session: Served, kind: int) -> None:
    assert refusal(session, kind, bytes(20)) == errno.EOPNOTSUPP
    assert refusal(session, kind) == errno.EOPNOTSUPP
    session.client.names("")


KINDS = (8, 12, 14, 20, 24, 26, 40, 50, 72, 74, 76, 104, 108, 110, 116, 118, 120, 122)


@pytest.mark.parametrize("kind", KINDS)
def test_messages_of_every_length(session: Served, kind: int) -> None:
    """Too short and too long for what they are, with numbers and strings that point beyond."""
    source = random.Random(kind)
    for size in (*range(70), 500, 4000, 8185):
        for body in (bytes(size), b"\xff" * size, source.randbytes(size)):
            session.client.send(kind, body, 1)
            got, tag, _ = session.client.receive()
            assert (got in (7, kind + 1), tag) == (True, 1)
    session.client.version(8192)
    session.client.attach()
    session.client.names("")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"", errno.EINVAL),
        (b".", errno.EINVAL),
        (b"..", errno.EINVAL),
        (b"a/b", errno.EINVAL),
        (b"/", errno.EINVAL),
        (b"../../etc", errno.EINVAL),
        (b"a\0b", errno.EINVAL),
        (b"x" * (NAME_MAX + 1), errno.ENAMETOOLONG),
        (b"x" * 8000, errno.ENAMETOOLONG),
    ],
)
def test_names_that_can_not_be(session: Served, name: bytes, code: int) -> None:
    client = session.client
    client.write("ram/file", b"")
    with client.fid("ram") as fid:
        head = struct.pack("<I", fid) + text(name)
        assert refusal(session, ninep.MKDIR, head + struct.pack("<II", 0o777, 0)) == code
        assert refusal(session, ninep.LCREATE, head + struct.pack("<III", 2, 0o777, 0)) == code
        rename = struct.pack("<I", fid) + text("file") + head
        assert refusal(session, ninep.RENAMEAT, rename) == code
        if len(name) <= 300:
            unlink = head + struct.pack("<I", 0)
            assert refusal(session, ninep.UNLINKAT, unlink) == errno.ENOENT
    assert client.names("ram") == {"file"}
    client.unlink("ram/file")


def test_the_longest_names_there_are(session: Served) -> None:
    client = session.client
    name = "ä" * (NAME_MAX // 2)
    path = "ram"
    for _ in range(15):
        path += "/" + name
        client.mkdir(path)
    with client.fid(path) as fid:  # 16 names in one message
        assert client.attributes_of(fid).mode == 0o40755
    while path != "ram":
        client.rmdir(path)
        path = path.rpartition("/")[0]


def test_a_walk_of_too_many_names(session: Served) -> None:
    names = b"".join(text("..") for _ in range(17))
    walk = struct.pack("<IIH", 0, 9, 17) + names
    assert refusal(session, ninep.WALK, walk) == errno.EBADMSG
    assert refusal(session, ninep.WALK, struct.pack("<IIH", 0, 9, 2) + text("..")) == errno.EBADMSG


def test_fids_that_can_not_be(session: Served) -> None:
    walk = struct.pack("<IIH", 0, 0, 0)
    session.client.ask(ninep.WALK, walk)  # to itself
    fid = session.client.walk("ram")
    assert refusal(session, ninep.WALK, struct.pack("<IIH", 0, fid, 0)) == errno.EINVAL
    assert refusal(session, ninep.WALK, struct.pack("<IIH", 0, NOFID, 0)) == errno.EINVAL
    assert refusal(session, ninep.WALK, struct.pack("<IIH", 99, 98, 0)) == errno.EBADF
    assert refusal(session, ninep.CLUNK, struct.pack("<I", 0xFFFFFFFE)) == errno.EBADF
    attach = struct.pack("<II", 0, NOFID) + text("") + text("") + struct.pack("<I", 0)
    assert refusal(session, ninep.ATTACH, attach) == errno.EINVAL
    with_auth = struct.pack("<II", 5, 0) + text("") + text("") + struct.pack("<I", 0)
    assert refusal(session, ninep.ATTACH, with_auth) == errno.EBADF
    elsewhere = struct.pack("<II", 5, NOFID) + text("") + text("/etc") + struct.pack("<I", 0)
    assert refusal(session, ninep.ATTACH, elsewhere) == errno.ENOENT


def test_a_write_that_has_not_what_it_says(session: Served) -> None:
    client = session.client
    fid = client.create("ram/file")
    client.unlink("ram/file")
    for count in (0, 1, 999, 1001, 0xFFFFFFFF):
        for size in (100, 1000):  # in the frame, and by reference
            if count != size:
                body = struct.pack("<IQI", fid, 0, count) + bytes(size)
                assert refusal(session, ninep.WRITE, body) == errno.EBADMSG
    assert client.attributes_of(fid).size == 0


def test_random_messages(link: sbe.Connection) -> None:
    """Of known types and fids, so that they get far."""
    source = random.Random(5)
    session = Served(link)
    session.client.version(8192)
    session.client.attach()
    for number in range(5000):
        body = bytearray(source.randbytes(source.randrange(60)))
        if len(body) >= 8:
            struct.pack_into("<I", body, 0, source.randrange(8))
            if source.random() < 0.5:
                struct.pack_into("<I", body, 4, source.randrange(8))
        if source.random() < 0.3:
            body = bytearray(struct.pack("<IIH", source.randrange(8), source.randrange(8), 1))
            body += text(source.choice(["ram", "..", "config", "log", "a", "b"]))
            kind = ninep.WALK
        elif source.random() < 0.3:
            body = bytearray(struct.pack("<I", source.randrange(8)))
            body += text(source.choice("abc")) + struct.pack("<III", 2, 0o777, 0)
            kind = source.choice([ninep.LCREATE, ninep.MKDIR, ninep.UNLINKAT])
            body = body if kind == ninep.LCREATE else body[: -4 if kind == ninep.MKDIR else -8]
        else:
            kind = source.choice(KINDS)
        session.client.send(kind, bytes(body), number % 100)
        got, tag, _ = session.client.receive()
        assert (got in (7, kind + 1), tag) == (True, number % 100)
    session.close()
    assert session.error is None


def answer(kind: int, tag: int, body: bytes, size: int | None = None) -> bytes:
    return message(kind, tag, body, size)


@pytest.mark.parametrize(
    ("said", "written", "lie"),
    [
        (b"", 0, "0 bytes, of which none are a header"),
        (b"\x07\0\0\0", 0, "4 bytes, of which none are a header"),
        (answer(117, 6, struct.pack("<I", 0)), 0, "tag 6, which was 5"),
        (answer(119, 5, struct.pack("<I", 0)), 0, "type 119"),
        (answer(117, 5, struct.pack("<I", 0), 12), 0, "11 bytes that say they are 12"),
        (answer(117, 5, b""), 0, "7 bytes, too few for data"),
        (answer(117, 5, struct.pack("<I", 1)), 0, "0 bytes of data that say they are 1"),
        (answer(117, 5, struct.pack("<I", 1), 13), 2, "2 bytes of data that say they are 1"),
        (answer(117, 5, struct.pack("<I", 101), 112), 101, "101 bytes of data, where 100 were"),
        (answer(117, 5, struct.pack("<I", 1), 1001), 990, "1001 bytes, more than the 1000 that"),
        (answer(7, 5, b"\5\0\0"), 0, "an error of 10 bytes"),
        (answer(7, 5, struct.pack("<I", 5), 12), 1, "an error of 12 bytes"),
        (answer(7, 5, struct.pack("<I", 0)), 0, "the error 0, which is none"),
        (answer(7, 5, struct.pack("<I", 4096)), 0, "the error 4096, which is none"),
    ],
)
def test_answers_that_can_not_be(said: bytes, written: int, lie: str) -> None:
    with pytest.raises(sbe.ProtocolError, match=f"answered a 9P message of type 116 with {lie}"):
        ninep_wire.check_answer(said, written, 116, 5, 100, 1000)


def test_answers_that_can_be() -> None:
    for said, written, kind, most in (
        (answer(117, 5, struct.pack("<I", 100), 111), 100, 116, 100),
        (answer(117, 5, struct.pack("<I", 2) + b"ab"), 0, 116, 100),
        (answer(7, 5, struct.pack("<I", 5)), 0, 116, 100),
        (answer(121, 5, b""), 0, 120, None),
    ):
        ninep_wire.check_answer(said, written, kind, 5, most, 111)


def agreed(msize: int, tag: int = ninep.NOTAG, size: int | None = None) -> bytes:
    return answer(101, tag, struct.pack("<I", msize) + text("9P2000.L"), size)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        agreed(8193),  # than there is memory for: what is written would lie in others'
        agreed(0xFFFFFFFF),
        agreed(511),
        agreed(8192, tag=1),
        agreed(8192, size=0x7FFFFFFF),
        agreed(8192, size=20),
        answer(101, ninep.NOTAG, b"\0\x20\0\0\x08"),
        answer(7, 1, struct.pack("<I", 5)),
        answer(7, ninep.NOTAG, struct.pack("<I", 5), 12),
    ],
)
def test_versions_that_can_not_be(said: bytes) -> None:
    with pytest.raises(sbe.ProtocolError, match="answered no Tversion"):
        ninep_wire.version_msize(said, ninep.NOTAG, 8192)


def test_versions_that_can_be() -> None:
    assert ninep_wire.version_msize(agreed(8192), ninep.NOTAG, 8192) == 8192
    assert ninep_wire.version_msize(agreed(512, 1), 1, 8192) == 512
    unknown = answer(101, 1, struct.pack("<I", 8192) + text("unknown"))
    assert ninep_wire.version_msize(unknown, 1, 8192) == 0
    assert ninep_wire.version_msize(answer(7, 1, struct.pack("<I", 5)), 1, 8192) == 0
