"""rpmsg from user space: include/uapi/linux/rpmsg.h, and sysfs' view of the rpmsg bus.

Device numbers move when a remote restarts, so everything here is found by name and parent.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import select
import time
from dataclasses import dataclass
from pathlib import Path

from sbe import errors
from sbe.kernel import ioctl

__all__ = [
    "ADDRESS_ANY",
    "MTU",
    "Service",
    "create_endpoint",
    "destroy_endpoint",
    "reap",
    "services",
]

MTU = 496  # bytes: buffers of 512 less the header of 16 (drivers/rpmsg/virtio_rpmsg_bus.c)
ADDRESS_ANY = 0xFFFFFFFF
BUS = Path("/sys/bus/rpmsg/devices")
CLASS = Path("/sys/class/rpmsg")
_UDEV_S = 1.0  # from a node's birth to its owner


class _EndpointInfo(ctypes.Structure):
    """struct rpmsg_endpoint_info."""

    _fields_ = (
        ("name", ctypes.c_char * 32),
        ("src", ctypes.c_uint32),
        ("dst", ctypes.c_uint32),
    )


CREATE_EPT = ioctl.write(0xB5, 1, _EndpointInfo)
DESTROY_EPT = ioctl.none(0xB5, 2)


@dataclass(frozen=True)
class Service:
    """A channel that a remote has announced. `path` is its folder on the rpmsg bus."""

    name: str
    source: int
    destination: int
    path: Path

    @property
    def remote(self) -> str:
        """The remote processor behind it, as in "remoteproc0"; "" for a link without one."""
        for part in reversed(self.path.parts):
            if part.startswith("remoteproc") and part[10:].isdigit():
                return part
        return ""

    @property
    def life(self) -> int:
        """Tells it from the channel of the same name before or after a restart; 0 when it is gone.

        The kernel numbers the folders of sysfs one after the other (kernfs_node.id).
        """
        try:
            return self.path.stat().st_ino
        except OSError:
            return 0

    @property
    def control(self) -> str:
        """The control node of the same rpmsg bus, which makes endpoints. Raises LinkError."""
        for entry in CLASS.glob("rpmsg_ctrl*") if CLASS.is_dir() else ():
            if entry.resolve().is_relative_to(self.path.parent):
                return f"/dev/{entry.name}"
        raise errors.LinkError(
            f"no rpmsg_ctrl beside {self.path.name}: is the module rpmsg_ctrl there?", errno.ENODEV
        )


def _number(path: Path) -> int:
    return int(path.read_text().strip(), 0) & ADDRESS_ANY


def services(name: str | None = None, remote: str | None = None) -> list[Service]:
    """Returns the announced channels, all of them or those of a name and a remote processor."""
    found = []
    for entry in sorted(BUS.iterdir()) if BUS.is_dir() else []:
        try:
            path = entry.resolve(strict=True)
            service = Service(
                (path / "name").read_text().strip(),
                _number(path / "src"),
                _number(path / "dst"),
                path,
            )
        except OSError:
            continue  # it went while we looked
        if name in (None, service.name) and remote in (None, service.remote):
            found.append(service)
    return found


def create_endpoint(control: str, name: str, destination: int, source: int = ADDRESS_ANY) -> int:
    """Returns the non-blocking descriptor of a new endpoint to `destination`; the caller's.

    `name` should be unique: by it the new node is told from others. Closing the descriptor leaves
    the node; `destroy_endpoint()` removes it. Raises LinkError when the remote goes meanwhile.
    """
    fd = ioctl.open_device(control)
    try:
        data = _EndpointInfo(name.encode(), source, destination)
        ioctl.call(fd, CREATE_EPT, data, f"endpoint {name} on {control}")
    finally:
        os.close(fd)
    for entry in CLASS.glob("rpmsg[0-9]*"):
        try:
            if (entry / "name").read_text().strip() == name:
                return _open_new(f"/dev/{entry.name}")
        except OSError:
            continue
    raise errors.LinkError(f"endpoint {name} vanished: the remote restarted", errno.ENODEV)


def reap(prefix: str) -> None:
    """Removes nodes that dead processes have left: those named `prefix`-PURPOSE-PID-NUMBER.

    A node that somebody has open is left alone, whatever it is called.
    """
    pattern = re.compile(rf"{re.escape(prefix)}-[a-z]+-(\d+)-\d+")
    for entry in CLASS.glob("rpmsg[0-9]*"):
        try:
            named = pattern.fullmatch((entry / "name").read_text().strip())
            if named and not _lives(int(named[1])):
                fd = ioctl.open_device(f"/dev/{entry.name}", os.O_RDWR | os.O_NONBLOCK)
                destroy_endpoint(fd)
        except (OSError, errors.Error):
            continue  # it went meanwhile, or is used


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def _open_new(path: str) -> int:
    """Opens a node that the kernel has just made: root's, until udev has applied its rules."""
    deadline = time.monotonic() + _UDEV_S
    while True:
        try:
            return ioctl.open_device(path, os.O_RDWR | os.O_NONBLOCK)
        except errors.PermissionDenied:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def destroy_endpoint(fd: int, first: int = -1) -> None:
    """Removes the endpoint's node and closes its descriptor; no error when the remote is gone.

    Then the kernel has removed the node itself, and must not be asked again: Linux 6.1 panics on a
    second removal (rpmsg_chrdev_eptdev_destroy() takes the device from its list twice). It removes
    those of a remote one after the other, sleeping between, in the order in which they were made:
    `first` is an older one, after whose end this one must be left alone too.
    """
    poll = select.poll()
    for each in (fd, first):
        if each >= 0:
            poll.register(each, 0)
    try:
        if not poll.poll(0):  # with nothing between the look and the call
            fcntl.ioctl(fd, DESTROY_EPT)
    except OSError:
        pass  # it went meanwhile
    finally:
        os.close(fd)
