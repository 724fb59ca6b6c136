"""Life cycle of remote processors through /sys/class/remoteproc (Documentation/ABI/testing/
sysfs-class-remoteproc), and their trace buffers in debugfs.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from sbe import errors
from sbe.kernel import firmware_file, ioctl

__all__ = ["RemoteProcessor", "find", "processors"]

CLASS = Path("/sys/class/remoteproc")
TRACES = Path("/sys/kernel/debug/remoteproc")

# What the kernel's bare numbers mean when a start fails, seen on Linux 6.1.
_START_HINTS = {
    errno.ENOENT: "the firmware file was not found",
    errno.EINVAL: "the firmware is no ELF image that this processor takes, or has no memory for "
    "its segments (see the kernel's log)",
    errno.ENODEV: "the processor did not answer its start",
    errno.ENOMEM: "no memory for a carve-out of the resource table",
    errno.EBUSY: "the processor runs already",
    errno.ETIMEDOUT: "the processor did not answer in time",
}


@dataclass(frozen=True)
class RemoteProcessor:
    """One remote processor. `entry` is its name in sysfs, which may move; `name` stays."""

    name: str
    entry: str

    @property
    def folder(self) -> Path:
        """Its folder in sysfs."""
        return CLASS / self.entry

    @property
    def device(self) -> str:
        """The platform device behind it: what reads and writes memory."""
        return (self.folder / "device").resolve().name

    @property
    def state(self) -> str:
        """offline, running, crashed, suspended, attached, detached or invalid."""
        return self._read("state")

    @property
    def firmware(self) -> str:
        """Name of the firmware file, relative to the kernel's folders for firmware."""
        return self._read("firmware")

    @property
    def recovery(self) -> bool:
        """Whether the kernel restarts it after a crash."""
        return self._read("recovery") == "enabled"

    def load(self, firmware: str) -> None:
        """Chooses the firmware for the next start. Raises Busy while it runs.

        Raises BadArgument when no such file is in a folder where the kernel looks.
        """
        if self.state not in ("offline", "detached"):
            raise errors.Busy(f"{self.name} is {self.state}: stop it before loading firmware")
        name = firmware_file.name_of(firmware)
        self._find(name)
        self._write("firmware", name, f"{self.name}: loading {name}")

    def start(self) -> None:
        """Starts it. Blocks until it runs or the kernel gives up; raises what stands in the way."""
        if self.state in ("running", "attached"):
            raise errors.Busy(f"{self.name} runs already")
        name = self.firmware
        path = self._find(name)
        try:
            self._write("state", "start", f"{self.name}: start with {name}")
        except errors.Error as error:
            hint = _START_HINTS.get(error.code)
            if error.code == errno.EINVAL:
                hint = firmware_file.fault(path) or hint
            raise type(error)(f"{error}: {hint}" if hint else str(error), error.code) from error

    def stop(self) -> None:
        """Stops it; nothing to do when it does not run. Raises Busy when somebody else runs it.

        The kernel counts starts and stops, and does not tell a core that never stopped from one
        that was started again at once.
        """
        if self.state in ("offline", "detached"):
            return
        self._write("state", "stop", f"{self.name}: stop")
        if self.state in ("running", "attached"):
            raise errors.Busy(
                f"{self.name} still runs: somebody else started it as well, or keeps it running"
                " (sbe-daemon does with start = true)"
            )

    def restart(self) -> None:
        """Stops it and starts it, as those two do."""
        self.stop()
        self.start()

    def log(self) -> dict[str, str]:
        """Returns what the firmware has written into its trace buffers, by name.

        Empty while it is offline. Raises PermissionDenied, LinkError where debugfs is out of reach.
        """
        folder = TRACES / self.entry
        try:
            return {
                name: (folder / name).read_bytes().split(b"\0", 1)[0].decode(errors="replace")
                for name in sorted(os.listdir(folder))
                if name.startswith("trace")
            }
        except PermissionError as error:
            raise errors.PermissionDenied(f"{folder}: only root reads debugfs") from error
        except OSError as error:
            hint = "" if TRACES.exists() else ": is debugfs mounted on /sys/kernel/debug?"
            raise errors.LinkError(f"{folder}: {error.strerror}{hint}", error.errno) from error

    def _find(self, firmware: str) -> Path:
        path = firmware_file.find(firmware)
        if path is None:
            places = ", ".join(str(folder) for folder in firmware_file.folders())
            raise errors.BadArgument(
                f"{self.name}: no firmware {firmware!r} in {places}", errno.ENOENT
            )
        return path

    def _read(self, attribute: str) -> str:
        try:
            return (self.folder / attribute).read_text().strip()
        except OSError as error:
            raise errors.LinkError(f"{self.name} is gone: {error.strerror}", error.errno) from error

    def _write(self, attribute: str, value: str, step: str) -> None:
        """Writes at once: a buffered file would hide the kernel's answer."""
        try:
            fd = os.open(self.folder / attribute, os.O_WRONLY | os.O_CLOEXEC)
        except PermissionError as error:
            raise errors.PermissionDenied(
                f"{step}: {self.folder / attribute} is not writable for this user: be root, or in "
                "the group sbe, to which the udev rules of linux/ give it"
            ) from error
        except OSError as error:
            raise errors.LinkError(f"{self.name} is gone: {error.strerror}", error.errno) from error
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise ioctl.translate(error, step) from error
        finally:
            os.close(fd)


def processors() -> list[RemoteProcessor]:
    """Returns all remote processors of this machine."""
    found = []
    for entry in sorted(CLASS.iterdir()) if CLASS.is_dir() else []:
        try:
            found.append(RemoteProcessor((entry / "name").read_text().strip(), entry.name))
        except OSError:
            continue  # it went while we looked
    return found


def find(name: str) -> RemoteProcessor:
    """Returns the one of this name, or of this entry as in "remoteproc0". Raises LinkError."""
    there = processors()
    for processor in there:
        if name in (processor.name, processor.entry):
            return processor
    names = ", ".join(f"{item.name} ({item.entry})" for item in there) or "none"
    raise errors.LinkError(f"no remote processor {name!r}; there are: {names}", errno.ENODEV)
