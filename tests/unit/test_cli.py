"""The command line in this process: arguments, figures, texts, exit codes, JSON."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import stat as stat_module
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import sbe
import sbe.testing
from sbe import cli, control, errors
from sbe.cli import app, arguments, exit_codes, figures, picture, screen, session, stat, waves
from sbe.daemon import config
from sbe.remotes import uris
from sbe.remotes.carveout import Carveout, CarveoutConfig
from sbe.remotes.listening import ListeningRemote
from sbe.remotes.rpmsg import RpmsgRemote

LINK_KEYS = {"name", "state", "epoch", "remote", "pid", "transport"}


@pytest.fixture(autouse=True)
def no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SBE_SOCKET", raising=False)
    monkeypatch.setattr(control, "DEFAULT_SOCKET", str(tmp_path / "no-daemon"))
    monkeypatch.delenv("SBE_DEBUG", raising=False)


def run_json(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert app.run(["--json", *words]) == code
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert found["schema"] == 1
    assert found["ok"] is (code == 0)
    assert isinstance(found, dict)
    return found


def with_remote(monkeypatch: pytest.MonkeyPatch, remote: sbe.testing.Remote) -> None:
    monkeypatch.setattr(sbe, "connect", lambda uri=None, *, timeout=10.0: remote.link())


# The end of a recording


def test_a_signal_ends_a_recording_only_while_it_waits():
    """Not in the middle of a write, whose frames the file's header would not have."""
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with waves._End() as end:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), end.waiting():
            pytest.fail("asked before it waits")
    with waves._End() as end:
        with pytest.raises(KeyboardInterrupt), end.waiting():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_is_ignored_ends_no_recording():
    """By `nohup`, say."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with waves._End() as end, end.waiting():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


# Exit codes


def test_exit_codes_are_stable():
    assert exit_codes.EXIT_CODES.keys() == {0, 1, 2, 3, 4, 5, 6, 130}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Error("x"), 1),
        (errors.RemoteError("x"), 1),
        (errors.NoRoom("x"), 1),
        (errors.Cancelled("x"), 1),
        (errors.OutOfResources("x"), 1),
        (errors.BadArgument("x"), 2),
        (errors.MessageTooLarge("x"), 2),
        (errors.LinkError("x"), 3),
        (errors.RemoteRestarted("x"), 3),
        (errors.DaemonGone("x"), 3),
        (errors.ProtocolError("x"), 3),
        (errors.Timeout("x"), 4),
        (errors.PermissionDenied("x"), 5),
        (PermissionError(errno.EACCES, "denied", "file"), 5),
        (errors.UnknownService("x"), 6),
        (FileNotFoundError(errno.ENOENT, "missing", "file"), 1),
        (KeyboardInterrupt(), 130),
        (ValueError("x"), 1),
    ],
)
def test_exit_code_of_an_error(error: BaseException, code: int):
    assert exit_codes.exit_code_of(error) == code


def test_help_shows_every_exit_code_and_completion(capsys: pytest.CaptureFixture[str]):
    assert app.run(["--help"]) == 0
    text = capsys.readouterr().out
    for code, meaning in exit_codes.EXIT_CODES.items():
        assert f"{code:>3}  {meaning}" in text
    assert "_SBE_COMPLETE=bash_source" in text


def test_every_scheme_is_in_help_errors_and_documentation(capsys: pytest.CaptureFixture[str]):
    forms = uris.forms()
    assert len(forms) == 6
    assert app.run(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    with pytest.raises(errors.BadArgument) as refused:
        sbe.connect("tcp:here")
    for form in forms:
        assert form in shown
        assert form in str(refused.value)
        assert f'"{form.partition(":")[0]}:' in (sbe.connect.__doc__ or "")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        ":",
        "unix",
        "unix:",
        "qemu:",
        "loopback:x",
        "rpmsg",
        "rpmsg:m4,x",
        "carveout:",
        "socket:",
    ],
)
def test_no_link(uri: str):
    with pytest.raises(errors.BadArgument, match=f"^{uri!r} is no link: say loopback:"):
        sbe.connect(uri)


def test_every_kind_of_link_is_called_what_it_is():
    """Those that connect() makes and those that the daemon may be configured for."""
    here = {
        RpmsgRemote("m4").transport,
        Carveout(CarveoutConfig("/dev/null", "unix:x"), "x").transport,
        ListeningRemote("/run/x").transport,
        "qemu",  # tests/rigs/test_firmware_cli.py has one
    }
    configured = {
        get_args(link.model_fields["transport"].annotation)[0]
        for link in (config.EmbeddedLink, config.RpmsgLink, config.CarveoutLink)
    }
    assert here | configured == session._KINDS.keys()
    assert [key for key, word in session._KINDS.items() if "embedded" in word] == ["embedded"]


def test_version(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sbe {sbe.__version__}\n"


# Errors: one line that says what to do


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["ping", "--nonsense"], 2, "No such option '--nonsense'"),
        (["ping", "-c", "0"], 2, "Invalid value for '-c'"),
        (["ping", "-s", "100000"], 2, "-s 100000: that does not fit one frame"),
        (
            ["--uri", "nonsense:", "ping"],
            2,
            "'nonsense:' is no link: say loopback:, unix:PATH, qemu:BOARD",
        ),
        (["ping", "--uri", "unix:/nonexistent/s"], 3, "/nonexistent/s does not exist; start sbe-"),
        (["call"], 2, "Missing argument 'SERVICE'"),
        (["call", "nonsense"], 6, "no service 'nonsense'; `sbe list` shows the services"),
        (["call", "echo", "7"], 2, "'7': values need --struct FORMAT"),
        (["call", "echo", "--struct", "<II", "1"], 2, "'<II' takes 2 values, 1 are given"),
        (["call", "echo", "--struct", "Z"], 2, "--struct 'Z': bad char"),
        (["call", "echo", "--struct", "<B", "256"], 2, "--struct '<B': ubyte format requires"),
        (["call", "echo", "--struct", "<B", "x"], 2, "'x' is no number for 'B'"),
        (["call", "echo", "--payload", "hex:0"], 2, "'hex:0': hex: takes pairs"),
        (["call", "echo", "--payload", "text:a", "--struct", "<B", "1"], 2, "exclude each other"),
        (["call", "echo", "--raw", "--json"], 2, "--raw and --json exclude each other"),
        (["call", "echo", "--unpack", "Z"], 2, "--unpack 'Z': bad char"),
        (["call", "echo", "--unpack", "<I"], 1, "the reply has 0 bytes, --unpack '<I' takes 4"),
        (["call", "echo", "--payload", f"text:{'x' * 5000}"], 2, "go into a buffer, --in DATA"),
        (["call", "copy", "--in", "text:abc", "--out", "2"], 1, "has too little room"),
        (["call", "copy", "--out", "2T"], 2, "'2T': say N or FILE:N"),
        (["call", "copy", "--out", "/nonexistent/f:2"], 2, "there is no folder /nonexistent"),
        (["call", "crc32", "--in", "/nonexistent"], 1, "/nonexistent: No such file or directory"),
        (["call", "crc32", "--in", "/proc/self/mem"], 1, "/proc/self/mem: Input/output error"),
        (["call", "crc32", "--in", "/"], 1, "/: Is a directory"),
        (["call", "sobel"], 1, "service 'sobel' answered: Invalid argument"),
        (["demo", "/nonexistent.png"], 2, "does not exist"),
        (["demo", "/dev/null"], 1, "/dev/null: not a picture that Pillow can open"),
    ],
)
def test_error(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]):
    assert app.run(words) == code
    err = capsys.readouterr().err
    if "--json" not in words:
        assert err.startswith("sbe: error: ")
        assert err.count("\n") == 1
        assert message in err


def test_json_of_an_error(capsys: pytest.CaptureFixture[str]):
    found = run_json(capsys, "call", "nonsense", code=6)
    assert found.keys() == {"schema", "command", "ok", "exit_code", "error"}
    assert found["command"] == "call"
    assert found["exit_code"] == 6
    assert found["error"].keys() == {"type", "errno", "message"}
    assert found["error"]["type"] == "UnknownService"
    assert found["error"]["errno"] == "ENOENT"


def test_json_of_a_usage_error(capsys: pytest.CaptureFixture[str]):
    found = run_json(capsys, "call", code=2)
    assert found["error"]["type"] == "Usage"


def test_json_behind_the_double_dash_is_a_value(capsys: pytest.CaptureFixture[str]):
    assert app.run(["call", "echo", "--", "--json"]) == 2
    assert capsys.readouterr().err.startswith("sbe: error: '--json': values need")


def test_unexpected_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise KeyError("some\nthing\x1b[2J")

    monkeypatch.setattr(sbe, "connect", fail)
    assert app.run(["ping"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("sbe: error: unexpected KeyError:")
    assert err.endswith("SBE_DEBUG=1 shows where\n")
    assert err.count("\n") == 1
    assert "\x1b" not in err
    monkeypatch.setenv("SBE_DEBUG", "1")
    assert app.run(["ping"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_permission(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise errors.PermissionDenied("the daemon's socket is for the group rpmsg")

    monkeypatch.setattr(sbe, "connect", refuse)
    assert app.run(["list"]) == 5
    assert capsys.readouterr().err == "sbe: error: the daemon's socket is for the group rpmsg\n"


def test_no_arguments_shows_help(capsys: pytest.CaptureFixture[str]):
    assert app.run([]) == 2
    assert "Usage: sbe" in capsys.readouterr().err


def test_click_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "sbe.cli.app")
    monkeypatch.setitem(sys.modules, "click", None)
    assert cli.main(["ping"]) == 1
    message = "the command line needs click: pip install 'structured-buffer-exchange[cli]'"
    assert capsys.readouterr().err == f"sbe: error: {message}\n"


def test_nothing_heavy_at_start():
    code = (
        "import sys, sbe.cli.app; "
        "print(sorted({'numpy', 'PIL', 'matplotlib', 'rich', 'multiprocessing', 'pydantic'}"
        " & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


# ping


def test_ping(capsys: pytest.CaptureFixture[str]):
    assert app.run(["ping", "-c", "3", "-i", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["seq=1", "seq=2", "seq=3"]
    assert lines[-1] == "PASS 3 of 3 answered, 0 lost, 0 wrong"


@pytest.mark.parametrize("size", [0, 1, 8, 900])
def test_ping_sizes(size: int, capsys: pytest.CaptureFixture[str]):
    found = run_json(capsys, "ping", "-c", "2", "-i", "0", "-s", str(size))
    assert found.keys() == {
        *("schema", "command", "ok", "size", "sent", "answered", "lost", "wrong"),
        *("time_us", "queue_us", "remote_us"),
    }
    assert found["time_us"].keys() == {"min", "median", "mean", "p99", "max"}
    assert (found["size"], found["sent"], found["answered"]) == (size, 2, 2)


def test_ping_fails_on_wrong_bytes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    with sbe.testing.Remote({"echo": lambda payload, *_: payload[::-1]}) as remote:
        with_remote(monkeypatch, remote)
        assert app.run(["ping", "-c", "2", "-i", "0"]) == 1
    assert capsys.readouterr().out.endswith("FAIL 0 of 2 answered, 0 lost, 2 wrong\n")


def test_ping_fails_without_an_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def slow(payload: bytes, *_: object) -> bytes:
        time.sleep(0.3)
        return payload

    with sbe.testing.Remote({"echo": slow}) as remote:
        with_remote(monkeypatch, remote)
        assert app.run(["ping", "-c", "1", "-W", "0.01"]) == 4
    out = capsys.readouterr().out
    assert "seq=1 no answer within 10.0 ms" in out
    assert out.endswith("FAIL 0 of 1 answered, 1 lost, 0 wrong\n")


# call


def test_call_takes_buffers_in_their_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    seen: list[bytes] = []

    def service(payload: bytes, *buffers: memoryview) -> bytes:
        seen.extend(map(bytes, buffers))
        for index in (0, 2, 4):  # as below: out, inout, out
            buffers[index][:] = b"z" * len(buffers[index])
        return payload

    changed = tmp_path / "changed"
    changed.write_bytes(b"file")
    changed.chmod(0o640)
    target = tmp_path / "out:put"
    with sbe.testing.Remote({"service": service}) as remote:
        with_remote(monkeypatch, remote)
        words = ["service", "--out", f"{target}:3", "--in=hex:0102", "--inout", str(changed)]
        found = run_json(capsys, "call", *words, "--in", "text:abc", "--out=2")
    assert seen == [b"\0\0\0", b"\1\2", b"file", b"abc", b"\0\0"]
    assert target.read_bytes() == b"zzz"
    assert changed.read_bytes() == b"zzzz"
    assert stat_module.S_IMODE(changed.stat().st_mode) == 0o640
    assert found["outputs"] == [
        {"index": 0, "written": 3, "file": str(target), "hex": None},
        {"index": 2, "written": 4, "file": str(changed), "hex": None},
        {"index": 4, "written": 2, "file": None, "hex": "7a7a"},
    ]


def test_json_of_a_call(capsys: pytest.CaptureFixture[str]):
    found = run_json(
        capsys, "call", "echo", "--struct", "<Hb3s", "--unpack", "<Hb3s", "--", "0x10", "-1", "abc"
    )
    assert found.keys() == {
        *("schema", "command", "ok", "service", "payload", "values", "outputs", "cost")
    }
    assert found["payload"] == "1000ff616263"
    assert found["values"] == [16, -1, "616263"]
    assert found["cost"].keys() == {
        *("copied_bytes", "synced_bytes", "doorbells", "queue_ns", "remote_ns", "total_ns")
    }


def test_call_reads_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abc")))
    assert app.run(["call", "crc32", "--in", "-", "--unpack", "<I"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(zlib.crc32(b"abc"))


def test_call_shows_a_hex_dump_and_the_cost(capsys: pytest.CaptureFixture[str]):
    assert app.run(["call", "fill", "--payload", "hex:41", "--out", "300"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "buffer 0: 300 of 300 bytes written"
    assert lines[1].startswith("00000000  41 41 41 41 41 41 41 41  41 41")
    assert lines[1].endswith("|AAAAAAAAAAAAAAAA|")
    assert lines[-2] == "... and 44 bytes more"
    assert lines[-1].startswith("cost: ")
    assert "0 bytes copied" in lines[-1]


@pytest.mark.parametrize("option", ["--in", "--inout"])
def test_buffers_without_an_end(
    option: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    """All buffers of a call share one limit."""
    monkeypatch.setattr(sys.modules["sbe.cli.call"], "INPUT_MAX", 1 << 20)
    (tmp_path / "half").write_bytes(bytes(1 << 19))
    half = str(tmp_path / "half")
    assert app.run(["call", "crc32", "--in", half, "--in", half, "--in", half]) == 2
    err = capsys.readouterr().err
    assert f"{half} has 524,288 bytes, more than the 0 that are taken: take a part" in err
    for device in ("/dev/zero", "/dev/urandom"):
        assert app.run(["call", "crc32", "--in", half, option, device]) == 2
        err = capsys.readouterr().err
        assert f"{device} has no end, or more than the 524,288 bytes that are taken" in err
        assert "`head -c 1M FILE | sbe call ... --in -`" in err


def test_picture_without_an_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(picture, "_FILE_MAX", 1 << 20)
    assert app.run(["demo", "/dev/urandom"]) == 2
    assert "/dev/urandom has no end, or more than the 1,048,576 byt" in capsys.readouterr().err


# list, stat


def test_json_of_list(capsys: pytest.CaptureFixture[str]):
    found = run_json(capsys, "list")
    assert found.keys() == {
        *("schema", "command", "ok", "daemon", "context"),
        *("links", "contexts", "areas", "channels", "endpoints", "services", "cores"),
    }
    assert found["links"][0].keys() >= LINK_KEYS
    assert found["contexts"][0].keys() >= {"id", "link", "client", "pid", "uid"}
    assert found["channels"][0].keys() >= {"id", "context", "slots", "slot_size", "priority"}
    assert {"echo", "crc32", "sobel"} <= {service["name"] for service in found["services"]}
    assert found["services"][0].keys() >= {"id", "name", "version"}


def test_list_says_that_there_is_no_daemon(capsys: pytest.CaptureFixture[str]):
    assert app.run(["list"]) == 0
    out = capsys.readouterr().out
    assert "this command" in out
    assert out.splitlines()[-1].startswith("No daemon:")


def test_json_of_stat(capsys: pytest.CaptureFixture[str]):
    found = run_json(capsys, "stat")
    assert found.keys() == {
        *("schema", "command", "ok", "daemon", "links", "channels", "endpoints", "users"),
        "connection",
    }
    assert found["daemon"] is None
    assert found["links"][0].keys() >= {"name", "restarts", "bad_messages"}
    ways = ("to_remote", "from_remote")
    counters = ("frames", "doorbells", "space_doorbells", "per_doorbell")
    assert found["channels"][0].keys() == {
        *("link", "id", "context", "in_flight"),
        *(f"{counter}_{way}" for counter in counters for way in ways),
    }
    assert found["users"][0].keys() == {"uid", "used", "quota"}


def test_packets_per_doorbell():
    row = {
        "link": "m4",
        "id": 3,
        "context": 2,
        "frames_to_remote": 8,
        "frames_from_remote": 6,
        "doorbells_to_remote": 4,
        "in_flight": 2,
    }
    found = stat.own_channel(
        {"channels": [{"id": 3, "context": 1}, row], "connection": {"context": 2, "channel": 3}}
    )
    assert found["frames_to_remote"] == 8
    assert found["per_doorbell_to_remote"] == 2
    assert found["per_doorbell_from_remote"] is None


def test_names_of_the_remote_can_not_command_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    with sbe.testing.Remote({"a\x1b[2J\nb": lambda payload: payload}) as remote:
        with_remote(monkeypatch, remote)
        assert app.run(["list"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"a\x1b[2J\nb" in out


# Figures and arguments


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("17", 17), ("2K", 2048), ("3MiB", 3 << 20), ("1g", 1 << 30)]
)
def test_parse_size(text: str, size: int):
    assert figures.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1T", "K", "1 2", "9" * 16])
def test_no_size(text: str):
    with pytest.raises(errors.BadArgument, match="is no size: say bytes, or 16K"):
        figures.parse_size(text)


def test_figures():
    assert figures.duration(0.5) == "0.50 us"
    assert figures.duration(1234) == "1.23 ms"
    assert figures.duration(2_500_000) == "2.50 s"
    assert figures.amount(999) == "999 B"
    assert figures.amount(307200) == "300 KiB"
    assert figures.amount(5000) == "4.88 KiB"
    assert figures.amount(3 << 40) == "3,072 GiB"
    assert figures.ratio(10, 25) == "2.50 x faster"
    assert figures.ratio(25, 10) == "2.50 x slower"
    assert figures.ratio(0, 10) == "-"
    assert figures.percentile(range(1, 101), 0.99) == 99
    assert figures.plural(1, "frame") == "1 frame"
    assert figures.summary_us([1000, 2000, 6000]) == {
        "min": 1.0,
        "median": 2.0,
        "mean": 3.0,
        "p99": 6.0,
        "max": 6.0,
    }


def test_write_file_replaces_whole_or_not_at_all(tmp_path: Path):
    class Broken:
        def __buffer__(self, flags: int) -> memoryview:
            raise BufferError

    target = tmp_path / "file"
    arguments.write_file(target, b"old")
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(TypeError):
        arguments.write_file(target, Broken())
    assert target.read_bytes() == b"old"
    arguments.write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert {path.name for path in tmp_path.iterdir()} >= {"file", "link"}
    assert not list(tmp_path.glob(".*"))
    arguments.write_file(Path(os.devnull), b"gone")


def test_plain_table(capsys: pytest.CaptureFixture[str]):
    screen.Screen("list").table(("name", ">size"), [("a", 1), ("bcdef", None), ("c", "1,000")])
    assert capsys.readouterr().out == "name    size\na          1\nbcdef      -\nc      1,000\n"


# Pictures


def test_numpy_sobel_is_scipys():
    pixels = np.random.default_rng(7).integers(0, 256, (33, 21), np.uint8)
    wide = pixels.astype(int)
    sums = np.abs(ndimage.sobel(wide, 0)) + np.abs(ndimage.sobel(wide, 1))
    expected = np.minimum(sums, 255)
    found = picture.numpy_sobel(pixels)
    assert (found[1:-1, 1:-1] == expected[1:-1, 1:-1]).all()
    assert not found[0].any()
    assert not found[:, -1].any()


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 77, 77),
        ("RGB", (255, 255, 255), 255),
        ("RGBA", (0, 0, 0, 0), 255),  # transparent: on white
        ("LA", (10, 255), 10),
        ("1", 1, 255),
        ("P", 0, 0),
        ("I;16", 40000, 0),  # one value: nothing to stretch
        ("CMYK", (0, 0, 0, 0), 255),
    ],
)
def test_every_kind_of_picture(mode: str, color: object, expected: int, tmp_path: Path):
    file = tmp_path / "picture.tiff"
    Image.new(mode, (5, 3), color).save(file)  # type: ignore[arg-type]
    found = picture.load(file)
    assert (found.width, found.height) == (5, 3)
    assert found.pixels.dtype == np.uint8
    assert (found.pixels == expected).all()


def test_deep_picture_is_stretched(tmp_path: Path):
    file = tmp_path / "deep.tiff"
    Image.fromarray(np.array([[100, 600, 1100]], np.uint16)).save(file)
    assert picture.load(file).pixels.tolist() == [[0, 127, 255]]


def test_damaged_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "half.png"
    Image.effect_noise((64, 64), 50).save(file)
    file.write_bytes(file.read_bytes()[:1000])
    assert app.run(["demo", str(file), "--output", str(tmp_path / "o.png")]) == 1
    assert "half.png: a damaged picture" in capsys.readouterr().err


def test_no_sample_photograph(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(picture, "_SAMPLES", (("no_such_package", "photo.jpg"), ("os", "x")))
    assert app.run(["demo"]) == 1
    assert "no sample photograph is installed: name a picture" in capsys.readouterr().err


def test_demo_without_numpy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert app.run(["demo"]) == 1
    message = "sbe demo needs numpy: pip install 'structured-buffer-exchange[demo]'"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (2000, 3), (3, 2000), (1700, 900)])
def test_before_and_after_of_any_shape(size: tuple[int, int], tmp_path: Path):
    pixels = np.full(size[::-1], 200, np.uint8)
    target = tmp_path / "pair.png"
    found = picture.Picture("some long name of a picture.jpeg", pixels)
    picture.save_pair(target, found, 255 - pixels, ("before " * 20, "after"))
    with Image.open(target) as sheet:
        assert sheet.format == "PNG"
        tones = np.asarray(sheet)
    middle = tones.shape[1] // 2
    assert (tones[:, :middle] == 200).any()
    assert (tones[:, middle:] == 55).any()
