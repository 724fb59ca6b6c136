"""Files by 9P through the daemon: contexts of several programs at one remote."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
from sbe.sdk import ninep_wire
from tests.integration import ninep
from tests.integration.ninep import Served, served, wait_until
from tests.integration.varlink_client import daemon


@pytest.fixture
def uri(tmp_path: Path) -> Iterator[str]:
    with daemon(tmp_path) as running:
        yield f"unix:{running.socket}"


def test_contexts_are_apart_and_share_the_files(uri: str) -> None:
    """A session is its context's: its number says nothing to another one."""
    with sbe.connect(uri) as one, sbe.connect(uri) as other:
        session = Served(one)
        session.client.version(8192)
        session.client.attach()
        fid = session.client.create("ram/file")
        session.client.write_all(fid, b"abc")
        statfs = ninep.message(ninep.STATFS, 1, struct.pack("<I", fid))
        asked = ninep_wire.asked(ninep_wire.MESSAGE, session.bridge._session, statfs)
        with pytest.raises(sbe.UnknownService):
            other.call("9p", payload=asked)
        with served(other) as client:
            assert client.read("ram/file") == b"abc"
            client.unlink("ram/file")
            assert session.client.read_at(fid, 0, 10) == b"abc"  # it has lost its name only
            blocks, files = client.free()
            one.close()  # a context's end clears its fids
            session.ended()
            session.close()
            wait_until(lambda: client.free() == (blocks + 1, files + 1))


def test_one_user_has_at_most_half(uri: str) -> None:
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(sbe.connect(uri)) for _ in range(5)]
        for number in range(8):
            stack.enter_context(served(links[number // 2]))
        with pytest.raises(sbe.Error) as raised:
            Served(links[4])
        assert raised.value.code == errno.EBUSY
    with sbe.connect(uri) as link, served(link) as client:
        assert client.names("ram") == set()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_daemon_goes(tmp_path: Path, how: signal.Signals) -> None:
    with daemon(tmp_path) as running, sbe.connect(f"unix:{running.socket}") as link:
        session = Served(link)
        session.client.version(8192)
        session.client.attach()
        os.kill(running.process.pid, how)
        assert isinstance(session.ended(), sbe.LinkError)  # also where nothing is asked
        with contextlib.suppress(OSError):
            assert session.client.socket.recv(1) == b""
        session.close()
