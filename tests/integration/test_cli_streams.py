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
from pathlib import Path

import numpy as np
import pytest

from sbe.testing.conformance.test_streams import wave as tone
from tests.integration.test_cli import SBE, SECONDS, Run, environment, running
from tests.integration.varlink_client import Daemon

__all__ = ["environment", "running"]


def frames_of(path: Path) -> np.ndarray:
    with contextlib.closing(wave.open(str(path), "rb")) as file:
        assert (file.getsampwidth(), file.getframerate()) == (2, 48000)
        data = file.readframes(1 << 30)
        return np.frombuffer(data, "<i2").reshape(-1, file.getnchannels())


def test_record_and_play(environment: dict[str, str], tmp_path: Path):
    path = tmp_path / "tone.wav"
    done = Run(environment, ["record", "tone", path, "-d", "0.2", "-c", 3])
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("PASS 9,600 frames, 0.20 s, no xrun\n")
    taken = frames_of(path)
    assert taken.shape == (9600, 3)
    assert (taken == tone(0, 9600)[:, None]).all()
    told = Run(environment, ["--json", "play", path, "meter"]).json()
    assert (told["ok"], told["frames"], told["channels"], told["xruns"]) == (True, 9600, 3, 0)


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


def test_the_end_of_a_recording_without_one(environment: dict[str, str], tmp_path: Path):
    """Ctrl-C is its end, and the file is whole. At a terminal there is a level."""
    path = tmp_path / "tone.wav"
    mine, its = pty.openpty()
    started = subprocess.Popen(
        [SBE, "record", "tone", path],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=its,
    )
    os.close(its)
    shown = ""
    until = time.monotonic() + SECONDS
    while not re.search(r"0\.\d\d s \[#+ *\]", shown):
        assert time.monotonic() < until, shown
        shown += os.read(mine, 4096).decode()
    started.send_signal(signal.SIGINT)
    out, _ = started.communicate(timeout=SECONDS)
    os.close(mine)
    assert started.returncode == 0, out
    assert re.search(rb"\nPASS [\d,]+ frames, .* no xrun\n$", out)
    taken = frames_of(path)
    assert len(taken) > 0
    assert (taken == tone(0, len(taken))[:, None]).all()


def test_a_melody_comes_back(environment: dict[str, str], tmp_path: Path):
    done = Run(environment, ["demo-stream"], cwd=tmp_path)
    assert (done.code, done.err) == (0, ""), done.out
    assert done.out.endswith("PASS 144,000 of 144,000 frames came back as they went\n")
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
