#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Process 1 of the guest: mounts what a system has, runs one command, powers off.

The folder that SBE_RIG_WORK names (on the kernel's command line) holds job.json with argv, cwd and
environment; the command's output goes to output.log and its exit status to result.json there. The
exit status of the kernel itself says nothing.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
POWER_OFF = 0x4321FEDC  # LINUX_REBOOT_CMD_POWER_OFF
FILES = 65536  # descriptors of a process: the kernel's own default of 1024 is no system's
KMEMLEAK = Path("/sys/kernel/debug/kmemleak")
KMEMLEAK_AGE_S = 5.2  # younger objects are not reported: MSECS_MIN_AGE of mm/kmemleak.c

MOUNTS = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("devpts", "/dev/pts", "mode=620"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/run", "mode=755"),
]


def mount(kind: str, place: str, options: str) -> None:
    if not os.path.isdir(place):
        os.mkdir(place)
    if LIBC.mount(b"rig", place.encode(), kind.encode(), 0, options.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {kind} on {place}: {os.strerror(code)}")


def leaks() -> str:
    """Kernel memory that nobody refers to any more, as kmemleak tells it."""
    time.sleep(KMEMLEAK_AGE_S)
    for _ in range(2):  # the first scan only ages what it finds
        KMEMLEAK.write_text("scan")
    return KMEMLEAK.read_text()


def run(work: Path) -> dict[str, Any]:
    job = json.loads((work / "job.json").read_text())
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/run",
        "TMPDIR": "/dev/shm",  # a real file system: sockets can be bound there
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SBE_RIG_GUEST": "1",
        "SBE_RIG_WORK": str(work),
        **job["environment"],
    }
    with open(work / "output.log", "wb") as output:
        child = subprocess.Popen(
            job["argv"],
            cwd=job["cwd"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        while True:  # process 1 inherits orphans
            pid, status = os.wait()
            if pid == child.pid:
                break
    result = {"status": os.waitstatus_to_exitcode(status)}
    return {**result, "leaks": leaks()} if job["check_leaks"] else result


def main() -> None:
    work = Path(os.environ["SBE_RIG_WORK"])
    result: dict[str, Any]
    try:
        for kind, place, options in MOUNTS:
            mount(kind, place, options)
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
        result = run(work)
    except BaseException:
        result = {"status": 127, "error": traceback.format_exc()}
    (work / "result.part").write_text(json.dumps(result))
    os.rename(work / "result.part", work / "result.json")
    os.sync()
    sys.stdout.flush()
    LIBC.reboot(POWER_OFF)


if __name__ == "__main__":
    main()
