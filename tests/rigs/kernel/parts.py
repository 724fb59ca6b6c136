# SPDX-License-Identifier: Apache-2.0
"""What tests in the guest use: our modules, a remote processor, its core."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sbe import _native
from sbe.kernel import firmware_file, ioctl, remoteproc, rpmsg

ROOT = Path(__file__).resolve().parents[3]
MODULES = ROOT / "build" / "kernel" / ".".join(os.uname().release.split(".")[:2])
NAME = "sbe-userproc0"
DEVICE = "/dev/sbe-userproc0"
REMOTE = Path(
    os.environ.get("SBE_REMOTE_RPMSG") or Path(_native.__file__).with_name("sbe-remote-rpmsg")
)


_left: set[str] = set()
"""Modules that stayed since somebody may have had their memory mapped when they were done with."""


def insert(module: str, *parameters: str) -> None:
    if module in _left:
        _left.discard(module)
        try:
            remove(module)
        except subprocess.CalledProcessError:
            if parameters:
                raise
            return  # a test that failed has kept its memory: the one that is there will do
    [file] = MODULES.glob(f"**/{module}.ko")
    subprocess.run(["insmod", file, *parameters], check=True)


def remove(module: str) -> None:
    gc.collect()  # mappings of what the module has given out
    subprocess.run(["rmmod", module], check=True)


@contextmanager
def module(name: str, *parameters: str, leave: bool = False) -> Iterator[None]:
    """A module of ours. `leave`: it is removed before its next use only."""
    insert(name, *parameters)
    try:
        yield
    finally:
        _left.add(name)
        if not leave:
            remove(name)  # if it can't go, this test fails, and not those behind it
            _left.discard(name)


def make_firmware(folder: Path) -> None:
    """Firmware where the kernel finds it."""
    maker = ROOT / "linux" / "kernel" / "make_firmware.py"
    subprocess.run([sys.executable, maker, folder / "sbe-userproc.elf"], check=True)
    firmware_file.EXTRA_FIRMWARE.write_text(str(folder))


@contextmanager
def core_process(*options: str, program: Path = REMOTE) -> Iterator[subprocess.Popen[bytes]]:
    """sbe-remote-rpmsg as the core of a processor, or another program."""
    process = subprocess.Popen([program, *options, DEVICE])
    try:
        yield process
    finally:
        if process.poll() is not None:
            print(f"{program.name} ended with {process.returncode}", file=sys.stderr)
        process.kill()
        process.wait()


def until(true: Callable[[], object], seconds: float = 5) -> None:
    """Look until it is so: for what the kernel tells nobody."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.001)


def wait_for_service(name: str, seconds: float = 5) -> rpmsg.Service:
    """The announcement comes after the start; its uevent would need a udev here."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := rpmsg.services(name):
            return found[0]
        time.sleep(0.001)
    raise AssertionError(f"{name} was not announced; there are {rpmsg.services()}")


@contextmanager
def running(
    folder: Path, *, leave: bool = False, program: Path = REMOTE, announced: str = "sbe-doorbell"
) -> Iterator[remoteproc.RemoteProcessor]:
    """A remote processor that runs sbe-remote-rpmsg or another program, whose last announcement
    that is, and sbe_dmabuf beside it.
    """
    make_firmware(folder)
    with (
        module("sbe_dmabuf", leave=leave),
        module("sbe_userproc"),
        core_process(program=program),
    ):
        processor = remoteproc.find(NAME)
        processor.start()
        try:
            wait_for_service(announced)
            yield processor
        finally:
            processor.stop()


def _life(name: str) -> int:
    """Another number for each life of the remote, 0 between."""
    return sum(service.life for service in rpmsg.services(name))


def crash(processor: remoteproc.RemoteProcessor, announced: str = "sbe-control") -> None:
    """Report a crash, and wait until the remote's devices go.

    The kernel handles it in a thread of its own: who came before would meet the old life.
    """
    before = _life(announced)
    Path(f"/sys/kernel/debug/remoteproc/{processor.entry}/crash").write_text("1")
    until(lambda: _life(announced) != before)


def open_again(fd: int) -> int:
    """What opening a descriptor's device once more comes to."""
    return ioctl.open_device(os.readlink(f"/proc/self/fd/{fd}"))


class Later(ExitStack):
    """Functions in threads of their own; `join()` hands on what they raised."""

    def __init__(self) -> None:
        super().__init__()
        self._threads: list[threading.Thread] = []
        self._raised: list[BaseException] = []

    def run(self, function: Callable[[], object]) -> None:
        def guarded() -> None:
            try:
                function()
            except BaseException as error:
                self._raised.append(error)

        self._threads.append(threading.Thread(target=guarded, daemon=True))
        self._threads[-1].start()

    def join(self, seconds: float) -> None:
        """Wait for all of them, so long for each."""
        for thread in self._threads:
            thread.join(seconds)
            assert not thread.is_alive(), "a thread hangs"
        for error in self._raised:
            raise error
