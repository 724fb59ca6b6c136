# SPDX-License-Identifier: Apache-2.0
"""Kernel memory: what our modules allocate is freed again, crashes or not."""

from pathlib import Path

import pytest

from sbe import errors
from sbe.kernel import remoteproc
from sbe.link.link import Link
from sbe.remotes.rpmsg import RpmsgRemote
from tests.rigs.kernel import guest_init, parts
from tests.rigs.kernel.test_transport import exchange

pytestmark = pytest.mark.kernel


@pytest.mark.timeout(120)
def test_kernel_memory_comes_back(tmp_path: Path):
    for _ in range(3):
        with parts.running(tmp_path) as processor:
            exchange(RpmsgRemote(processor.name), "udmabuf")
            with Link(RpmsgRemote(processor.name).connect) as link:
                link.wait(link.start(), 5)
                parts.crash(processor)
                with pytest.raises(errors.LinkError):
                    link.wait(link.ping(), 5)
            parts.until(lambda: processor.state == "running")
            parts.wait_for_service("sbe-doorbell")
        assert remoteproc.processors() == []
    found = guest_init.leaks()
    ours = [entry for entry in found.split("unreferenced object") if "sbe" in entry]
    assert not ours, "".join(ours)
