"""Bad input gets a clear error, and nothing is lost: each row by its class and its words."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import sbe
import sbe.testing
from sbe import _native, control
from sbe.testing.conformance.parts import shown
from sbe.testing.conformance.services import PYTHON_SERVICES
from tests.conformance.ends import Connector, daemon

ROOT = Path(__file__).resolve().parents[2]


def works(link: sbe.Connection) -> None:
    assert link.call("echo", payload=b"on").payload == b"on"


# -- connecting


@pytest.mark.parametrize("uri", ["", "loop", "loopback:x", "unix:", "tcp:host", "unix", "/a/path"])
def test_uris_that_cant_be(uri: str) -> None:
    with pytest.raises(sbe.BadArgument, match="is no link: say loopback:, unix:PATH"):
        sbe.connect(uri)


def test_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    with pytest.raises(sbe.LinkError, match=r"start sbe-daemon, or use the URI 'loopback:'"):
        sbe.connect(f"unix:{path}")
    path.write_text("not a socket")
    with pytest.raises(sbe.LinkError, match=str(path)):
        sbe.connect(f"unix:{path}")
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    with pytest.raises(sbe.LinkError, match="no daemon answers"):
        sbe.connect(f"unix:{stale}")
    monkeypatch.delenv("SBE_SOCKET", raising=False)
    monkeypatch.setattr(control, "DEFAULT_SOCKET", str(tmp_path / "nobody"))
    with sbe.connect() as link:  # no daemon at the usual place: an embedded remote
        works(link)


@pytest.mark.parametrize("uri", [False, True], ids=["path", "uri"])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "no daemon: {} does not exist; start sbe-daemon"),
        ("file", "no daemon: {} is no socket; start sbe-daemon"),
        ("folder", "no daemon: {} is no socket; start sbe-daemon"),
        ("stale", "no daemon answers at {}; start sbe-daemon"),
        ("datagrams", "can't connect to {}: Protocol wrong type for socket"),
        ("below a file", "can't connect to {}: Not a directory"),
        ("link to itself", "can't connect to {}: Too many levels of symbolic links"),
    ],
)
def test_socket_that_is_named_is_used_or_refused(
    what: str, words: str, uri: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulation in its place would go unnoticed."""
    path = tmp_path / "s"
    with contextlib.ExitStack() as stack:
        if what == "file":
            path.write_text("")
        elif what == "folder":
            path.mkdir()
        elif what == "link to itself":
            path.symlink_to(path)
        elif what == "below a file":
            path.write_text("")
            path = path / "s"
        elif what in ("stale", "datagrams"):
            kind = socket.SOCK_STREAM if what == "stale" else socket.SOCK_DGRAM
            bound = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            bound.bind(str(path))
        value = f"unix:{path}" if uri else str(path)
        monkeypatch.setenv("SBE_SOCKET", value)
        with pytest.raises(sbe.LinkError) as raised:
            sbe.connect()
    assert str(raised.value).startswith(f"SBE_SOCKET={value!r}: {words.format(path)}")


@pytest.mark.parametrize("value", ["unix:", "loopback:", "relative", "qemu:mps2-an521", " "])
def test_socket_that_can_be_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBE_SOCKET", value)
    with pytest.raises(sbe.LinkError) as raised:
        sbe.connect()
    assert str(raised.value).startswith(f"SBE_SOCKET={value!r}: ")


@pytest.mark.parametrize("form", ["{}", "unix:{}"])
def test_socket_that_is_named_leads_to_a_daemon(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with daemon() as connect:
        with connect() as link:
            uri = link.uri
        monkeypatch.setenv("SBE_SOCKET", form.format(uri.removeprefix("unix:")))
        with sbe.connect() as link:
            assert link.uri == uri
            works(link)


def test_socket_of_the_system_may_be_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody named it; what happens in its place is told."""
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    monkeypatch.setenv("SBE_SOCKET", "")
    monkeypatch.setattr(control, "DEFAULT_SOCKET", str(stale))
    with sbe.connect() as link:
        works(link)
    assert f"no daemon answers at {stale}" in caplog.text
    assert "using an embedded remote" in caplog.text


@pytest.mark.parametrize("uri", ["qemu:mps2-an521,", "rpmsg:x,", "rpmsg:,", "unix:", ""])
def test_uri_with_a_part_that_is_empty(uri: str) -> None:
    with pytest.raises(sbe.Error, match=r"is no link|no plain file"):
        sbe.connect(uri)


@pytest.mark.parametrize("text", ["\0", "/a\0b", "\ud800"], ids=ascii)
@pytest.mark.parametrize("scheme", ["unix:", "carveout:", "qemu:mps2-an521,", "rpmsg:", ""])
def test_uri_with_what_no_path_has(scheme: str, text: str) -> None:
    with pytest.raises(sbe.BadArgument, match="is no link: it has characters that no name of a fi"):
        sbe.connect(scheme + text)


@pytest.mark.parametrize("scheme", ["unix", "carveout"])
def test_socket_whose_path_is_too_long(scheme: str, tmp_path: Path) -> None:
    """A long way is no reason to fail, a long name is."""
    deep = tmp_path / ("folder" * 20)
    deep.mkdir()
    for path, words in (
        (deep / "s", "does not exist|No such file"),
        (deep / ("s" * 100), "this path has .* bytes, the address of a unix socket holds 107"),
    ):
        uri = f"unix:{path}"
        if scheme == "carveout":
            (tmp_path / "ram").write_bytes(b"")
            os.truncate(tmp_path / "ram", 16 << 20)
            config = tmp_path / "link.toml"
            config.write_text(f'memory = "{tmp_path / "ram"}"\ndoorbell = "{uri}"\n')
            uri = f"carveout:{config}"
        with pytest.raises(sbe.LinkError, match=words):
            sbe.connect(uri)


def test_daemon_at_a_path_that_is_too_long_for_an_address(tmp_path: Path) -> None:
    """It listens by a short way; those who come by the long one find it."""
    deep = tmp_path.joinpath(*["folder" * 10] * 3)
    deep.mkdir(parents=True)
    with daemon() as connect:
        with connect() as link:
            path = link.uri.removeprefix("unix:")
        (deep / "link").symlink_to(os.path.dirname(path))
        with sbe.connect(f"unix:{deep / 'link' / os.path.basename(path)}") as link:
            works(link)


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_answer_that_is_nested_too_deeply(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "s"

    def answer() -> None:
        with listener.accept()[0] as accepted:
            accepted.recv(65536)
            accepted.sendall(b'{"parameters":' + b"[" * depth + b"]" * depth + b"}\0")
            accepted.recv(1)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(sbe.ProtocolError, match=f"at {path} does not speak varlink"):
            sbe.connect(f"unix:{path}")
        thread.join()


def test_firmware_that_is_named_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBE_FIRMWARE", "/no/such.elf")
    with pytest.raises(sbe.BadArgument, match=r"SBE_FIRMWARE='/no/such\.elf' names no file"):
        sbe.connect("qemu:mps2-an521")


@pytest.mark.parametrize("versions", [(2, 3), (7, 7)])
def test_another_version_names_both_ranges(versions: tuple[int, int]) -> None:
    ours = rf"{_native.VERSION_MIN} to {_native.VERSION_MAX}"
    theirs = rf"{versions[0]} to {versions[1]}"
    with sbe.testing.Remote(PYTHON_SERVICES, versions=versions) as remote:
        for _ in range(2):
            with pytest.raises(
                sbe.ProtocolError, match=rf"remote speaks .*{theirs}, this host {ours}: update"
            ):
                remote.link()


def script(path: Path, text: str) -> str:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def real_remote() -> Path:
    return Path(_native.__file__).with_name("sbe-remote")


def test_another_version_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = script(tmp_path / "remote", f'exec "{real_remote()}" "$@" --protocol 2-3\n')
    monkeypatch.setenv("SBE_REMOTE", wrapper)
    with pytest.raises(sbe.ProtocolError, match="versions 2 to 3, this host 1 to 1: update the ol"):
        sbe.connect("loopback:")


def test_an_overlap_of_versions_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = script(tmp_path / "remote", f'exec "{real_remote()}" "$@" --protocol 1-9\n')
    monkeypatch.setenv("SBE_REMOTE", wrapper)
    with sbe.connect("loopback:") as link:
        works(link)


BROKEN = {
    "missing": (None, r"embedded remote is missing: .*make build"),
    "a folder": ("folder", r"embedded remote is missing"),
    "not executable": ("plain", r"can't be started: Permission denied"),
    "no program": ("noise", r"can't be started: Exec format error"),
    "ends at once": ("exit 3", r"exited with status 3"),
    "says why": ("echo 'no such board' >&2; exit 1", r"status 1: no such board"),
    "crashes": ("kill -SEGV $$", r"signal 11 \(SIGSEGV\)"),
    "lets go and hangs": (
        f"exec {sys.executable} -c 'import os, sys, time; os.close(int(sys.argv[2])); "
        'time.sleep(60)\' "$@"',
        r"closed its connection and went on; killed by signal 9",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_remote_that_does_not_start(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, words = BROKEN[what]
    path = tmp_path / "remote"
    if content == "folder":
        path.mkdir()
    elif content == "plain":
        path.write_text("#!/bin/sh\n")
    elif content == "noise":
        path.write_bytes(bytes(range(1, 200)))
        path.chmod(0o755)
    elif content is not None:
        script(path, content + "\n")
    monkeypatch.setenv("SBE_REMOTE", str(path))
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(sbe.LinkError, match=words) as caught:
        sbe.connect("loopback:", timeout=20)
    assert not isinstance(caught.value, sbe.Timeout)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_remote_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBE_REMOTE", script(tmp_path / "remote", "exec sleep 60\n"))
    with pytest.raises(sbe.Timeout, match=r"within 0\.2 s: the negotiation .* sent nothing yet"):
        sbe.connect("loopback:", timeout=0.2)


NOISE = """
import socket, sys
link = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
message = link.recv(4096)
kind = {kind!r}
if kind == "magic":
    link.send(message[:4] + b"\\x07\\0\\0\\0" + message[8:16] + b"XXXX" + message[20:])
elif kind == "noise":
    for size in (1, 15, 16, 96, 400):
        link.send(bytes(range(256))[:size % 256] or b"x")
elif kind == "host":
    link.send(message[:4] + b"\\x07\\0\\0\\0" + message[8:])
while link.recv(4096):
    pass
"""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("magic", "does not speak this protocol"),
        ("host", "is a host as well"),
        ("noise", "negotiation"),
    ],
)
def test_a_remote_of_another_kind(
    kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "program.py").write_text(NOISE.format(kind=kind))
    wrapper = script(tmp_path / "remote", f'exec {sys.executable} {tmp_path}/program.py "$@"\n')
    monkeypatch.setenv("SBE_REMOTE", wrapper)
    expected = sbe.Timeout if kind == "noise" else sbe.ProtocolError
    with pytest.raises(expected, match=words):
        sbe.connect("loopback:", timeout=1.0 if kind == "noise" else 20.0)


# -- areas


@pytest.mark.parametrize("size", [0, -1, -(1 << 40)])
def test_an_area_without_bytes(link: sbe.Connection, size: int) -> None:
    with pytest.raises(sbe.BadArgument, match=f"{size} bytes"):
        link.allocate(size)
    works(link)


@pytest.mark.parametrize("size", [1 << 46, 1 << 62, (1 << 63) - 1, 1 << 63, 1 << 64, 1 << 100])
def test_an_area_larger_than_anything(connect: Connector, size: int) -> None:
    link = connect()
    with pytest.raises(
        (sbe.OutOfResources, sbe.PermissionDenied, sbe.BadArgument), match=r"bytes|size"
    ):
        link.allocate(size)
    assert link.stat()["connection"]["areas"] == 0
    works(link)


@pytest.mark.parametrize("size", [1.5, "4096", None])
def test_an_area_of_no_number(link: sbe.Connection, size: object) -> None:
    with pytest.raises((TypeError, sbe.BadArgument)):
        link.allocate(size)  # type: ignore[arg-type]
    works(link)


def test_more_areas_than_the_remote_holds() -> None:
    with sbe.testing.Remote(PYTHON_SERVICES, areas=8) as remote, remote.link() as link:
        areas = [link.allocate(64) for _ in range(7)]  # and one for the rings
        for _ in range(3):
            with pytest.raises(sbe.OutOfResources, match="all 8 areas"):
                link.allocate(64)
        areas.pop().free()
        areas.append(link.allocate(64))
        with pytest.raises(sbe.OutOfResources):
            link.allocate(64)
        works(link)


def test_beyond_the_quota(connect: Connector) -> None:
    if connect.name != "unix":
        pytest.skip("quotas are the daemon's")
    link = connect()
    with pytest.raises(sbe.PermissionDenied, match="quota"):
        link.allocate(4 << 30)
    works(link)


def test_a_heap_that_is_not_there(link: sbe.Connection) -> None:
    with pytest.raises(sbe.BadArgument, match="no heap"):
        link.allocate(64, heap="moon")
    works(link)


# -- buffers


def test_a_buffer_of_a_freed_area(link: sbe.Connection) -> None:
    area = link.allocate(4096)
    pixels, part = shown(area), area[10:20]
    area.free()
    for target in (area, part, part[2:], pixels, pixels[5:50], memoryview(part)):
        for direction in (sbe.In, sbe.Out, sbe.InOut, sbe.Shared):
            with pytest.raises(sbe.AreaFreed, match=r"buffer 0 lies in area \d+, which was freed"):
                link.call("echo", direction(target))
    with pytest.raises(sbe.AreaFreed, match="buffer 1"):
        link.call("echo", sbe.In(bytes(5000)), sbe.In(pixels))
    assert not pixels.any()  # to be read it is still there
    works(link)


def test_a_buffer_of_another_link(connect: Connector) -> None:
    link, other = connect(), connect()
    area = other.allocate(4096)
    for target in (area, area[10:20], shown(area), shown(area)[7:]):
        with pytest.raises(sbe.BadArgument, match="buffer 0 lies in an area of another link"):
            link.call("echo", sbe.In(target))
        with pytest.raises(sbe.BadArgument, match="buffer 1 lies in an area of another link"):
            link.call("echo", sbe.In(bytes(5000)), sbe.Out(target))
    works(link)
    assert other.call("crc32", sbe.In(area)).payload
    other.close()
    with pytest.raises(sbe.AreaFreed):
        link.call("echo", sbe.In(area))


def test_a_buffer_that_leaves_its_area(link: sbe.Connection) -> None:
    """Only a view made by hand can: slices end where their area ends."""
    area = link.allocate(4096)
    beyond = np.lib.stride_tricks.as_strided(shown(area)[4000:], (200,), (1,))
    reply = link.batch("fill", area.descriptors(sbe.Out, [4000], [200]), np.ones((1, 1), np.uint8))
    assert reply.status.tolist() == [-34]
    with pytest.raises(sbe.OutOfRange, match=r"buffer 0 \(200 bytes at 4000 of area"):
        link.call("crc32", sbe.In(beyond))
    works(link)


def test_freeing_twice_and_after_close(connect: Connector) -> None:
    link = connect()
    area = link.allocate(64)
    area.free()
    area.free()
    other = link.allocate(64)
    link.close()
    other.free()
    assert other.freed


def test_a_service_id_that_cant_be(link: sbe.Connection) -> None:
    for bad in (-1, 65536, 1 << 70):
        with pytest.raises((sbe.BadArgument, OverflowError)):
            link.call(bad)
    with pytest.raises(sbe.UnknownService):
        link.call(0)
    with pytest.raises(sbe.BadArgument, match="1 to 31 bytes"):
        link.call("")
    with pytest.raises(TypeError):
        link.call(None)  # type: ignore[arg-type]
    works(link)


# -- calls


def test_unknown_service(link: sbe.Connection) -> None:
    with pytest.raises(sbe.UnknownService, match="no service 'frobnicate'"):
        link.call("frobnicate")
    with pytest.raises(sbe.UnknownService, match="version 9"):
        link.find("echo", 9)


def test_buffer_that_is_not_contiguous(link: sbe.Connection) -> None:
    pixels = np.frombuffer(link.allocate(4096), np.uint8)
    with pytest.raises(sbe.BadArgument, match="ascontiguousarray"):
        link.call("crc32", sbe.In(pixels[::2]))
    with pytest.raises(sbe.BadArgument, match="step 2"):
        link.allocate(4096)[::2]


def test_too_many_buffers(link: sbe.Connection) -> None:
    area = link.allocate(4096)
    with pytest.raises(sbe.MessageTooLarge, match="17 buffers"):
        link.call("crc32", *[sbe.In(area[:1])] * 17)


def test_too_much_payload(link: sbe.Connection) -> None:
    with pytest.raises(sbe.MessageTooLarge, match=r"one frame holds \d+ bytes"):
        link.call("echo", payload=bytes(link.slot_size))


def test_what_is_no_buffer(link: sbe.Connection) -> None:
    with pytest.raises(TypeError, match=r"sbe\.In"):
        link.call("crc32", b"bare bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="buffer protocol"):
        sbe.In(7)


# -- building


def test_no_compiler(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "tests/tools/preflight.sh"), sys.executable],
        env={**os.environ, "CC": str(tmp_path / "no-such-compiler")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0
    assert "sudo apt install gcc" in done.stderr
    assert done.stderr.count("\n") == 1
