# SPDX-License-Identifier: Apache-2.0
"""In the guest: the core beside it as a carve-out link, and commands asked for on the serial line.

Each request is a line of JSON with the words of a command. What it writes to stdout comes back on
the line, then "exit STATUS"; its stdin is the line too. What it writes to stderr goes to /work/log.
"""

from __future__ import annotations

import json
import os
import subprocess
import tty
from pathlib import Path

LINE = "/dev/ttyS0"
DOORBELL = "/dev/ttyS1"  # the slots of both are told to QEMU in machine.py
LINK = Path("/run/link.toml")
LOG = Path("/work/log")
IVSHMEM = ("0x1af4", "0x1110")


def shared_ram() -> Path:
    """The window of the ivshmem device, mapped write-combining: others fault on unaligned words."""
    for device in Path("/sys/bus/pci/devices").iterdir():
        if tuple((device / name).read_text().strip() for name in ("vendor", "device")) == IVSHMEM:
            (device / "enable").write_text("1")  # there is no driver that would
            return device / "resource2_wc"
    raise FileNotFoundError("no ivshmem device: the guest was booted without a core beside it")


def main() -> None:
    if Path("/sys/class/tty/ttyS1/device").exists():
        LINK.write_text(f'memory = "{shared_ram()}"\ndoorbell = "serial:{DOORBELL}"\n')
    line = os.open(LINE, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(line)
    os.write(line, b"ready\n")
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    del environment["SBE_RIG_GUEST"]  # it means another rig to its plugin
    with open(line, "rb", buffering=0, closefd=False) as requests, open(LOG, "ab") as log:
        while request := requests.readline():
            argv = json.loads(request)
            status = subprocess.run(
                argv, cwd="/run", env=environment, stdin=line, stdout=line, stderr=log
            ).returncode
            os.write(line, f"exit {status}\n".encode())


if __name__ == "__main__":
    main()
