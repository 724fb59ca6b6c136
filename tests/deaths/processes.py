"""Real processes for the kills: the zygote that forks them, and who is still there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.caches.build import ROOT
from tests.deaths import build
from tests.deaths.gate import Gate

__all__ = ["Remote", "Zygote", "until", "zygote"]

LIMIT_S = 20.0  # turns a hang into a failure


def until(condition: Any, what: str) -> None:
    """Waits for something of which only a look tells."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


class Remote:
    """A copy of the remote with a path of its own, so that its processes can be told."""

    def __init__(self, folder: Path) -> None:
        made = build.killable()
        self.path = folder / "sbe-remote"
        shutil.copy(made / "sbe-remote", self.path)
        shutil.copy(made / "shim.so", folder)

    def processes(self) -> list[int]:
        """That run it."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if os.readlink(entry / "exe") == os.fspath(self.path):
                    found.append(int(entry.name))
        return found


class Zygote:
    """Forks clients and daemons, and tells how they ended."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self.log = log

    def client(self, uri: str) -> int:
        return self._order({"as": "client", "uri": uri, "log": str(self.log)})

    def daemon(self, arguments: Sequence[str]) -> int:
        return self._order({"as": "daemon", "arguments": [*arguments], "log": str(self.log)})

    def wait(self, pid: int) -> int:
        """Its exit status, or the signal that ended it, negative."""
        return self._order({"wait": pid})

    def _order(self, order: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


@contextmanager
def zygote(folder: Path, gate: Gate, remote: Remote) -> Iterator[Zygote]:
    """One whose extension has points, as has all that it calls."""
    made = build.killable()
    packages = [each for each in sys.path if "site-packages" in each]
    path = [made / "package", ROOT, *packages]
    environment = {
        **os.environ,
        **gate.environment,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "LD_PRELOAD": str(made / "shim.so"),
        "SBE_REMOTE": str(remote.path),
    }
    # -S, -P: this checkout's own package, installed in place, must not come first
    command = [sys.executable, "-S", "-P", "-m", "tests.deaths.zygote"]
    with subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            log = folder / "zygote.log"
            log.touch()  # it may have said nothing yet
            yield Zygote(process, log)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(LIMIT_S)
