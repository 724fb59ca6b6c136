"""Devices that appear, vanish and come back under other numbers, as pyudev tells of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from sbe import errors, extras

__all__ = ["Uevent", "Uevents"]

UDEVD = Path("/run/udev/control")


class Uevent(NamedTuple):
    """What happened to a device: `action` is "add", "remove" and the like; `name` is sysfs'."""

    action: str
    subsystem: str
    name: str


class Uevents:
    """What happens to devices of some subsystems from now on. Not thread-safe.

    Where udevd runs, events come after its rules, so that nodes have their owners already;
    elsewhere straight from the kernel.
    """

    def __init__(self, *subsystems: str) -> None:
        """Raises LinkError when the machine or this Python has nothing to tell of devices."""
        try:
            import pyudev

            context = pyudev.Context()
        except ImportError as error:  # pyudev, or libudev beneath it
            why = extras.missing("telling of devices", error, "daemon")
            raise errors.LinkError(
                why or f"no events of devices ({error}): apt install libudev1"
            ) from error
        try:
            source = "udev" if UDEVD.exists() else "kernel"
            self._monitor = pyudev.Monitor.from_netlink(context, source)
            for subsystem in subsystems:
                self._monitor.filter_by(subsystem)
            self._monitor.start()
        except OSError as error:
            raise errors.LinkError(f"no events of devices: {error}", error.errno) from error

    def fileno(self) -> int:
        """Returns a descriptor that is readable when there are events."""
        fd: int = self._monitor.fileno()
        return fd

    def take(self) -> list[Uevent]:
        """Returns what happened since the last call; never blocks.

        Some may be missing when there were too many at once: look at sysfs, whatever they say.
        """
        found: list[Uevent] = []
        while True:
            try:
                device = self._monitor.poll(timeout=0)
            except OSError:  # too many at once
                continue
            if device is None:
                return found
            name = os.path.basename(device.device_path)
            found.append(Uevent(device.action, device.subsystem, name))
