# SPDX-License-Identifier: Apache-2.0
"""Boots the rig's kernel, for one command or for many requests, and reads what it left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PRELOAD = ROOT / "build" / "kernel" / "uml_ptrace.so"
"""Without it no process of the guest starts on CPUs with AMX: see uml_ptrace.c."""
LOG_LIMIT = 4 << 20  # bytes; a wedged guest writes without end
MEMORY = "640M"  # room for contiguous memory after hundreds of tests: there is no compaction

FAULT = re.compile(
    r"BUG:|BUG at|WARNING:|Oops|Kernel panic|general protection|refcount_t:|unreferenced object"
    r"|scheduling while atomic|blocked for more than|DMA-API: .*(?:error|pending|leak|driver)"
    r"|possible recursive locking|sleeping function called|Segfault with no mm"
)


class RigMissing(Exception):
    """The rig can't be built here; the text names the packages."""


class GuestDied(Exception):
    """The guest ended, or hung and was killed; the text quotes its kernel's last words."""


def faults(log: str) -> list[str]:
    """Lines of a kernel log that fail a run."""
    return [line for line in log.splitlines() if FAULT.search(line)]


def build() -> Path:
    """The folder of the kernel that is built, which takes minutes if there is none yet."""
    done = subprocess.run([HERE / "build.sh", "build"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RigMissing(done.stderr.strip())
    return Path(done.stdout.strip())


def find() -> Path:
    """The folder of the kernel, which must be there. Raises RigMissing."""
    done = subprocess.run([HERE / "build.sh", "path"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RigMissing(done.stderr.strip())
    return Path(done.stdout.strip())


@dataclass(frozen=True)
class Result:
    """What a command in the guest came to."""

    status: int
    output: str
    kernel_log: str
    faults: list[str]


class Guest:
    """One boot. The command runs at once; `send()` and `receive()` talk with it, line by line,
    through the guest's /dev/ttyS0. Ends with its command; `close()` kills what is left.
    """

    def __init__(
        self,
        kernel: Path,
        argv: Sequence[str],
        *,
        cwd: Path = ROOT,
        environment: Mapping[str, str] | None = None,
        memory: str = MEMORY,
        check_leaks: bool = False,
        kernel_arguments: Sequence[str] = (),
    ) -> None:
        self.work = Path(tempfile.mkdtemp(prefix="sbe-rig-"))
        job = {
            "argv": list(argv),
            "cwd": str(cwd),
            "environment": {"SBE_RIG_KERNEL": str(kernel), **(environment or {})},
            "check_leaks": check_leaks,
        }
        (self.work / "job.json").write_text(json.dumps(job))
        self._log: list[bytes] = []
        self._log_bytes = 0
        guest_in, self._to_guest = os.pipe()
        self._from_guest, guest_out = os.pipe()
        self._rest = b""
        console, console_out = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    kernel / "linux",
                    f"mem={memory}",
                    "root=host",  # no block device: mount_nodev_root() of init/do_mounts.c
                    "rootfstype=hostfs",
                    "rw",
                    "panic=-1",
                    f"init={HERE / 'guest_init.py'}",
                    f"uml_dir={self.work}",
                    f"ssl0=fd:{guest_in},fd:{guest_out}",
                    f"SBE_RIG_WORK={self.work}",
                    *kernel_arguments,
                ],
                env={**os.environ, "LD_PRELOAD": str(PRELOAD)},
                stdin=subprocess.DEVNULL,
                stdout=console_out,
                stderr=console_out,
                pass_fds=(guest_in, guest_out),
                start_new_session=True,  # its helpers share its group, and die with it
            )
        finally:
            for fd in (guest_in, guest_out, console_out):
                os.close(fd)
        self._pump = threading.Thread(target=self._collect, args=(console,), daemon=True)
        self._pump.start()

    def _collect(self, console: int) -> None:
        with open(console, "rb", buffering=0) as stream:
            while chunk := stream.read(65536):
                if self._log_bytes < LOG_LIMIT:
                    self._log.append(chunk)
                    self._log_bytes += len(chunk)

    @property
    def kernel_log(self) -> str:
        """What the kernel's console has shown so far."""
        return b"".join(self._log).decode(errors="replace").replace("\r", "")

    @property
    def output(self) -> str:
        """What the command has written so far."""
        path = self.work / "output.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def send(self, line: str) -> None:
        """Send a line to the command."""
        try:
            os.write(self._to_guest, line.encode() + b"\n")
        except BrokenPipeError:
            raise GuestDied(self._obituary("the guest is gone")) from None

    def receive(self, timeout_s: float) -> str:
        """The next line of the command. Raises GuestDied when there is none in time."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._from_guest], [], [], left)[0]:
                self._kill()
                raise GuestDied(self._obituary(f"the guest said nothing for {timeout_s:g} s"))
            chunk = os.read(self._from_guest, 65536)
            if not chunk:
                self._kill()
                raise GuestDied(self._obituary("the guest ended"))
            self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode(errors="replace").strip("\r")

    def wait(self, timeout_s: float) -> Result:
        """Wait for the command and the guest to end. Raises GuestDied when they don't."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._kill()
            raise GuestDied(
                self._obituary(f"the guest did not end within {timeout_s:g} s")
            ) from None
        self._kill()
        self._pump.join(5)
        path = self.work / "result.json"
        if not path.exists():
            raise GuestDied(self._obituary("the guest ended without a result"))
        result = json.loads(path.read_text())
        log = self.kernel_log + result.get("leaks", "")
        output = self.output + result.get("error", "")
        return Result(result["status"], output, log, faults(log))

    def close(self) -> None:
        """Kill the guest and remove its folder. Calling twice is fine."""
        self._kill()
        for name in ("_to_guest", "_from_guest"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)
        shutil.rmtree(self.work, ignore_errors=True)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _obituary(self, what: str) -> str:
        self._pump.join(1)
        log = "\n".join(self.kernel_log.splitlines()[-60:])
        output = "\n".join(self.output.splitlines()[-30:])
        return f"{what}\n-- its command wrote last:\n{output}\n-- its kernel wrote last:\n{log}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def run(
    kernel: Path, argv: Sequence[str], *, timeout_s: float, check_leaks: bool = False
) -> Result:
    """Run one command in a guest of its own."""
    with Guest(kernel, argv, check_leaks=check_leaks) as guest:
        return guest.wait(timeout_s)
