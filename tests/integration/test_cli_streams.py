"""Sound by the program `sbe`: recorded, played, and through the remote and back."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sbe.testing.conformance.test_streams import wave as tone
from tests.integration.test_cli import SBE, SECONDS, Run, environment, running
from tests.integration.varlink_client import Daemon

__all__ = ["environment", "running"]

_BLOCKS = ["--blocks", "4"]
_HEADER = 44  # bytes of a WAV file before its frames


def frames_of(path: Path) -> np.ndarray:
    with contextlib.closing(wave.open(str(path), "rb")) as file:
        assert (file.getsampwidth(), file.getframerate()) == (2, 48000)
        data = file.readframes(1 << 30)
        return np.frombuffer(data, "<i2").reshape(-1, file.getnchannels())


def whole_tone(path: Path) -> int:
    """Its frames, as many as the header says and all that follow it."""
    taken = frames_of(path)
    assert (taken == tone(0, len(taken))[:, None]).all()
    assert path.stat().st_size == _HEADER + taken.nbytes
    return len(taken)


@contextlib.contextmanager
def recording(
    environment: dict[str, str], path: Path, words: list[str], err: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(
        [SBE, "record", "tone", path, *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=err,
    )
    with started:
        try:
            yield started
        finally:
            started.kill()


@pytest.mark.parametrize("words", [[], _BLOCKS], ids=["ring", "blocks"])
def test_record_and_play(environment: dict[str, str], tmp_path: Path, words: list[str]):
    path = tmp_path / "tone.wav"
    done = Run(environment, ["record", "tone", path, "-d", "0.6", "-c", 3, *words])
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("PASS 28,800 frames, 0.60 s, no xrun\n")
    taken = frames_of(path)
    assert taken.shape == (28800, 3)
    assert (taken == tone(0, 28800)[:, None]).all()
    told = Run(environment, ["--json", "play", path, "meter", *words]).json()
    assert (told["ok"], told["frames"], told["channels"], told["xruns"]) == (True, 28800, 3, 0)


def test_a_file_that_was_cut_off(environment: dict[str, str], tmp_path: Path):
    """In the middle of a frame: what is whole is played."""
    path = tmp_path / "tone.wav"
    assert Run(environment, ["record", "tone", path, "-d", "0.1"]).code == 0
    os.truncate(path, path.stat().st_size - 1)
    told = Run(environment, ["--json", "play", path, "meter"]).json()
    assert (told["ok"], told["frames"]) == (True, 4799)


def test_through_the_daemon(running: Daemon, environment: dict[str, str], tmp_path: Path):
    path = tmp_path / "tone.wav"
    uri = ["--uri", f"unix:{running.socket}"]
    assert Run(environment, [*uri, "record", "tone", path, "-d", "0.1"]).code == 0
    assert (frames_of(path) == tone(0, 4800)[:, None]).all()


@pytest.mark.parametrize("words", [[], _BLOCKS], ids=["ring", "blocks"])
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_a_recording_without_one(
    environment: dict[str, str], tmp_path: Path, end: signal.Signals, words: list[str]
):
    """Ctrl-C is its end, or a signal, and the file is whole. At a terminal there is a level."""
    path = tmp_path / "tone.wav"
    mine, its = pty.openpty()
    with recording(environment, path, words, its) as started:
        os.close(its)
        shown = ""
        until = time.monotonic() + SECONDS
        while not re.search(r"0\.\d\d s \[#+ *\]", shown):
            assert time.monotonic() < until, shown
            shown += os.read(mine, 4096).decode()
        started.send_signal(end)
        out, _ = started.communicate(timeout=SECONDS)
    os.close(mine)
    assert started.returncode == 0, out
    assert re.search(rb"\nPASS [\d,]+ frames, .* no xrun\n$", out)
    assert whole_tone(path) > 0


def test_a_recording_that_ends_before_its_time(environment: dict[str, str], tmp_path: Path):
    """Its exit code says so; what there is can be played."""
    path = tmp_path / "tone.wav"
    with recording(environment, path, ["-d", "600"]) as started:
        until = time.monotonic() + SECONDS
        while not path.exists() or path.stat().st_size < 10_000:
            assert time.monotonic() < until
        started.send_signal(signal.SIGTERM)
        assert started.wait(SECONDS) == 130
    assert whole_tone(path) > 2000


def test_a_melody_comes_back(environment: dict[str, str], tmp_path: Path):
    done = Run(environment, ["--json", "demo-stream"], cwd=tmp_path)
    assert (done.code, done.err) == (0, ""), done.out
    told = done.json()
    assert (told["ok"], told["wrong"]) == (True, 0)
    assert told["frames"] == 144_000 + told["delay_frames"]
    assert told["periods"] > 30, told  # of 300: a machine that is late has several in one
    assert (tmp_path / "build" / "stream.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["play", "text", "meter"], 2, "text: not a WAV file that can be read"),
        (["play", "no-such.wav", "meter"], 2, "'no-such.wav' does not exist"),
        (["play", "three.wav", "meter"], 2, "samples of 3 bytes"),
        (["record", "echo", "x.wav", "-d", "1"], 3, "negotiation's answer"),
        (["record", "nobody", "x.wav", "-d", "1"], 6, "`sbe list` shows the services"),
        (["record", "tone", "no/such/place.wav", "-d", "1"], 1, "No such file or directory"),
        (["record", "tone", "x.wav", "--blocks", "17"], 2, "17 is not between 1 and 16"),
        (["record", "tone", "x.wav", "-d", "0"], 2, "0.01"),
        (["record", "tone", "x.wav", "-d", "nan"], 2, "not a number of seconds"),
        (["record", "tone", "x.wav", "-d", "inf"], 2, "1000000000"),
    ],
)
def test_mistakes(
    environment: dict[str, str], tmp_path: Path, words: list[str], code: int, error: str
):
    (tmp_path / "text").write_text("not sound")
    with contextlib.closing(wave.open(str(tmp_path / "three.wav"), "wb")) as file:
        file.setnchannels(1)
        file.setsampwidth(3)
        file.setframerate(8000)
        file.writeframes(bytes(300))
    done = Run(environment, words, cwd=tmp_path)
    assert (done.code, done.out.split("\n")[0][:4]) in ((code, ""), (code, "reco")), done.out
    assert error in done.err
    assert "Traceback" not in done.err
