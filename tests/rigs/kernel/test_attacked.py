# SPDX-License-Identifier: Apache-2.0
"""Hostile applications and ends over the kernel's rpmsg: the others, and the kernel, are well."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
from sbe import _native
from sbe.kernel import rpmsg
from tests.faults.arena import Attacker, attack
from tests.faults.attacks import application
from tests.integration.varlink_client import Daemon, daemon
from tests.rigs.kernel import parts

pytestmark = pytest.mark.kernel

LINK = f"[[link]]\ntransport = 'rpmsg'\nprocessor = '{parts.NAME}'\n"
LIMIT_S = 20.0


@pytest.fixture(params=["coherent", "messages"])
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose rings are in shared memory, or travel as messages."""
    with (
        parts.running(tmp_path, leave=True),
        daemon(tmp_path, LINK + f"rings = '{request.param}'\n") as running,
    ):
        yield running


def check_works(link: sbe.Connection, area: sbe.Area, expected: bytes) -> None:
    assert link.call("echo", payload=b"on", timeout=LIMIT_S).payload == b"on"
    assert link.call("crc32", sbe.In(area), timeout=LIMIT_S).payload == expected


@application(1, 2, 3, 4, 8, 21, 23, 25)
def test_a_hostile_client_hurts_nobody_else(started: Daemon) -> None:
    with sbe.connect(f"unix:{started.socket}", timeout=LIMIT_S) as bystander:
        area = bystander.allocate(4096)
        area[:] = b"kept" * 1024
        expected = bystander.call("crc32", sbe.In(area), timeout=LIMIT_S).payload
        for seed in range(4):
            attack(Attacker(started.client()), seed, turns=300)
            check_works(bystander, area, expected)
        assert_refused(Attacker(started.client()), bystander)
        check_works(bystander, area, expected)
    started.wait_until_empty()
    assert started.list()["links"][0]["state"] == "connected"
    assert "is started again" not in started.log()
    assert "Traceback" not in started.log()


def assert_refused(evil: Attacker, bystander: sbe.Connection) -> None:
    """What it names is not its own, or lies outside."""
    fill, channel = evil.service("fill"), evil.channel(slots=8, slot_size=256)
    own, _ = evil.area(4096)
    theirs = [row["id"] for row in bystander.list()["areas"] if row["id"] != own]
    for area, offset, size, code in (
        *((other, 0, 64, errno.EACCES) for other in theirs),
        (own, 4096, 1, errno.ERANGE),
        (own, (1 << 64) - 1, 2, errno.ERANGE),
        (own, 0, 1 << 32, errno.ERANGE),
        (own + (1 << 16), 0, 1, errno.EFAULT),
    ):
        target = {"area": area, "direction": _native.DIR_OUT, "offset": offset, "size": size}
        assert channel.answer(channel.ask(fill, b"!", buffers=[target])).status == -code
    evil.leave()


@application(9, 18, 28)
def test_messages_from_another_endpoint(tmp_path: Path) -> None:
    """Whoever may open the control device sends the remote what it likes, of any size."""
    chance = random.Random(9)
    with parts.running(tmp_path, leave=True), daemon(tmp_path, LINK) as running:
        service = parts.wait_for_service("sbe-doorbell")
        other = rpmsg.create_endpoint(service.control, "other", service.destination)
        try:
            with sbe.connect(f"unix:{running.socket}", timeout=LIMIT_S) as bystander:
                for _ in range(300):
                    with contextlib.suppress(BlockingIOError):
                        os.write(other, chance.randbytes(chance.randrange(1, 490)))
                for _ in range(20):
                    assert bystander.call("echo", payload=b"x", timeout=LIMIT_S).payload == b"x"
        finally:
            rpmsg.destroy_endpoint(other)
        running.wait_until_empty()
