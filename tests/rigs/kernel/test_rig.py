# SPDX-License-Identifier: Apache-2.0
"""The rig itself: the kernel offers what the tests behind it need."""

import os
import socket
from pathlib import Path

import pytest

from tests.rigs.kernel.guest import faults

pytestmark = pytest.mark.kernel


def test_kernel_is_a_guest():
    """And it is the one that was built."""
    built = Path(os.environ["SBE_RIG_KERNEL"]).name
    assert built.startswith(f"kernel-{os.uname().release}-")
    assert os.getpid() < 1000


@pytest.mark.parametrize("path", ["/dev/dma_heap/system", "/dev/udmabuf", "/sys/class/remoteproc"])
def test_kernel_offers(path: str):
    assert Path(path).exists()


def test_sockets_and_memfds_work(tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(tmp_path / "socket"))
    os.close(os.memfd_create("x"))


def test_faults_are_found_in_a_log():
    log = "[ 0.1] fine\n[ 0.2] WARNING: CPU: 0 PID: 1 at x.c:1\nunreferenced object 0x60 (size 8)"
    assert len(faults(log)) == 2
    assert faults("DMA-API: preallocated 65536 debug entries\nDMA-API: debugging enabled") == []


def test_a_complaint_of_the_kernel_is_seen():
    """What the plugin reads after each test is what the kernel has written."""
    kmsg = os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
    try:
        os.lseek(kmsg, 0, os.SEEK_END)
        os.write(kmsg, b"<4>a line of this test\n")
        assert b"a line of this test" in os.read(kmsg, 8192)
    finally:
        os.close(kmsg)
