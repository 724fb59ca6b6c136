# SPDX-License-Identifier: Apache-2.0
"""The link over the kernel's rpmsg: negotiation, questions, the remote's end."""

from pathlib import Path

import pytest

from sbe import errors
from sbe.link import Link
from sbe.transports.rpmsg import RpmsgRemote
from tests.rigs.kernel import parts

pytestmark = pytest.mark.kernel


def test_link_negotiates(tmp_path: Path):
    with parts.running(tmp_path) as processor:
        with Link(RpmsgRemote(processor.name).connect) as link:
            link.wait(link.start(), 5)
            assert link.peer_name == "sbe-remote-rpmsg"
            assert link.wait(link.find_service(0, "echo"), 5).name == "echo"
            assert link.wait(link.ping(), 5) > 0
            names = {service.name for service in link.wait(link.list_services(), 5)}
            assert {"echo", "copy", "crc32"} <= names
        assert processor.log()["trace0"].startswith("up\n")
