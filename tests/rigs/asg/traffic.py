"""Traffic that both ends of an ASG stream know beforehand, as the original's own random test."""

from __future__ import annotations

import mmap
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from sbe import asg

LIMIT_S = 60.0


class ClientEnd(Protocol):
    """What a client is here."""

    def write(self, data: bytes, /) -> object: ...
    def send(self, data: bytes, /) -> object: ...
    def flush(self) -> object: ...
    def read_exactly(self, size: int, /) -> bytes: ...


class ServerEnd(Protocol):
    """What a server is."""

    def read_exactly(self, size: int, /) -> bytes: ...
    def reply(self, data: bytes, /) -> object: ...


@dataclass(frozen=True)
class Packet:
    """What happens next, and how many bytes."""

    kind: str  # write, send, read
    size: int

    def data(self, number: int) -> bytes:
        """Its bytes: every packet begins elsewhere in a period that no ring has."""
        at = number * 7919 % len(_NOISE)
        repeats = (at + self.size) // len(_NOISE) + 1
        return (_NOISE * repeats)[at : at + self.size]


_NOISE = random.Random(1).randbytes(65521)


def packets(count: int, seed: int = 0, largest: int = 8190) -> list[Packet]:
    """At random, and at the end a reply, by which the client knows that all was read."""
    choice = random.Random(seed)
    made = []
    for _ in range(count):
        kind = choice.choices(["write", "send", "read"], [90, 9, 1])[0]
        made.append(Packet(kind, choice.randint(1, largest)))
    return [*made, Packet("read", 1)]


def be_client(client: ClientEnd, script: list[Packet]) -> None:
    """Sends it, and checks the replies."""
    for number, packet in enumerate(script):
        data = packet.data(number)
        if packet.kind == "write":
            client.write(data)
        elif packet.kind == "send":
            client.send(data)
        else:
            assert client.read_exactly(packet.size) == data, f"reply {number}"
    client.flush()


def be_server(server: ServerEnd, script: list[Packet]) -> None:
    """Checks it, and sends the replies."""
    for number, packet in enumerate(script):
        data = packet.data(number)
        if packet.kind == "read":
            server.reply(data)
        else:
            assert server.read_exactly(packet.size) == data, f"packet {number}"


class Place:
    """A region and a doorbell."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.region = mmap.mmap(-1, asg.STORAGE_BYTES + size)
        self.bell = os.eventfd(0, os.EFD_CLOEXEC)
        self.rung = 0

    def ring(self) -> None:
        """As the doorbell of a client of ours: counts."""
        self.rung += 1
        os.eventfd_write(self.bell, 1)

    def close(self) -> None:
        """The region stays for whoever still shows it."""
        os.close(self.bell)


def together(*parts: Callable[[], object]) -> None:
    """Each in a thread; raises what the first of them raised."""
    errors: list[BaseException] = []

    def guarded(part: Callable[[], object]) -> None:
        try:
            part()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(part,), daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S * 10)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "an end waits for ever"


def places(size: int) -> Iterator[Place]:
    """For a fixture."""
    place = Place(size)
    yield place
    place.close()
