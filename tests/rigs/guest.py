# SPDX-License-Identifier: Apache-2.0
"""A guest: a kernel in a process of this machine that runs one command and ends.

Its first process is kernel/guest_init.py. How a guest is booted is its kind's; here is how the
command is handed over, talked with and waited for, and what is read when it dies.
"""

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

ROOT = Path(__file__).resolve().parents[2]
LOG_LIMIT = 4 << 20  # bytes; a wedged guest writes without end

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
        argv: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        check_leaks: bool = False,
    ) -> None:
        """Writes down the job; `_boot()` is next."""
        self.work = Path(tempfile.mkdtemp(prefix="sbe-rig-"))
        job = {
            "argv": list(argv),
            "cwd": str(cwd),
            "environment": dict(environment or {}),
            "check_leaks": check_leaks,
        }
        (self.work / "job.json").write_text(json.dumps(job))
        self._log: list[bytes] = []
        self._log_bytes = 0
        self._rest = b""

    def _boot(
        self,
        command: Sequence[str | Path],
        line: tuple[int, int],
        of_guest: Sequence[int],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the process.

        `line` is our end of its serial line, to it and from it; `of_guest` are descriptors that it
        inherits and that are closed here.
        """
        self._to_guest, self._from_guest = line
        console, console_out = os.pipe()
        try:
            self._process = subprocess.Popen(
                command,
                env=None if environment is None else {**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=console_out,
                stderr=console_out,
                pass_fds=of_guest,
                start_new_session=True,  # its helpers share its group, and die with it
            )
        finally:
            for fd in (*of_guest, console_out):
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
