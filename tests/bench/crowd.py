"""Work among a thousand contexts beside the same with the daemon to itself; crowd after crowd."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.bench import ours, procs
from tests.bench.model import Probe, Result, Settings, UnavailableError

AREAS_EACH = 10
_CLIENTS = 10  # processes that the contexts are spread over
_CLIENT_S = 150.0
_CROWDS = 10

# Quotas are per user, and all of the crowd is one user.
_CONFIG = """
[daemon]
max_connections = 4096
[policy.default]
bytes = 17_179_869_184
areas = 65_535
channels = 4_096
contexts = 4_096
in_flight = 16_777_216
connections = 4_096
"""

_CLIENT = """
import os, sbe
address, count, each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
links = [sbe.connect(address, slots=2, slot_size=256, timeout=60) for _ in range(count)]
areas = [link.allocate(4096) for link in links for _ in range(each)]
print(len(links), len(areas), flush=True)
sys.stdin.read()
os._exit(0)
"""


def crowd(settings: Settings) -> Result:
    """Two daemons with a remote each, one crowded; calls to them in turn, then control work."""
    sbe = ours.require_sbe()
    _enough_descriptors(settings.contexts * (5 + AREAS_EACH) + 200)
    with ExitStack() as stack:
        crowded, daemon_pid = stack.enter_context(ours.daemon(settings, "crowded", _CONFIG))
        alone, alone_pid = stack.enter_context(ours.daemon(settings, "alone", _CONFIG))
        links = [stack.enter_context(sbe.connect(address)) for address in (crowded, alone)]
        clients = _come(stack, settings, crowded, AREAS_EACH)
        procs.place(settings, [*ours.remotes(daemon_pid), *ours.remotes(alone_pid)])
        buffers = [sbe.In(link.allocate(4096)) for link in links]
        steps = {
            name: ours.caller(link, "echo", buffer)
            for name, link, buffer in zip(("crowded", "alone"), links, buffers, strict=True)
        }
        for step in steps.values():
            step()
        series = ours.alternate(settings.calls // 2, steps)
        sides = {"crowded": (crowded, links[0]), "alone": (alone, links[1])}
        for name, make in (("connect", _connect), ("allocate", _allocate)):
            work = {f"{name}_{side}": make(sbe, *which) for side, which in sides.items()}
            series |= ours.alternate(settings.calls // 20, work)
        series["daemon_mb"] = [procs.rss_mb(daemon_pid)]
        series["remote_mb"] = [procs.rss_mb(pid) for pid in ours.remotes(daemon_pid)]
        seen = len(links[0].list()["contexts"])
        _go(clients)
    return Result(series, f"{seen:,} contexts, {settings.contexts * AREAS_EACH:,} areas")


def _connect(sbe: Any, address: str, link: Any) -> Callable[[], object]:
    """A client comes with its context and its channel, and goes."""
    return lambda: sbe.connect(address, slots=2, slot_size=256).close()


def _allocate(sbe: Any, address: str, link: Any) -> Callable[[], object]:
    """An area is allocated, mapped, registered and freed."""
    return lambda: link.allocate(4096).free()


def _come(stack: ExitStack, settings: Settings, address: str, areas: int) -> list[Any]:
    """A crowd of clients, each with so many areas; the processes that they live in."""
    share = str(settings.contexts // _CLIENTS)
    clients = [
        stack.enter_context(procs.child(procs.python(_CLIENT, address, share, str(areas))))
        for _ in range(_CLIENTS)
    ]
    for client in clients:
        procs.await_line(client, _CLIENT_S)
    return clients


def _go(clients: list[Any]) -> None:
    for client in clients:  # all at once: one after the other would take its time
        os.kill(client.pid, 9)


def crowds(settings: Settings) -> Result:
    """Crowds that come and go, one after the other: the daemon's memory after each of them."""
    sbe = ours.require_sbe()
    _enough_descriptors(settings.contexts * 6 + 200)
    with ExitStack() as stack:
        address, pid = stack.enter_context(ours.daemon(settings, "crowds", _CONFIG))
        link = stack.enter_context(sbe.connect(address))
        after: list[float] = []
        for _ in range(_CROWDS):
            with ExitStack() as crowd:
                _go(_come(crowd, settings, address, 1))
            _await_alone(link)
            after.append(procs.rss_mb(pid))
    series = {name: [after[at]] for name, at in (("first", 0), ("second", 1), ("last", -1))}
    return Result(series, f"{_CROWDS} crowds of {settings.contexts:,} clients")


def _await_alone(link: Any) -> None:
    patience = time.monotonic() + _CLIENT_S
    while len(link.list()["contexts"]) > 1:
        if time.monotonic() > patience:
            raise UnavailableError(f"clients are still there after {_CLIENT_S:g} s")
        time.sleep(0.05)


def _enough_descriptors(wanted: int) -> None:
    """A descriptor for each area is what the daemon holds; children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        raise UnavailableError(f"needs {wanted:,} open files a process, the limit is {hard:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


PROBES = {
    "crowd": Probe(crowd, limit_s=300.0, once=True),
    "crowds": Probe(crowds, limit_s=300.0, once=True),
}
