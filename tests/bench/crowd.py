"""A call among a thousand contexts beside the same call with the daemon to itself."""

from __future__ import annotations

import os
import resource
from contextlib import ExitStack

from tests.bench import ours, procs
from tests.bench.model import Probe, Result, Settings, UnavailableError

AREAS_EACH = 10
_CLIENTS = 10  # processes that the contexts are spread over
_CLIENT_S = 150.0

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

_CLIENT = f"""
import os, sbe
address, count = sys.argv[1], int(sys.argv[2])
links = [sbe.connect(address, slots=2, slot_size=256, timeout=60) for _ in range(count)]
areas = [link.allocate(4096) for link in links for _ in range({AREAS_EACH})]
print(len(links), len(areas), flush=True)
sys.stdin.read()
os._exit(0)
"""


def crowd(settings: Settings) -> Result:
    """Two daemons with a remote each, one crowded; calls to them in turn."""
    sbe = ours.require_sbe()
    _enough_descriptors(settings.contexts * (5 + AREAS_EACH) + 200)
    with ExitStack() as stack:
        crowded, daemon_pid = stack.enter_context(ours.daemon(settings, "crowded", _CONFIG))
        alone, alone_pid = stack.enter_context(ours.daemon(settings, "alone", _CONFIG))
        links = [stack.enter_context(sbe.connect(address)) for address in (crowded, alone)]
        share = str(settings.contexts // _CLIENTS)
        clients = [
            stack.enter_context(procs.child(procs.python(_CLIENT, crowded, share)))
            for _ in range(_CLIENTS)
        ]
        for client in clients:
            procs.await_line(client, _CLIENT_S)
        procs.place(settings, [*ours.remotes(daemon_pid), *ours.remotes(alone_pid)])
        buffers = [sbe.In(link.allocate(4096)) for link in links]
        steps = {
            name: ours.caller(link, "echo", buffer)
            for name, link, buffer in zip(("crowded", "alone"), links, buffers, strict=True)
        }
        for step in steps.values():
            step()
        series = ours.alternate(settings.calls // 2, steps)
        series["daemon_mb"] = [procs.rss_mb(daemon_pid)]
        series["remote_mb"] = [procs.rss_mb(pid) for pid in ours.remotes(daemon_pid)]
        seen = len(links[0].list()["contexts"])
        for client in clients:  # all at once: one after the other would take its time
            os.kill(client.pid, 9)
    return Result(series, f"{seen:,} contexts, {settings.contexts * AREAS_EACH:,} areas")


def _enough_descriptors(wanted: int) -> None:
    """A descriptor for each area is what the daemon holds; children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        raise UnavailableError(f"needs {wanted:,} open files a process, the limit is {hard:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


PROBES = {"crowd": Probe(crowd, limit_s=300.0, once=True)}
