"""A remote that asks about power without end, and programs that answer badly to it."""

from __future__ import annotations

import contextlib
import errno
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.children import alive
from tests.faults.attacks import remote
from tests.integration.varlink_client import SECONDS, Daemon, daemon

ROOT = Path(__file__).resolve().parents[2]
MANY = 2000
ANSWERED = 8  # who asks without waiting gets no more than wait for their turn

# Asks to be suspended as often as its argument says, before it listens to any answer.
REMOTE = """#!{python}
import os, socket, sys, threading
from sbe import _native
from tests.faults.raw_remote import Events, Life

_, _, fd, *rest = sys.argv
place, many = [word for word in rest if not word.startswith("--")]
events = Events()
life = Life(socket.socket(fileno=int(fd)), os.eventfd(0), lambda rings, frame: None, events)
threading.Thread(target=life.run).start()
for _ in range(int(many)):
    events.say(_native.EVENT_SUSPEND)
with open(place + ".new", "w") as file:
    for _ in range({answered}):
        event, value = events.next()
        print(value & 0xFFFF, file=file)
os.rename(place + ".new", place)
"""


@contextlib.contextmanager
def flooding(folder: Path, program: str, seconds: float = 30.0) -> Iterator[tuple[Daemon, Path]]:
    """A daemon with a remote that floods it, beside one that does not; where the answers go."""
    remote, told, hook = folder / "remote.py", folder / "answers", folder / "power.sh"
    remote.write_text(REMOTE.format(python=sys.executable, answered=ANSWERED))
    remote.chmod(0o755)
    hook.write_text(program)
    config = (
        f"[[link]]\nname = 'evil'\ncommand = {[str(remote), str(told), str(MANY)]!r}\n"
        f"power = {{ command = ['/bin/sh', '{hook}'], seconds = {seconds} }}\n"
        "[[link]]\nname = 'good'\n"
    )
    environment = {"PYTHONPATH": str(ROOT)}
    with daemon(folder, config, environment=environment) as running:
        yield running, told


def check_bystander(running: Daemon) -> None:
    with running.client() as client:
        client.open(link="good")
        client.call("Allocate", size=4096)
        client.call("FindService", name="echo", version=0)


def answers(running: Daemon, told: Path) -> Counter[int]:
    """By errno number. Meanwhile the other link works."""
    deadline = time.monotonic() + SECONDS
    while not told.exists():
        check_bystander(running)
        assert time.monotonic() < deadline, running.log()
    return Counter(map(int, told.read_text().split()))


@remote(6, 18, 20)
def test_a_flood_runs_one_program_at_a_time(tmp_path: Path):
    program = f'mkdir "{tmp_path}/one" || exit 5\nsleep 0.05\nrmdir "{tmp_path}/one"\n'
    with flooding(tmp_path, program) as (running, told):
        counted = answers(running, told)
        assert counted == {0: ANSWERED}
        assert len(running.log().splitlines()) < MANY


@remote(6, 18, 20)
def test_a_program_that_hangs_and_forks_is_one_that_takes_too_long(tmp_path: Path):
    program = (
        f'for i in 1 2 3 4 5 6 7 8; do (trap "" TERM; echo $$ >> "{tmp_path}/pids"; '
        "sleep 1000) & done\nwait\n"
    )
    with flooding(tmp_path, program, seconds=0.2) as (running, told):
        counted = answers(running, told)
        assert counted == {errno.ETIMEDOUT: ANSWERED}
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20.0) == 0
    pids = {int(line) for line in (tmp_path / "pids").read_text().split()}
    assert pids
    assert not any(alive(pid) for pid in pids)
