# SPDX-License-Identifier: Apache-2.0
"""Real uevents of a remote processor that comes, goes and comes back under other numbers."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from sbe.kernel import remoteproc
from sbe.kernel.uevents import Uevent, Uevents
from tests.rigs.kernel import parts

pytestmark = pytest.mark.kernel


def until_told(uevents: Uevents, action: str, what: str) -> list[Uevent]:
    """Everything up to an event of this action whose name has this in it."""
    told: list[Uevent] = []
    while not any(event.action == action and what in event.name for event in told):
        assert select.select([uevents.fileno()], [], [], 5)[0], f"no {action} of {what}: {told}"
        told += uevents.take()
    return told


def test_devices_come_go_and_are_renumbered(tmp_path: Path):
    uevents = Uevents("rpmsg", "remoteproc")
    assert uevents.take() == []
    parts.make_firmware(tmp_path)
    with parts.module("sbe_userproc"), parts.core_process():
        until_told(uevents, "add", "remoteproc")
        processor = remoteproc.find(parts.NAME)
        processor.start()
        told = until_told(uevents, "add", "sbe-doorbell")
        assert any("sbe-control" in event.name for event in told)
        old = parts.wait_for_service("sbe-control").control
        held = os.open(old, os.O_RDWR)
        processor.stop()
        until_told(uevents, "remove", "sbe-control")
        processor.start()
        told = until_told(uevents, "add", "sbe-control")
        nodes = {event.name for event in told if event.name.startswith("rpmsg_ctrl")}
        assert nodes == {os.path.basename(parts.wait_for_service("sbe-control").control)}
        assert os.path.basename(old) not in nodes
        os.close(held)
        processor.stop()
        until_told(uevents, "remove", "sbe-control")
    until_told(uevents, "remove", "remoteproc")
    assert {event.subsystem for event in uevents.take()} <= {"rpmsg", "remoteproc"}
