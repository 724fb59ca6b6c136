"""The table of keys: which probe stands beside which. A new figure is a line here."""

from __future__ import annotations

from functools import partial

from tests.bench import floors, ours, peers
from tests.bench.model import Probe, Row

PROBES: dict[str, Probe] = {**floors.PROBES, **peers.PROBES, **ours.PROBES}

_floor = partial(Row, group="floor")
_peer = partial(Row, group="peer")

_FLOORS = [
    _floor("floor_eventfd", "us", "eventfd", what="raw eventfd ping-pong, two Python processes"),
    _floor("floor_eventfd_paced", "us", "eventfd_paced", what="the same, 0.5 ms of rest between"),
    _floor(
        "floor_cache_line", "ns", "cache_line", what="one cache line to the other core and back"
    ),
    _floor(
        "floor_memcpy",
        "GB/s",
        "memcpy",
        what="one copy of 64 MiB",
        higher_is_better=True,
    ),
    _floor(
        "floor_invert",
        "GB/s",
        "invert",
        what="numpy.invert of 16 MiB in place, in-process",
        higher_is_better=True,
    ),
    _floor("floor_rss_bare", "MB", "rss_bare", what="resident memory of a bare interpreter"),
]

_PEERS = [
    _peer(
        f"peer_{probe}",
        "us",
        probe,
        "eventfd",
        "eventfd",
        f"{name}, 32 bytes there and back",
    )
    for probe, name in (
        ("seqpacket", "AF_UNIX seqpacket"),
        ("pipe", "multiprocessing.Pipe"),
        ("zmq", "pyzmq REQ/REP over ipc"),
        ("iceoryx2", "iceoryx2 request/response, spinning"),
    )
] + [
    _peer(
        "peer_pipe_bulk",
        "GB/s",
        "pipe_bulk",
        "invert",
        "invert in-process",
        "16 MiB through multiprocessing.Pipe, inverted, and back",
        higher_is_better=True,
    ),
    _peer("peer_numpy_import", "ms", "numpy_import", what="`import numpy`"),
    _peer(
        "peer_numpy_rss",
        "MB",
        "numpy_rss",
        what="`import numpy` over the bare interpreter",
    ),
]

_CALLS = [
    Row("call_block", "us", "call", "eventfd", "eventfd", "empty call, both ends asleep between"),
    Row(
        "call_block_paced",
        "us",
        "call_paced",
        "eventfd_paced",
        "eventfd, paced",
        "the same, 0.5 ms of rest between",
    ),
    Row("call_vs_zmq", "us", "call_message", "zmq", "pyzmq", "call with 32 bytes"),
    Row("call_vs_pipe", "us", "call_message", "pipe", "Pipe", "call with 32 bytes"),
    Row("call_vs_seqpacket", "us", "call_message", "seqpacket", "seqpacket", "call with 32 bytes"),
    Row(
        "call_vs_iceoryx2",
        "us",
        "call_message",
        "iceoryx2",
        "iceoryx2",
        "call with 32 bytes",
        note="iceoryx2 spins on two cores, this call sleeps",
    ),
    Row(
        "submit_calls",
        "calls/s",
        "submit",
        what=f"submit and collect, {ours.IN_FLIGHT} in flight, one thread",
        higher_is_better=True,
    ),
]

_DATA = [
    Row(
        "by_reference_flat",
        "us",
        "by_reference/large",
        "by_reference/small",
        "SBE, 4 KiB",
        "call with a 64 MiB buffer that nobody touches",
    ),
    Row("crc_remote", "ms", "crc/remote", "crc/zlib", "zlib in-process", "crc32 of 64 MiB"),
    Row(
        "bulk_vs_pipe",
        "GB/s",
        "bulk",
        "pipe_bulk",
        "Pipe",
        "16 MiB handed over, inverted, and back",
        higher_is_better=True,
    ),
    Row(
        "packets_per_doorbell",
        "packets",
        "packets_per_doorbell",
        what="51,200 packets of 384 B",
        higher_is_better=True,
    ),
]

_COSTS = [
    Row("import_time", "ms", "sbe_import", "numpy_import", "import numpy", "`import sbe`"),
    Row(
        "import_rss_over_bare",
        "MB",
        "sbe_rss",
        "numpy_rss",
        "import numpy",
        "`import sbe` over the bare interpreter",
        goal=5.0,
        goal_on="value",
    ),
    Row(
        "remote_rss",
        "MB",
        "remote_rss",
        what="resident memory of sbe-remote",
        goal=8.0,
        goal_on="value",
    ),
    Row(
        "daemon_rss",
        "MB",
        "daemon_rss",
        what="resident memory of sbe-daemon",
        goal=60.0,
        goal_on="value",
    ),
    Row("cold_connect", "ms", "cold_connect", what="connect and first call, daemon running"),
    Row("idle", "ms", "idle/cpu", what="CPU of client and remote without work"),
    Row("idle_wakeups", "times", "idle/wakeups", what="wake-ups of client and remote"),
    Row("idle_daemon", "ms", "idle_daemon/cpu", what="CPU of client, daemon and remote"),
    Row("idle_daemon_wakeups", "times", "idle_daemon/wakeups", what="wake-ups of all three"),
]

ROWS: list[Row] = [*_FLOORS, *_PEERS, *_CALLS, *_DATA, *_COSTS]
