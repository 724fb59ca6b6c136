"""Life cycle of remote processors through /sys/class/remoteproc (Documentation/ABI/testing/
sysfs-class-remoteproc), and their trace buffers in debugfs.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from sbe import errors
from sbe.kernel import ioctl

__all__ = ["RemoteProcessor", "find", "processors"]

CLASS = Path("/sys/class/remoteproc")
FIRMWARE = Path("/lib/firmware")
EXTRA_FIRMWARE = Path("/sys/module/firmware_class/parameters/path")
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
        """Choose the firmware for the next start. Raises Busy while it runs.

        Raises BadArgument when no such file is in a folder where the kernel looks.
        """
        if self.state not in ("offline", "detached"):
            raise errors.Busy(f"{self.name} is {self.state}: stop it before loading firmware")
        if find_firmware(firmware) is None:
            raise errors.BadArgument(
                f"no firmware {firmware!r} in {', '.join(str(path) for path in folders())}",
                errno.ENOENT,
            )
        self._write("firmware", firmware, f"{self.name}: loading {firmware}")

    def start(self) -> None:
        """Start it. Blocks until it runs or the kernel gives up; raises what stands in the way."""
        if self.state in ("running", "attached"):
            raise errors.Busy(f"{self.name} runs already")
        name = self.firmware
        path = find_firmware(name)
        if path is None:
            raise errors.BadArgument(
                f"{self.name}: no firmware {name!r} in "
                f"{', '.join(str(folder) for folder in folders())}",
                errno.ENOENT,
            )
        try:
            self._write("state", "start", f"{self.name}: start with {name}")
        except errors.Error as error:
            hint = _START_HINTS.get(error.code)
            raise type(error)(f"{error}: {hint}" if hint else str(error), error.code) from error

    def stop(self) -> None:
        """Stop it; nothing to do when it does not run. Raises Busy when somebody else uses it."""
        if self.state in ("offline", "detached"):
            return
        self._write("state", "stop", f"{self.name}: stop")
        if self.state in ("running", "attached"):
            raise errors.Busy(
                f"{self.name} was started by somebody else as well: it runs until they stop it"
            )

    def log(self) -> dict[str, str]:
        """Return what the firmware has written into its trace buffers, by name.

        Raises PermissionDenied or LinkError where debugfs can't be read.
        """
        folder = TRACES / self.entry
        try:
            return {
                path.name: path.read_bytes().split(b"\0", 1)[0].decode(errors="replace")
                for path in sorted(folder.glob("trace*"))
            }
        except PermissionError as error:
            raise errors.PermissionDenied(f"{folder}: only root reads debugfs") from error
        except OSError as error:
            raise errors.LinkError(f"{folder}: {error.strerror}", error.errno) from error

    def _read(self, attribute: str) -> str:
        try:
            return (self.folder / attribute).read_text().strip()
        except OSError as error:
            raise errors.LinkError(f"{self.name} is gone: {error.strerror}", error.errno) from error

    def _write(self, attribute: str, value: str, what: str) -> None:
        """Write at once: a buffered file would hide the kernel's answer."""
        try:
            fd = os.open(self.folder / attribute, os.O_WRONLY | os.O_CLOEXEC)
        except PermissionError as error:
            raise errors.PermissionDenied(
                f"{what}: {self.folder / attribute} is not writable for this user"
            ) from error
        except OSError as error:
            raise errors.LinkError(f"{self.name} is gone: {error.strerror}", error.errno) from error
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise ioctl.translate(error, what) from error
        finally:
            os.close(fd)


def processors() -> list[RemoteProcessor]:
    """Return all remote processors of this machine."""
    found = []
    for entry in sorted(CLASS.iterdir()) if CLASS.is_dir() else []:
        try:
            found.append(RemoteProcessor((entry / "name").read_text().strip(), entry.name))
        except OSError:
            continue  # it went while we looked
    return found


def find(name: str) -> RemoteProcessor:
    """Return the one of this name, or of this entry as in "remoteproc0". Raises LinkError."""
    there = processors()
    for processor in there:
        if name in (processor.name, processor.entry):
            return processor
    names = ", ".join(f"{item.name} ({item.entry})" for item in there) or "none"
    raise errors.LinkError(f"no remote processor {name!r}; there are: {names}", errno.ENODEV)


def folders() -> list[Path]:
    """Return where the kernel looks for firmware (drivers/base/firmware_loader/main.c)."""
    extra = EXTRA_FIRMWARE.read_text().strip() if EXTRA_FIRMWARE.exists() else ""
    release = os.uname().release
    updates = [FIRMWARE / "updates" / release, FIRMWARE / "updates", FIRMWARE / release, FIRMWARE]
    return ([Path(extra)] if extra else []) + updates


def find_firmware(name: str) -> Path | None:
    """Return the file that the kernel would load; compressed ones count."""
    for folder in folders():
        for end in ("", ".xz", ".zst"):
            path = folder / f"{name}{end}"
            try:
                if path.is_file():
                    return path
            except PermissionError:
                return path  # only the kernel can tell
    return None
