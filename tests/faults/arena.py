"""Where applications attack: a daemon, its remote, and a bystander in another context.

Whatever an attack has done, afterwards nobody was ended or started again, the bystander has met
nothing wrong and goes on, and all that the attacker held is back to the last descriptor.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.faults.bystander import SECRET, Bystander
from tests.faults.raw_rings import Frame, Rings, request
from tests.integration.varlink_client import SECONDS, Daemon, Refused, VarlinkClient, readable
from tests.soak.held import Held

__all__ = ["OTHER", "Arena", "Attacker", "Channel", "attack"]

OTHER = 65532  # the attacker's user, where the tests may choose one
CONFIG = """
[daemon]
mode = "0666"
[policy.default]
channels = 64
in_flight = 65536
"""


class Channel(Rings):
    """A channel of an attacker's: its memory by hand, its frames in any form."""

    def __init__(self, opened: dict[str, Any]) -> None:
        self.opened = opened
        self.id: int = opened["channel"]
        end = opened["offset"] + opened["size"]
        self.mapped = mmap.mmap(opened["memory_fd"], end)
        super().__init__(
            memoryview(self.mapped)[opened["offset"] : end],
            opened["slots"],
            opened["slot_size"],
            opened["line"],
            incoming=opened["receive_offset"],
            outgoing=opened["send_offset"],
        )
        self.peer_doorbell = opened["ring_fd"]
        self._transactions = 0

    def next_transaction(self) -> int:
        """One that was not used yet."""
        self._transactions += 1
        return 1 << 32 | self._transactions

    def ask(self, service: int, payload: bytes = b"", **more: Any) -> int:
        """Sends a request, right but for what is given; its transaction."""
        number: int = more.pop("transaction", None) or self.next_transaction()
        self.put(request(service, number, payload, **more))
        return number

    def next(self) -> Frame:
        """The next frame that the remote sends."""
        until = time.monotonic() + SECONDS
        while (frame := self.take()) is None:
            assert time.monotonic() < until, "the remote sends nothing"
            # A listener tells of each ring once. The wait is short: Python has no barrier.
            readable(self.opened["wake_fd"], 0.005)
        return frame

    def answer(self, transaction: int) -> Frame:
        """The answer to this one; what comes before it is dropped."""
        while (frame := self.next()).header["transaction"] != transaction:
            pass
        return frame

    def force(self, data: bytes) -> None:
        """Publishes a frame, whether there is room or not."""
        at = self.slot(self.outgoing, self.head)
        self.memory[at : at + len(data)] = data
        self.head += 1
        self.publish_head(self.head)

    def scribble(self, chance: random.Random) -> None:
        """A word anywhere, half of the time where indices and the first slots are."""
        place = chance.randrange(self.opened["size"] // 4) * 4
        if chance.random() < 0.5:
            ring = chance.choice([self.incoming, self.outgoing])
            place = ring + chance.randrange((2 * self.line + 2 * self.slot_size) // 4) * 4
        likely = [b"\xff" * 4, bytes(4), b"\0\0\0\x80", chance.randbytes(4)]
        self.memory[place : place + 4] = chance.choice(likely)

    @property
    def served(self) -> int:
        """Frames that the remote has taken, by what it says in the ring."""
        return self.load(self.outgoing, "sbe_ring_consumer", "tail")

    def works(self, echo: int) -> bool:
        """Whether the remote still answers here."""
        return self.answer(self.ask(echo, b"there?")).payload == b"there?"

    def close(self) -> None:
        self.memory.release()
        self.mapped.close()


class Attacker:
    """An application with a context of its own, and nothing but what it was handed."""

    def __init__(self, client: VarlinkClient) -> None:
        self.client = client
        opened = client.open("attacker")
        self.context: int = opened["context"]
        self.events_fd: int = opened["events_fd"]
        self._made: list[Channel | mmap.mmap] = []

    def service(self, name: str) -> int:
        number: int = self.client.call("FindService", name=name, version=0)["service"]
        return number

    def channel(self, slots: int = 64, slot_size: int = 1024, **how: Any) -> Channel:
        channel = Channel(self.client.call("OpenChannel", slots=slots, slot_size=slot_size, **how))
        self._made.append(channel)
        return channel

    def area(self, size: int = 65536) -> tuple[int, mmap.mmap]:
        """Its id, and its memory."""
        granted = self.client.call("Allocate", size=size)
        memory = mmap.mmap(granted["memory_fd"], granted["size"])
        self._made.append(memory)
        return granted["area"], memory

    def sees(self, secret: bytes) -> bool:
        """Whether any memory that it was handed has these bytes in it."""
        kept = [made.mapped if isinstance(made, Channel) else made for made in self._made]
        return any(memory.find(secret) >= 0 for memory in kept)

    def leave(self) -> None:
        """Its descriptors are closed, as the kernel does it for one that dies."""
        self.client.close()
        for made in self._made:
            made.close()
        self._made.clear()


def attack(evil: Attacker, seed: int, turns: int = 1000) -> None:
    """A bit of everything at random: it keeps to no rule of its rings, and goes without a word."""
    chance = random.Random(seed)
    services = [row["id"] for row in evil.client.call("ListServices")["services"]]
    area, _ = evil.area(4096)
    channel = evil.channel(slots=16, slot_size=128)
    numbers = (0, 1, 4095, 4096, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 64) - 1)
    for turn in range(turns):
        buffers = [
            {
                "area": area + chance.choice([0, 0, 0, 1, -1, 1 << 16]),
                "direction": chance.randrange(6),
                "offset": chance.choice(numbers),
                "size": chance.choice([*numbers, 64, 64, 64]),
            }
            for _ in range(chance.randrange(3))
        ]
        channel.force(request(chance.choice(services), 1 << 32 | turn, b"p" * 8, buffers))
        for _ in range(chance.randrange(4)):
            channel.scribble(chance)
        channel.knock()
    os.set_blocking(channel.peer_doorbell, False)
    with suppress(BlockingIOError):
        os.eventfd_write(channel.peer_doorbell, 2**64 - 2)
    os.set_blocking(channel.peer_doorbell, True)
    evil.client.send("Allocate", size=8192)  # and does not wait for it
    evil.leave()


class Arena:
    """A daemon process, its remote, and the bystander; attackers come and go."""

    def __init__(self, more: str = "") -> None:
        self._stack = ExitStack()
        # Every user may enter it, which is not so of tmp_path.
        self.folder = Path(tempfile.mkdtemp(prefix="sbe-arena-"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.folder.chmod(0o755)
        self.daemon = Daemon(self.folder, CONFIG + more)
        self._stack.callback(self.daemon.close)
        self.daemon.socket.parent.chmod(0o755)
        self.remote = self.daemon.remote_pid()
        self.bystander = Bystander(f"unix:{self.daemon.socket}", self.folder)
        self._stack.callback(self.bystander.close)
        self.bystander.goes_on(20)
        self._attackers: list[Attacker] = []
        # The fewest of some looks: the bystander has a second area now and then.
        self._before = min((self._held() for _ in range(10)), key=lambda held: held[0][0]["areas"])
        self._told = 0

    def connect(self) -> VarlinkClient:
        """A connection of the attacker's user."""
        if os.getuid() != 0:
            return self.daemon.client()
        os.setegid(OTHER)
        os.seteuid(OTHER)
        try:
            return self.daemon.client()
        finally:
            os.seteuid(0)
            os.setegid(0)

    def attacker(self) -> Attacker:
        attacker = Attacker(self.connect())
        self._attackers.append(attacker)
        return attacker

    @contextmanager
    def attacked(self) -> Iterator[None]:
        """What happens inside is an attack: the checks of this module's docstring follow it."""
        self._told = len(self.daemon.log())
        yield
        self.bystander.goes_on()
        assert not any(attacker.sees(SECRET) for attacker in self._attackers)
        for attacker in self._attackers:
            attacker.leave()
        self._attackers.clear()
        self.bystander.goes_on()
        self.daemon.wait_until(self._is_as_before, f"what was held, of {self._before}, is not back")
        assert self.daemon.remote_pid() == self.remote
        assert "Traceback" not in self.log()

    def log(self) -> str:
        """What the daemon has told since the attack began."""
        return self.daemon.log()[self._told :]

    def _held(self) -> tuple[Any, ...]:
        """By the kernel, of both processes; and by the daemon's accounts."""
        self.bystander.check()
        links = [
            {key: link[key] for key in ("areas", "contexts", "channels", "restarts")}
            for link in self.daemon.stat()["links"]
        ]
        held = [Held.by(pid) for pid in (self.daemon.pid, self.remote)]
        return links, self.daemon.used(), self.daemon.used(OTHER), *held

    def _is_as_before(self) -> bool:
        """But for what comes and goes: the bystander's second area, a thread for what may block."""
        try:
            links, ours, others, *held = self._held()
        except Refused:  # where the attacker is this user, whose share is used up
            return False
        was_links, was_ours, was_others, *was_held = self._before
        return (links, ours, others) == (was_links, was_ours, was_others) and all(
            now.descriptors <= was.descriptors
            and now.mappings <= was.mappings
            and now.threads <= was.threads + 1
            for now, was in zip(held, was_held, strict=True)
        )

    def close(self) -> None:
        for attacker in self._attackers:
            attacker.leave()
        self._stack.close()
