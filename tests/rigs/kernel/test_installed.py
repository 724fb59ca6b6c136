# SPDX-License-Identifier: Apache-2.0
"""What linux/ says of devices and options holds on a real kernel."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbe.kernel import remoteproc, rpmsg
from tests.rigs.kernel import parts
from tests.udev_rules import ROOT, rules

pytestmark = pytest.mark.kernel
NOBODY = 65534


@pytest.fixture(autouse=True)
def _running(tmp_path: Path) -> Iterator[None]:
    with parts.running(tmp_path), parts.module("sbe_rig_uio"):
        yield


def test_each_rule_finds_its_devices():
    service = parts.wait_for_service("sbe-doorbell")
    fd = rpmsg.create_endpoint(service.control, "sbe-test", service.destination)
    try:
        for rule in rules():
            devices = list(rule.devices())
            assert devices, rule.match
            for device in devices:
                for name in re.findall(r"\$devpath/(\w+)", rule.assign.get("RUN", "")):
                    assert (device / name).exists()
    finally:
        rpmsg.destroy_endpoint(fd)
    [heap] = [rule for rule in rules() if rule.match["SUBSYSTEM"] == "dma_heap"]
    assert {Path("/dev/dma_heap", device.name) for device in heap.devices()} == set(
        Path("/dev/dma_heap").iterdir()
    )


def test_the_unit_allows_devices_by_their_names():
    unit = (ROOT / "linux" / "systemd" / "sbe-daemon.service").read_text()
    numbered = Path("/proc/devices").read_text().split()
    for name in re.findall(r"^DeviceAllow=(\S+) rw$", unit, re.M):
        assert Path(name).exists() if name[0] == "/" else name.removeprefix("char-") in numbered


def test_the_options_for_boards_exist():
    tree = Path(os.environ["SBE_RIG_KERNEL"], "tree")
    declared: set[str] = set()
    for folder in ("drivers/dma-buf", "drivers/remoteproc", "drivers/rpmsg", "drivers/uio"):
        declared |= symbols(tree / folder)
    for folder in ("drivers/base", "fs", "init", "kernel", "lib", "mm", "net/unix"):
        declared |= symbols(tree / folder)
    wanted = set(
        re.findall(r"^CONFIG_(\w+)=y", (ROOT / "linux/kconfig/sbe.config").read_text(), re.M)
    )
    assert wanted - declared - {"MODULES", "MODULE_UNLOAD"} <= symbols(tree / "kernel" / "module")


def symbols(folder: Path) -> set[str]:
    return {
        name
        for path in folder.rglob("Kconfig*")
        for name in re.findall(r"^(?:menu)?config (\w+)$", path.read_text(), re.M)
    }


def test_an_endpoint_is_opened_when_udev_is_late():
    """A new node is root's until udev has given it away; the daemon is not root."""
    service = parts.wait_for_service("sbe-doorbell")
    os.chown(service.control, NOBODY, NOBODY)
    pid = os.fork()
    if pid == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        fd = rpmsg.create_endpoint(service.control, "sbe-late", service.destination)
        os._exit(0 if os.write(fd, b"doorbell") == 8 else 1)
    parts.until(lambda: list(Path("/dev").glob("rpmsg[0-9]*")))
    [node] = Path("/dev").glob("rpmsg[0-9]*")
    time.sleep(0.05)  # it finds it closed to it first; if not, the test proves less
    os.chown(node, NOBODY, NOBODY)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    rpmsg.destroy_endpoint(os.open(node, os.O_RDWR | os.O_NONBLOCK))
    assert remoteproc.find(parts.NAME).state == "running"
