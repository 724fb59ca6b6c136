"""The program `sbe` as a user runs it: a process, its output, its exit code."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sbe
from sbe.cli.picture import numpy_sobel
from tests.integration.varlink_client import Daemon, daemon

SBE = Path(sys.executable).with_name("sbe")
SECONDS = 40.0
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No daemon, and every wish for colour that programs know of."""
    wishes = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm-256color"}
    kept = {key: value for key, value in os.environ.items() if key not in ("SBE_DEBUG", "NO_COLOR")}
    return {**kept, **wishes, "SBE_SOCKET": ""}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.effect_noise((96, 64), 60).save(path)
    return path


@pytest.fixture
def running() -> Iterator[Daemon]:
    # Not tmp_path: a unix socket's address has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="sbe") as folder, daemon(Path(folder)) as started:
        started.remote_pid()
        yield started


class Run:
    def __init__(self, environment: dict[str, str], words: Sequence[object], **how: Any) -> None:
        done = subprocess.run(
            [SBE, *map(str, words)],
            capture_output=True,
            env=environment,
            timeout=SECONDS,
            check=False,
            **how,
        )
        self.code = done.returncode
        self.out = done.stdout.decode()
        self.err = done.stderr.decode()

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        assert found["schema"] == 1
        return found


def has_ended(pid: int) -> bool:
    """Within a generous time."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], SECONDS)[0])
    finally:
        os.close(fd)


def remote_pid(text: str) -> int:
    found = re.search(r"process (\d+)", text)
    assert found is not None
    return int(found[1])


def test_ping(environment: dict[str, str]):
    done = Run(environment, ["ping", "-c", 3, "-i", 0])
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("PASS 3 of 3 answered, 0 lost, 0 wrong\n")
    assert not CONTROL.search(done.out)
    assert has_ended(remote_pid(done.out))


def test_python_m_sbe(environment: dict[str, str]):
    command = [sys.executable, "-m", "sbe", "--version"]
    assert subprocess.check_output(command, env=environment) == f"sbe {sbe.__version__}\n".encode()


def test_call_crc32_of_a_file(environment: dict[str, str], tmp_path: Path):
    content = np.random.default_rng(1).bytes(3 << 20)
    file = tmp_path / "file"
    file.write_bytes(content)
    done = Run(environment, ["--json", "call", "crc32", "--in", file, "--unpack", "<I"])
    assert done.code == 0
    found = done.json()
    assert found["values"] == [zlib.crc32(content)]
    assert found["cost"]["copied_bytes"] == 0
    command = [str(SBE), "call", "crc32", "--in", "-", "--raw"]
    payload = subprocess.check_output(command, input=content, env=environment, timeout=SECONDS)
    assert payload == zlib.crc32(content).to_bytes(4, "little")


def test_call_sobel_into_a_file(environment: dict[str, str], image: Path, tmp_path: Path):
    with Image.open(image) as opened:
        pixels = np.asarray(opened)
    (tmp_path / "grey.raw").write_bytes(pixels.tobytes())
    words = ["call", "sobel", "--in", "grey.raw", "--out", "edges.raw:6K", "--struct", "<II"]
    done = Run(environment, [*words, 96, 64], cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "buffer 1: 6,144 bytes written to edges.raw" in done.out
    assert (tmp_path / "edges.raw").read_bytes() == numpy_sobel(pixels).tobytes()


def test_list_and_stat(environment: dict[str, str]):
    listed = Run(environment, ["list"])
    assert (listed.code, listed.err) == (0, "")
    for word in ("Links", "Contexts", "Areas", "Channels", "Services", "sobel", "No daemon:"):
        assert word in listed.out
    counted = Run(environment, ["stat"])
    assert (counted.code, counted.err) == (0, "")
    assert "packets per doorbell" in counted.out
    assert not CONTROL.search(listed.out + counted.out)


def test_demo(environment: dict[str, str], image: Path, tmp_path: Path):
    words = ["demo", image, "--frames", 20, "--output", "some/where/pair.png"]
    done = Run(environment, words, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert not CONTROL.search(done.out)
    lines = done.out.splitlines()
    assert lines[0] == "picture  picture.png, 96 x 64 pixels, 6 KiB in 8-bit grey"
    assert "wrote    some/where/pair.png" in lines
    assert any(line.startswith("Video: 20 frames in ") for line in lines)
    assert lines[-1] == "PASS 23 of 23 results checked against zlib and numpy"
    assert has_ended(remote_pid(done.out))
    with Image.open(image) as opened:
        edges = numpy_sobel(np.asarray(opened))
    with Image.open(tmp_path / "some" / "where" / "pair.png") as sheet:
        # Enlarged by 3, the right half behind two margins and the left half.
        margin = (sheet.width - 2 * 3 * 96) // 3
        left = 2 * margin + 3 * 96
        shown = np.asarray(sheet)[margin : margin + 3 * 64 : 3, left : left + 3 * 96 : 3]
    assert (shown == edges).all()


def test_json_of_demo(environment: dict[str, str], image: Path, tmp_path: Path):
    words = ["demo", image, "--json", "--frames", 20, "--output", tmp_path / "o.png"]
    done = Run(environment, words)
    assert (done.code, done.err) == (0, "")
    found = done.json()
    assert found.keys() == {
        *("schema", "command", "ok", "picture", "output", "still"),
        *("alone", "video", "pipe", "checks"),
    }
    assert found["picture"] == {"name": "picture.png", "width": 96, "height": 64}
    with Image.open(image) as opened:
        assert found["still"]["crc32"]["value"] == zlib.crc32(opened.tobytes())
    times = {"queue_us", "remote_us", "total_us", "moving_us"}
    costs = {"transactions", "copied_bytes", "synced_bytes", "doorbells"}
    assert found["alone"].keys() == times | costs
    assert found["video"].keys() == {
        *(times | costs),
        *("frames", "in_flight", "seconds", "frames_per_second"),
        *("packets", "doorbells_both_ways", "packets_per_doorbell"),
    }
    assert found["video"]["frames"] == found["video"]["transactions"] == 20
    assert found["video"]["packets"] >= 2 * 20
    assert found["video"]["copied_bytes"] == found["alone"]["copied_bytes"] == 0
    assert found["checks"] == {"frames": 21, "wrong": []}


def test_demo_of_the_sample_photograph(environment: dict[str, str], tmp_path: Path):
    done = Run(environment, ["demo", "--frames", "4"], cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "build" / "demo.png").is_file()


def test_bench(environment: dict[str, str]):
    done = Run(environment, ["bench", "--quick", "--json"])
    assert (done.code, done.err) == (0, "")
    rows = done.json()["rows"]
    assert rows.keys() == {"call_64_bytes", "invert_16_mib"}
    for row in rows.values():
        assert row.keys() == {"samples", "by_reference_us", "pipe_us", "ratio"}
        assert row["ratio"] > 0


# Errors


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["call", "no-such"], 6, "the remote has no service 'no-such'; `sbe list` shows"),
        (["--uri", "tcp:here", "ping"], 2, "'tcp:here' is no link: say loopback:, unix:PATH"),
        (["--uri", "unix:no/such", "list"], 3, "no/such does not exist; start sbe-daemon"),
        (["--uri", "unix:text", "list"], 3, "no daemon: text is no socket; start sbe-daemon"),
        (["demo", "text"], 1, "text: not a picture that Pillow can open"),
        (["demo", "no-such.png"], 2, "'no-such.png' does not exist"),
        (["demo", "/proc/self/mem"], 1, "/proc/self/mem: Input/output error"),
        (["demo", "picture.png", "--output", "text/o.png"], 1, "text: "),
        (["call", "fill", "--payload", "hex:00", "--out", "/dev/full:9"], 1, "No space left"),
    ],
)
def test_error(
    words: list[str],
    code: int,
    message: str,
    environment: dict[str, str],
    image: Path,
    tmp_path: Path,
):
    (tmp_path / "text").write_text("just text")
    done = Run(environment, words, cwd=tmp_path)
    assert done.code == code
    assert done.err.startswith("sbe: error: ")
    assert done.err.count("\n") == 1
    assert not CONTROL.search(done.err)
    assert message in done.err


def test_unreadable_file(environment: dict[str, str], image: Path):
    image.chmod(0)
    command = [str(SBE), "call", "crc32", "--in", str(image)]
    if os.getuid() == 0:  # may read every file, unless these are taken away
        lacking = "-dac_override,-dac_read_search"
        command = ["setpriv", "--bounding-set", lacking, *command]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=SECONDS)
    assert done.returncode == 5
    assert done.stderr.decode() == f"sbe: error: {image}: Permission denied\n"


def test_stale_socket_of_a_daemon(environment: dict[str, str]):
    with tempfile.TemporaryDirectory(prefix="sbe") as folder:
        with daemon(Path(folder)) as started:
            pass  # killed: its socket stays
        environment["SBE_SOCKET"] = str(started.socket)
        assert started.socket.is_socket()
        done = Run(environment, ["ping", "-c", 1])
    assert done.code == 3
    assert done.err == (
        f"sbe: error: SBE_SOCKET='{started.socket}': no daemon answers at {started.socket}; start "
        "sbe-daemon, or use the URI 'loopback:'\n"
    )


OUTPUTS = [
    ["list"],
    ["--json", "list"],
    ["stat"],
    ["ping", "-c", "2"],
    ["call", "echo", "--payload", "text:a", "--raw"],
    ["--json", "call", "echo"],
    ["demo", "picture.png", "--frames", "2", "--output", "o.png"],
    ["firmware", "list"],
    ["--json", "firmware", "list"],
    ["--help"],
    ["call", "--help"],
    ["--version"],
]
FULL = "standard output: No space left on device"
CLOSED = "standard output: it is closed"


def through_shell(
    how: str, command: list[str], environment: dict[str, str], cwd: Path
) -> tuple[int, bytes]:
    """Exit code and stderr of a command with a shell's redirections."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {how}', "sh", *command],
        stderr=subprocess.PIPE,
        env=environment,
        timeout=SECONDS,
        cwd=cwd,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", OUTPUTS, ids=" ".join)
@pytest.mark.parametrize(("how", "told"), [(">/dev/full", FULL), (">&-", CLOSED)])
def test_output_that_cant_be_written(
    words: list[str], how: str, told: str, environment: dict[str, str], image: Path, tmp_path: Path
):
    ended = through_shell(how, [str(SBE), *words], environment, tmp_path)
    assert ended == (1, f"sbe: error: {told}\n".encode())


@pytest.mark.parametrize("words", ["--help", "--version", "--check-config"])
@pytest.mark.parametrize(("how", "told"), [(">/dev/full", FULL), (">&-", CLOSED)])
def test_output_of_the_daemon_that_cant_be_written(
    words: str, how: str, told: str, environment: dict[str, str], tmp_path: Path
):
    command = [str(SBE.with_name("sbe-daemon")), words]
    ended = through_shell(how, command, environment, tmp_path)
    assert ended == (1, f"sbe-daemon: error: {told}\n".encode())


@pytest.mark.parametrize("words", OUTPUTS, ids=" ".join)
def test_pipe_whose_reader_has_left(
    words: list[str], environment: dict[str, str], image: Path, tmp_path: Path
):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        done = subprocess.run(
            [SBE, *words],
            stdout=closed,
            stderr=subprocess.PIPE,
            env=environment,
            timeout=SECONDS,
            cwd=tmp_path,
        )
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("how", [">/dev/full", ">&-", ">/dev/null 2>/dev/full", ">/dev/null 2>&-"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nonsense"], 2),
        (["--json", "nonsense"], 2),
        (["call", "nonsense"], 6),
        (["--json", "call", "nonsense"], 6),
        (["--uri", "unix:/nonexistent", "list"], 3),
    ],
)
def test_error_whose_output_cant_be_written(
    words: list[str], code: int, how: str, environment: dict[str, str], tmp_path: Path
):
    """The code is that of the error, which is told where something can be."""
    ended, err = through_shell(how, [str(SBE), *words], environment, tmp_path)
    assert ended == code
    if "2>" not in how:
        assert err.startswith(b"sbe: error: ")
        assert err.count(b"\n") == 1
        assert b"standard output" not in err


@pytest.mark.parametrize("how", ["2>/dev/full", "2>&-", "2>&- <&-"])
def test_errors_that_nobody_hears(how: str, environment: dict[str, str], tmp_path: Path):
    command = [str(SBE), "ping", "-c", "1"]
    with open(tmp_path / "out", "wb") as out:
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {how}', "sh", *command],
            stdout=out,
            env=environment,
            timeout=SECONDS,
        )
    assert done.returncode == 0
    assert (tmp_path / "out").read_text().endswith("PASS 1 of 1 answered, 0 lost, 0 wrong\n")


def test_output_that_does_not_block(environment: dict[str, str]):
    """As some shells and servers leave their pipes: all of it arrives, however slowly."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    words = ["call", "fill", "--payload", "hex:41", "--out", "1M", "--json"]
    words += ["--out", "2K"] * 15
    with subprocess.Popen(
        [SBE, *words], stdout=writer, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(writer)
        assert process.stderr is not None
        with open(reader, "rb") as out:
            shown = out.read()
        assert (process.stderr.read(), process.wait(SECONDS)) == (b"", 0)
    assert json.loads(shown)["ok"] is True


def test_standard_input_that_is_closed(environment: dict[str, str], tmp_path: Path):
    command = [str(SBE), "call", "crc32", "--in", "-"]
    ended = through_shell("<&-", command, environment, tmp_path)
    assert ended == (2, b"sbe: error: standard input is closed\n")


# Input without an end


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["call", "echo", "--payload", "/dev/zero"], "/dev/zero"),
        (["call", "echo", "--payload", "file:/dev/urandom"], "/dev/urandom"),
        (["call", "echo", "--payload", "-"], "standard input"),
        (["--uri", "carveout:/dev/zero", "list"], "/dev/zero"),
    ],
)
def test_input_without_an_end(words: list[str], name: str, environment: dict[str, str]):
    with open("/dev/zero", "rb") as zero:
        done = Run(environment, words, stdin=zero)
    assert (done.code, done.out) == (2, "")
    assert f"{name} has no end, or more than the 1,048,576 bytes that are taken" in done.err
    assert done.err.count("\n") == 1


@contextlib.contextmanager
def started(
    words: list[str], environment: dict[str, str], cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [SBE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=cwd
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # when the test failed: else it has ended


def processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])  # utime, stime


def test_remote_dies_in_the_demo(environment: dict[str, str], image: Path, tmp_path: Path):
    words = ["demo", str(image), "--frames", "1000000", "--output", str(tmp_path / "o.png")]
    with started(words, environment) as process:
        assert process.stdout is not None
        shown = b""
        while b"wrote " not in shown:
            line = process.stdout.readline()
            assert line, shown
            shown += line
        remote = remote_pid(shown.decode())
        # Between two calls a new remote would take its place: until the video is under way.
        before = processor_ticks(remote)
        while processor_ticks(remote) < before + 5:
            assert process.poll() is None
        os.kill(remote, signal.SIGKILL)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 3
    assert err.startswith(b"sbe: error: the remote died or restarted")
    assert err.count(b"\n") == 1


# Ctrl-C


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ping", "-c", "1000000", "-i", "0.01"], b"seq=2 "),
        (["demo", "picture.png", "--frames", "1000000"], b"wrote "),
        (["stat", "--watch", "0.1"], b"-- "),
    ],
)
def test_interrupt(
    words: list[str], line: bytes, environment: dict[str, str], image: Path, tmp_path: Path
):
    with started([*words], environment, cwd=tmp_path) as process:
        assert process.stdout is not None
        lines = []
        for read in process.stdout:
            lines.append(read)
            if read.startswith(line):
                break
        else:
            pytest.fail(f"it ended: {lines}")
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert err == b"sbe: interrupted\n"
    if words[0] == "ping":
        assert rest.splitlines()[-1].startswith(b"PASS ")
    if words[0] != "stat":
        assert has_ended(remote_pid(b"".join(lines).decode()))


def test_json_of_an_interrupt(environment: dict[str, str]):
    with started(["--json", "stat", "--watch", "0.1"], environment) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ok"] is True
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, b"")
    last = json.loads(out.splitlines()[-1])
    assert (last["exit_code"], last["error"]["type"]) == (130, "Interrupted")


# With a daemon


def test_with_a_daemon(environment: dict[str, str], running: Daemon):
    environment["SBE_SOCKET"] = str(running.socket)
    done = Run(environment, ["ping", "-c", 2, "-i", 0])
    assert (done.code, done.err) == (0, "")
    assert "(embedded remote, through the daemon: sbe-remote, process" in done.out
    with sbe.connect(f"unix:{running.socket}") as link:
        area = link.allocate(1 << 20)
        link.call("crc32", sbe.In(area))
        listed = Run(environment, ["list", "--json"]).json()
        counted = Run(environment, ["stat", "--json"]).json()
        own = link.context
    assert own in {context["id"] for context in listed["contexts"]}
    assert listed["context"] != own
    assert listed["daemon"]["pid"] == counted["daemon"]["pid"] == running.pid
    assert [row["size"] for row in listed["areas"] if row["context"] == own] == [1 << 20]
    [channel] = [row for row in counted["channels"] if row["context"] == own]
    assert (channel["frames_to_remote"], channel["frames_from_remote"]) == (1, 1)
    assert channel["per_doorbell_to_remote"] == 1
    assert counted["users"][0]["quota"]["bytes"] > 1 << 20
    text = Run(environment, ["stat"])
    assert (text.code, text.err) == (0, "")
    assert "No daemon" not in text.out
    assert f"process {running.pid}, up for " in text.out


def test_quota(environment: dict[str, str], running: Daemon):
    words = ["--uri", f"unix:{running.socket}", "call", "fill", "--payload", "hex:00"]
    done = Run(environment, [*words, "--out", "300M"])
    assert done.code == 5
    assert done.err.startswith("sbe: error: quota max_area_bytes: ")


def test_the_daemon_goes_away(environment: dict[str, str], running: Daemon):
    process = subprocess.Popen(
        [SBE, "--uri", f"unix:{running.socket}", "ping", "-c", "1000000", "-i", "0.01"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    with process:
        assert process.stdout is not None
        assert any(line.startswith(b"seq=2 ") for line in process.stdout)
        running.close()
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 3
    assert b"went away; connect again" in err
    assert out.splitlines()[-1].startswith(b"FAIL ")


# On a terminal


def on_terminal(environment: dict[str, str], words: Sequence[object]) -> tuple[int, str]:
    """Exit code, and what the terminal showed."""
    near, far = pty.openpty()
    process = subprocess.Popen(
        [SBE, *map(str, words)], stdin=far, stdout=far, stderr=far, env=environment
    )
    os.close(far)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while data := os.read(near, 65536):
            shown += data
    os.close(near)
    return process.wait(SECONDS), shown.decode()


@pytest.mark.parametrize("rich", [True, False])
def test_demo_on_a_terminal(rich: bool, environment: dict[str, str], image: Path, tmp_path: Path):
    if not rich:
        (tmp_path / "hidden").mkdir()
        (tmp_path / "hidden" / "rich.py").write_text("raise ImportError('hidden by a test')")
        environment["PYTHONPATH"] = str(tmp_path / "hidden")
    words = ["demo", image, "--frames", 200, "--output", tmp_path / "o.png"]
    code, shown = on_terminal(environment, words)
    assert code == 0
    assert "video" in shown
    assert "/200" in shown
    assert "PASS" in shown
    assert "Traceback" not in shown
    assert ("\x1b[1m" in shown) is rich


def test_dumb_terminal_gets_plain_text(environment: dict[str, str]):
    environment["TERM"] = "dumb"
    code, shown = on_terminal(environment, ["list"])
    assert code == 0
    assert "\x1b" not in shown


# Completion


def test_completion(environment: dict[str, str]):
    script = Run({**environment, "_SBE_COMPLETE": "bash_source"}, [])
    assert script.code == 0
    assert "_SBE_COMPLETE=bash_complete" in script.out
    words = {"COMP_WORDS": "sbe call cr", "COMP_CWORD": "2"}
    found = Run({**environment, **words, "_SBE_COMPLETE": "bash_complete"}, [])
    assert (found.code, found.out) == (0, "plain,crc32\n")
