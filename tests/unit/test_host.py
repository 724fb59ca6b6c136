"""What a program minds on any host: paths of sockets, files without an end, private folders."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import stat
import threading
from pathlib import Path

import pytest

from sbe import errors
from sbe._native import SignalsHeld
from sbe.host import files, sockets

NOBODY = 65534
OTHERS = pytest.mark.skipif(os.geteuid() != 0, reason="folders of other users need root")


def test_socket_at_a_path_of_any_length(tmp_path: Path):
    deep = tmp_path.joinpath(*["folder" * 10] * 4)
    deep.mkdir(parents=True)
    path = deep / "socket"
    assert len(str(path)) > 2 * sockets.ADDRESS_MAX
    before = sorted(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with sockets.address(path) as address:
            listener.bind(address)
        listener.listen()
        assert path.is_socket()
        with sockets.address(path) as address:
            client.connect(address)
        with listener.accept()[0] as accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_socket_at_a_path_that_fits_is_left_as_it_is(tmp_path: Path):
    for length in (20, sockets.ADDRESS_MAX):
        path = "/" + "x" * (length - 1)
        with sockets.address(path) as address:
            assert address == path


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/tmp/" + "x" * 120, "this path has 125 bytes, the address of a unix socket holds 107"),
        ("/nonexistent/" + "x/" * 60 + "s", "No such file or directory"),
        ("", "this is no path of a socket"),
        ("/tmp/a\0b", "this is no path of a socket"),
    ],
)
def test_socket_at_no_path(path: str, words: str):
    with pytest.raises(OSError, match=words), sockets.address(path):
        pass


def test_files_are_read_up_to_a_limit(tmp_path: Path):
    path = tmp_path / "file"
    for size in (0, 1, 9, 10):
        path.write_bytes(b"x" * size)
        assert files.read_file(path, 10) == b"x" * size
    path.write_bytes(b"x" * 11)
    with pytest.raises(errors.BadArgument, match=r"file has 11 bytes, more than the 10 .*: cut it"):
        files.read_file(path, 10, "cut it")
    with open(path, "r+b") as file:
        file.truncate(1 << 40)  # not a byte of it is read
    with pytest.raises(errors.BadArgument, match="1,099,511,627,776 bytes, more than the"):
        files.read_file(path, 1 << 30)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_files_without_an_end(device: str):
    with pytest.raises(errors.BadArgument, match=rf"{device} has no end, or more than the 100,000"):
        files.read_file(device, 100_000)


def test_pipe_is_read_to_its_end_or_the_limit():
    for size, fits in ((3 << 20, True), ((3 << 20) + 1, False)):
        reader, writer = os.pipe()

        def write(fd: int = writer, size: int = size) -> None:
            with contextlib.suppress(BrokenPipeError), open(fd, "wb") as file:
                file.write(b"x" * size)

        thread = threading.Thread(target=write)
        thread.start()
        with open(reader, "rb") as file:
            if fits:
                assert len(files.read_stream(file, "pipe", 3 << 20)) == size
            else:
                with pytest.raises(errors.BadArgument, match="pipe has no end, or more than"):
                    files.read_stream(file, "pipe", 3 << 20)
        thread.join()


def test_file_that_grows_while_it_is_read(tmp_path: Path):
    class Growing(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            with open(path, "ab") as more:
                more.write(b"x" * 1000)
            return super().read(size) or b""

    path = tmp_path / "file"
    path.write_bytes(b"x")
    with Growing(path) as file, pytest.raises(errors.BadArgument, match="no end, or more than"):
        files.read_stream(file, "file", 50_000)


def test_reading_says_of_what(tmp_path: Path):
    for path in (tmp_path, tmp_path / "missing", Path("/proc/self/mem")):
        with pytest.raises(OSError, match=re.escape(str(path))) as raised:
            files.read_file(path, 10)
        assert raised.value.filename == str(path)


@pytest.mark.parametrize(
    "text", [b"\xef\xbb\xbfa = 1\r\n", b"a = 1", b"\xef\xbb\xbf# \xc3\xa4\na = 1"]
)
def test_toml_with_a_byte_order_mark(text: bytes, tmp_path: Path):
    (tmp_path / "f").write_bytes(text)
    assert files.read_toml(tmp_path / "f") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a = " + b"[" * 5000 + b"]" * 5000, "its brackets are nested too deeply"),
        (b"a = " + b"{a = " * 5000 + b"1" + b"}" * 5000, "its brackets are nested too deeply"),
        ("a = 1".encode("utf-16"), "no UTF-8 from byte 0 on; save it as UTF-8"),
        (b"# \xe4\n", "no UTF-8 from byte 2 on"),
        (b"a = " + b"1" * 5000, "4300"),
        (b"a = 1\n=\n", "line 2"),
    ],
)
def test_toml_that_is_none(text: bytes, words: str, tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(text)
    with pytest.raises(errors.BadArgument) as raised:
        files.read_toml(path)
    assert str(raised.value).startswith(f"{path}: is no valid TOML: ")
    assert words in str(raised.value)


def test_json_that_is_nested_too_deeply():
    assert files.parse_json("[" * 50 + "]" * 50)
    for text in ("[" * 100_000, '{"a":' * 100_000, b"\xff", ""):
        with pytest.raises(ValueError, match=r"nested too deeply|decode|Expecting value"):
            files.parse_json(text)


# Private folders


def test_private_folder_is_made_and_closed(tmp_path: Path):
    path = tmp_path / "private"
    with pytest.raises(FileNotFoundError), files.private_folder(path):
        pass
    for _ in range(2):
        with files.private_folder(path, make=True) as fd:
            assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o700
    path.chmod(0o755)  # others have looked in, and could put nothing there
    with files.private_folder(path) as fd:
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o700


@pytest.mark.parametrize("what", ["link", "file", "dangling", "loop"])
def test_private_folder_that_is_none(what: str, tmp_path: Path):
    path = tmp_path / "private"
    target = tmp_path / "target"
    if what == "file":
        path.write_text("")
    else:
        if what == "link":
            target.mkdir()
        path.symlink_to(path if what == "loop" else target)
    words = r"private is a link or a file of user \w+, a folder of user \w+ is needed"
    with (
        pytest.raises(errors.PermissionDenied, match=words),
        files.private_folder(path, make=True),
    ):
        pass


def test_private_folder_that_others_write(tmp_path: Path):
    path = tmp_path / "private"
    path.mkdir()
    path.chmod(0o770)
    with (
        pytest.raises(errors.PermissionDenied, match=r"\(mode 0770\).*`chmod 700 .*private`"),
        files.private_folder(path),
    ):
        pass
    path.chmod(0o700)
    tmp_path.chmod(0o777)
    with (
        pytest.raises(errors.PermissionDenied, match="others could replace private in it"),
        files.private_folder(path),
    ):
        pass
    tmp_path.chmod(0o1777)  # as /tmp is
    with files.private_folder(path):
        pass


@OTHERS
def test_private_folder_of_somebody_else(tmp_path: Path):
    path = tmp_path / "private"
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, -1)
    with (
        pytest.raises(errors.PermissionDenied, match=r"belongs to user nobody, not to user root"),
        files.private_folder(path, make=True),
    ):
        pass


def test_reading_is_interrupted_where_signals_are_held(tmp_path: Path) -> None:
    """A pipe that nobody writes: whoever connects to what it describes can still press Ctrl-C."""
    os.mkfifo(tmp_path / "pipe")

    class Came(Exception):
        pass

    def come(number: int, frame: object) -> None:
        raise Came

    former = signal.signal(signal.SIGALRM, come)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        with pytest.raises(Came), SignalsHeld():
            files.read_file(tmp_path / "pipe", 100)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
