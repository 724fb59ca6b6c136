"""The table of keys: which probe stands beside which. A new figure is a line here."""

from __future__ import annotations

from functools import partial

from tests.bench import (
    anatomy,
    core,
    crowd,
    curves,
    floors,
    flows,
    kernel,
    ninep,
    ours,
    parallel,
    peers,
    streams,
)
from tests.bench.curves import CURVES
from tests.bench.model import Placement, Probe, Row

__all__ = ["CURVES", "KERNEL_ROWS", "PROBES", "ROWS"]

PROBES: dict[str, Probe] = {
    name: probe
    for module in (
        floors,
        peers,
        flows,
        ours,
        parallel,
        streams,
        core,
        crowd,
        anatomy,
        curves,
        kernel,
        ninep,
    )
    for name, probe in module.PROBES.items()
}

_floor = partial(Row, group="floor")
_peer = partial(Row, group="peer")

_part = partial(Row, group="part")


def _everywhere(row: Row, **goals: float) -> list[Row]:
    """The row, and the same with both ends on one CPU and where the scheduler puts them."""
    others: tuple[Placement, ...] = ("one", "none")
    return [row, *(row.elsewhere(placement, goals.get(placement)) for placement in others)]


def _cost(key: str, unit: str, probe: str, what: str, goal: float) -> Row:
    return Row(key, unit, probe, what=what, goal=goal, goal_on="value")


_FLOORS = [
    *_everywhere(
        _floor("floor_eventfd", "us", "eventfd", what="raw eventfd ping-pong, two Python processes")
    ),
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


def _message_peer(probe: str, name: str) -> Row:
    what = f"{name}, 32 bytes there and back"
    return _peer(f"peer_{probe}", "us", probe, "eventfd", "eventfd", what)


_PEERS = [
    *_everywhere(_message_peer("seqpacket", "AF_UNIX seqpacket")),
    *_everywhere(_message_peer("pipe", "multiprocessing.Pipe")),
    *_everywhere(_message_peer("zmq", "pyzmq REQ/REP over ipc")),
    _message_peer("iceoryx2", "iceoryx2 request/response, spinning"),
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
    *_everywhere(
        Row(
            "call_block",
            "us",
            "calls/asleep",
            "calls/eventfd",
            "eventfd",
            "empty call, both ends asleep between",
            goal=1.15,
        )
    ),
    Row(
        "call_block_paced",
        "us",
        "call_paced",
        "eventfd_paced",
        "eventfd, paced",
        "the same, 0.5 ms of rest between",
    ),
    *_everywhere(
        Row(
            "call_spin",
            "us",
            "calls/spinning",
            "calls/eventfd",
            "eventfd",
            "empty call, both ends look before they sleep",
            goal=0.2,
        )
    ),
    *_everywhere(
        Row(
            "spin_vs_sleep", "us", "calls/spinning", "calls/asleep", "asleep", "the same two calls"
        ),
        one=1.3,
        none=1.1,
    ),
    *_everywhere(
        Row(
            "call_message",
            "us",
            "call_message",
            "eventfd",
            "eventfd",
            "call with 32 bytes",
            goal=1.2,
        )
    ),
    *_everywhere(
        Row(
            "call_vs_zmq",
            "us",
            "message_and_zmq/sbe",
            "message_and_zmq/zmq",
            "pyzmq",
            "call with 32 bytes",
        )
    ),
    *_everywhere(
        Row("call_vs_pipe", "us", "call_message", "pipe", "Pipe", "call with 32 bytes"),
    ),
    *_everywhere(
        Row(
            "call_vs_seqpacket",
            "us",
            "call_message",
            "seqpacket",
            "seqpacket",
            "call with 32 bytes",
        )
    ),
    Row(
        "call_vs_iceoryx2",
        "us",
        "call_message_spin",
        "iceoryx2",
        "iceoryx2",
        "call with 32 bytes, spinning as iceoryx2 does",
        goal=0.4,
    ),
    *_everywhere(
        Row(
            "batch_calls",
            "calls/s",
            "batch",
            "core_calls",
            "C core",
            "batch form, two buffers each; the core alone in two processes",
            goal=0.6,
            higher_is_better=True,
        )
    ),
    Row(
        "batch_calls_per_trip",
        "calls/s",
        "batch",
        "eventfd/rate",
        "eventfd trips/s",
        "the same, counted in ping-pongs: 10 are 1 M/s where one takes 10 us",
        goal=10.0,
        higher_is_better=True,
    ),
    *_everywhere(
        Row(
            "submit_calls",
            "calls/s",
            "submit",
            "eventfd/rate",
            "eventfd trips/s",
            f"submit and collect, {ours.IN_FLIGHT} in flight; 2.5 are 250 k/s on that scale",
            goal=2.5,
            higher_is_better=True,
        )
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
        goal=1.1,
    ),
    Row(
        "crc_remote",
        "ms",
        "crc/remote",
        "crc/local",
        "the same, in-process",
        "crc32 of 64 MiB in the remote",
        goal=1.05,
    ),
    Row("crc_remote_vs_zlib", "ms", "crc/remote", "crc/zlib", "zlib in-process", "beside zlib's"),
    Row(
        "bulk_vs_pipe",
        "GB/s",
        "bulk",
        "pipe_bulk",
        "Pipe",
        "16 MiB handed over, inverted, and back",
        goal=8.0,
        higher_is_better=True,
    ),
    *_everywhere(
        Row(
            "packets_per_doorbell",
            "packets",
            "packets/per_doorbell",
            what="51,200 packets of 384 B, doorbells of both directions",
            goal=5_000.0,
            goal_on="value",
            higher_is_better=True,
        )
    ),
    *_everywhere(
        Row(
            "ring_packets",
            "packets/s",
            "packets/rate",
            what="the same packets, every byte compared",
            higher_is_better=True,
        )
    ),
    *_everywhere(
        Row(
            "ring_vs_asg",
            "GB/s",
            "packets/gbps",
            "asg",
            "original library",
            "the same packets, bytes a second, each compared where it lies",
            goal=1.5,
            higher_is_better=True,
        ),
        one=1.0,
        none=1.0,
    ),
    *_everywhere(
        Row(
            "ring_copied_vs_asg",
            "GB/s",
            "copied/gbps",
            "asg",
            "original library",
            "the same, each copied out first, as the original library always does",
            goal=1.5,
            higher_is_better=True,
        ),
        one=1.0,
        none=1.0,
    ),
    *_everywhere(
        Row(
            "asg_stream",
            "GB/s",
            "asg_stream/gbps",
            "asg",
            "original library",
            "the same packets as bytes of an ASG stream, the original's protocol at both ends",
            goal=1.0,
            higher_is_better=True,
        ),
        one=1.0,
        none=1.0,
    ),
]

_COSTS = [
    Row(
        "import_time",
        "ms",
        "sbe_import",
        "numpy_import",
        "import numpy",
        "`import sbe`",
        goal=0.5,
    ),
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
    _cost("cold_connect", "ms", "cold_connect", "connect and first call, daemon running", 3.0),
    _cost("alloc_register", "us", "allocate", "1 MiB allocated, mapped, registered, freed", 200.0),
    _cost("alloc_pool", "us", "suballocate", "4 KiB from a pool, and back", 3.0),
    Row(
        "parallel_threads",
        "calls/s",
        "parallel/threads",
        "parallel/shared",
        "one channel for all",
        "four threads of a process, each with a connection of its own",
        higher_is_better=True,
    ),
    Row(
        "parallel_processes",
        "calls/s",
        "parallel/processes",
        "parallel/shared",
        "four threads, one channel",
        "four processes, each with a connection of its own",
        goal=1.0,
        higher_is_better=True,
    ),
    Row(
        "scale_contexts",
        "us",
        "crowd/crowded",
        "crowd/alone",
        "one context",
        "call among 1,000 contexts and 10,000 areas",
        goal=1.15,
    ),
    _cost("scale_daemon_rss", "MB", "crowd/daemon_mb", "the daemon's memory with all these", 80.0),
    Row("scale_remote_rss", "MB", "crowd/remote_mb", what="and its remote's"),
    Row(
        "scale_connect",
        "us",
        "crowd/connect_crowded",
        "crowd/connect_alone",
        "one context",
        "a client comes and goes among these",
        goal=1.15,
    ),
    Row(
        "scale_allocate",
        "us",
        "crowd/allocate_crowded",
        "crowd/allocate_alone",
        "one context",
        "4 KiB allocated and freed among these",
        goal=1.15,
    ),
    Row(
        "scale_second_crowd",
        "MB",
        "crowds/second",
        "crowds/first",
        "after the first",
        "the daemon's memory after a second crowd of 1,000 clients has gone",
        goal=1.1,
    ),
    Row(
        "scale_tenth_crowd",
        "MB",
        "crowds/last",
        "crowds/second",
        "after the second",
        "and after the tenth",
        goal=1.05,
    ),
    _cost("idle", "ms", "idle/cpu", "CPU of client and remote without work", 0.0),
    _cost("idle_wakeups", "times", "idle/wakeups", "wake-ups of client and remote", 0.0),
    _cost("idle_daemon", "ms", "idle_daemon/cpu", "CPU of client, daemon and remote", 0.0),
    _cost("idle_daemon_wakeups", "times", "idle_daemon/wakeups", "wake-ups of all three", 0.0),
]


def _flows(key: str, unit: str, series: str, what: str, *, higher: bool = False) -> list[Row]:
    """A stream beside each other way for blocks to flow: KEY_vs_WAY, the series of both."""
    probe = key.removeprefix("stream_").partition("_")[0]
    return [
        Row(
            f"{key}_vs_{way}",
            unit,
            f"stream_{probe}/{series}",
            f"{probe}_{way}/{series}",
            name,
            what,
            higher_is_better=higher,
        )
        for way, name in (("pipe", "Pipe"), ("unix", "AF_UNIX"), ("iceoryx2", "iceoryx2"))
    ]


_AUDIO = "48 kHz stereo, 5 ms a period: CPU"


def _crowd_of_streams(suffix: str, way: str, *ends: str) -> list[Row]:
    """64 streams at once: what they lose, what they cost, how steady they are."""
    probe, key = f"stream_crowd{suffix}", f"stream_crowd{suffix}"
    return [
        _cost(f"{key}_xruns", "xruns", f"{probe}/xruns", f"64 streams at once{way}", 0.0),
        *(
            Row(f"{key}_cpu_{end}", "%", f"{probe}/{end}", what=f"CPU of the {end} for them")
            for end in ends
        ),
        Row(
            f"{key}_jitter",
            "us",
            f"{probe}/jitter",
            "timer",
            "bare timer",
            "how far from 5 ms two wake-ups for one of them are apart",
        ),
        _cost(f"{key}_doorbells", "a period", f"{probe}/doorbells", "doorbells of the remote", 1.0),
    ]


_STREAMS = [
    *_everywhere(
        Row(
            "stream_event",
            "us",
            "stream_events/event",
            "stream_events/eventfd",
            "eventfd",
            "the remote's stamp of a period to the application that has its event",
            goal=1.3,
        )
    ),
    *_flows("stream_audio_cpu", "ms/s", "both", f"{_AUDIO} of both ends"),
    *_flows("stream_audio_cpu_here", "ms/s", "here", f"{_AUDIO} of the application"),
    *_flows("stream_bulk", "GB/s", "gbps", "blocks of 480 kB, each byte read once", higher=True),
    *_flows(
        "stream_bulk_per_cpu",
        "GB/s",
        "per_cpu",
        "the same, for a second of CPU time of both ends",
        higher=True,
    ),
    *_crowd_of_streams("", "", "client", "remote"),
    *_crowd_of_streams("_daemon", ", through the daemon", "client", "remote", "daemon"),
    _cost(
        "stream_no_period_doorbells",
        "doorbells",
        "stream_no_periods",
        "doorbells of the remote for a stream without periods",
        0.0,
    ),
]

_PARTS = [
    _part("part_host_python", "us", "call_alone", what="link.call() whose answer is there already"),
    _part("part_host_core", "us", "core_alone/host", what="the C core's own part of it"),
    _part("part_remote_core", "us", "core_alone/remote", what="the remote's engine and echo"),
    _part("part_bell", "us", "core_trip/write", what="one doorbell write that wakes a sleeper, C"),
    _part("part_trip", "us", "core_trip", what="bare eventfds there and back, C"),
    _part("part_core_call", "us", "core_call", what="a sleeping call of the C core, no Python"),
    _part(
        "part_host_syscalls", "a call", "syscalls/host", what="system calls of a sleeping call here"
    ),
    _part("part_remote_syscalls", "a call", "syscalls/remote", what="the same at the remote"),
]

ROWS: list[Row] = [*_FLOORS, *_PEERS, *_CALLS, *_DATA, *_COSTS, *_STREAMS, *ninep.ROWS, *_PARTS]
KERNEL_ROWS = kernel.ROWS
