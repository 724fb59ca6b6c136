"""What every kind of remote has in common, and the table of URIs."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import sbe
from sbe.remotes import Memory, Remote, uris
from sbe.remotes.boards import QemuBoard
from sbe.remotes.carveout import Carveout
from sbe.remotes.listening import ListeningRemote
from sbe.remotes.process import RemoteProcess
from sbe.remotes.rpmsg import RpmsgRemote
from sbe.sdk.direct import DirectBackend
from sbe.transports import Transport
from sbe.transports.seqpacket import SeqpacketTransport
from tests.rigs.boards import require_board

KINDS: dict[str, type[Remote]] = {
    "loopback": RemoteProcess,
    "qemu": QemuBoard,
    "rpmsg": RpmsgRemote,
    "carveout": Carveout,
    "socket": ListeningRemote,
}


def uri_of(scheme: str, folder: Path) -> list[str]:
    """URIs of a kind that can be opened without that kind of hardware."""
    file = folder / "link.toml"
    file.write_text("memory = '/dev/null'\ndoorbell = 'unix:/nowhere'\n")
    return {
        "loopback": ["loopback:"],
        "qemu": ["qemu:mps2-an521"],
        "rpmsg": ["rpmsg:", "rpmsg:m4", "rpmsg:m4,messages", "rpmsg:,messages"],
        "carveout": [f"carveout:{file}"],
        "socket": [f"socket:{folder / 'nobody'}"],
    }[scheme]


def test_every_kind_is_in_the_table():
    schemes = {form.partition(":")[0] for form in uris.forms()}
    assert schemes == {*KINDS, uris.DAEMON}


@pytest.mark.parametrize("scheme", KINDS)
def test_a_remote_says_the_uri_that_opens_it(scheme: str, tmp_path: Path):
    if scheme == "qemu":
        require_board("mps2-an521")
    for uri in uri_of(scheme, tmp_path):
        remote = uris.open_remote(uri)
        try:
            assert isinstance(remote, KINDS[scheme])
            assert remote.uri == uri
            assert remote.name
            assert remote.transport
            assert remote.pid is None
        finally:
            remote.close()
            remote.close()


def test_a_daemon_has_no_remote_here():
    with pytest.raises(sbe.BadArgument, match="'unix:/x' is a daemon's"):
        uris.open_remote("unix:/x")


def test_the_table_imports_no_kind():
    code = (
        "import sys, sbe.remotes.uris as uris; uris.forms()\n"
        "print([name for name in sys.modules if name.startswith(('sbe.heaps', 'sbe.transports',"
        " 'sbe.remotes.')) and name != 'sbe.remotes.uris'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


class Deaf(Remote):
    """The least that a remote is: nobody answers, and then it hangs up."""

    name = "deaf"
    uri = "deaf:"
    transport = "testing"

    def __init__(self) -> None:
        self.closed = 0

    def connect(self) -> Transport:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        far.close()
        return SeqpacketTransport(near)

    def close(self) -> None:
        self.closed += 1


def test_defaults_suit_a_process_on_this_machine():
    remote = Deaf()
    assert list(remote.memory.heaps) == ["memfd"]
    assert remote.memory.rings.name == "memfd"
    assert remote.memory.slot_size_max is None
    assert remote.memory.offering is None
    assert remote.pid is None
    assert remote.exit_description is None


def test_rings_lie_in_the_first_heap_that_there_is():
    first, second = RemoteProcess().memory.rings, RemoteProcess().memory.rings
    assert Memory({"one": first, "two": second}).rings is first
    assert Memory({"one": first}, second).rings is second
    assert Memory({}, second).rings is second
    assert Memory({}).rings.name == "memfd"  # frames travel as messages


def test_a_remote_that_does_not_answer_is_let_go():
    remote = Deaf()
    with pytest.raises(sbe.LinkError):
        DirectBackend(5.0, remote)
    assert remote.closed == 1
    with pytest.raises(sbe.LinkError):
        sbe.connect(remote)
    assert remote.closed == 2


@pytest.mark.parametrize("given", [5, b"loopback:", object(), Deaf])
def test_what_is_neither_a_uri_nor_a_remote(given: object):
    with pytest.raises(sbe.BadArgument, match="is no link: say a URI, or derive it from"):
        sbe.connect(given)  # type: ignore[arg-type]


def test_what_a_remote_must_have_is_missed_before_it_is_used():
    class Mute(Remote):
        name = "mute"

    with pytest.raises(TypeError, match="abstract"):
        Mute()  # type: ignore[abstract]
