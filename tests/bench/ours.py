"""The same jobs through the SDK."""

from __future__ import annotations

import importlib
import os
import sys
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import floors, peers, procs, programs
from tests.bench.floors import PACE_S, import_ms, import_rss_mb
from tests.bench.model import (
    BLOCK_BYTES,
    MESSAGE,
    Probe,
    Result,
    Settings,
    UnavailableError,
    require,
)

LIMIT_S = 10.0
"""Deadline of every call: a lost answer fails its row, it does not hang the run."""

IN_FLIGHT = 32
"""Calls in flight in the submit loop; well inside the smallest ring that is negotiated."""

SPIN_S = 1e-4
"""How long the spinning rows look before they sleep; longer than any call of theirs."""

_BATCH = 5_000
_LARGE_BYTES = 64 << 20
_SMALL_BYTES = 4 << 10
_SETTLE_S = 0.5


def require_sbe() -> Any:
    try:
        return importlib.import_module("sbe")
    except ImportError as error:
        raise UnavailableError(f"SBE is not built here ({error})") from error


def remotes(pid: int) -> list[int]:
    """The embedded remotes that process `pid` started, itself or through a daemon."""
    found = procs.descendants(pid, "sbe-remote")
    if not found:
        raise UnavailableError(f"no process called sbe-remote below {pid}")
    return found


@contextmanager
def embedded(settings: Settings, spin_s: float = 0.0) -> Iterator[tuple[Any, Any]]:
    """The SDK and a link to an embedded remote of its own, the two ends on two cores."""
    sbe = require_sbe()
    with sbe.connect("loopback:", spin_s=spin_s) as link:
        link.call("echo", timeout=LIMIT_S)
        procs.place(settings, remotes(os.getpid()))
        yield sbe, link


@contextmanager
def daemon(settings: Settings, name: str = "daemon", config: str = "") -> Iterator[tuple[str, int]]:
    """A daemon with its own remote: the address to connect to, and its pid."""
    require_sbe()
    path = Path(settings.work, name, "sbe.socket")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-P", "-m", "sbe.daemon", "--socket", str(path)]
    if config:
        file = path.with_name("daemon.toml")
        file.write_text(config)
        command += ["--config", str(file)]
    log = Path(settings.work, f"{name}.log")
    with log.open("wb") as stream, procs.child(command, stderr=stream.fileno()) as process:
        patience = time.monotonic() + procs.READY_S
        while not path.exists():
            if process.poll() is not None or time.monotonic() > patience:
                reason = procs.last_line(log.read_text(errors="replace"))
                raise UnavailableError(f"sbe-daemon did not open its socket: {reason}")
            time.sleep(0.01)
        yield f"unix:{path}", process.pid


def _calls(settings: Settings, payload: bytes, pause_s: float = 0.0, spin_s: float = 0.0) -> Result:
    with embedded(settings, spin_s) as (_, link):
        step = _echo(link, payload)
        calls = settings.calls // 5 if pause_s else settings.calls
        with _sleeps(calls, remotes(os.getpid())) as note:
            samples = procs.timed(step, calls, pause_s)
    return Result.of(samples, note[0])


def _echo(link: Any, payload: bytes = b"") -> Callable[[], object]:
    """A call that carries `payload` there and back."""

    def step() -> object:
        return link.call("echo", payload=payload, timeout=LIMIT_S)

    reply = link.call("echo", payload=payload, timeout=LIMIT_S)
    if bytes(reply.payload) != payload:
        raise RuntimeError("echo returned something else")
    return step


@contextmanager
def _sleeps(calls: int, pids: Collection[int]) -> Iterator[list[str]]:
    """A note how often the remote slept in the block: that many calls, and a tenth to warm up."""
    note: list[str] = []
    before = procs.sleeps(pids)
    yield note
    slept = (procs.sleeps(pids) - before) / (calls + max(1, calls // 10))
    note.append(f"the remote went to sleep {slept:.2f} times a call")


def calls(settings: Settings) -> Result:
    """Empty calls with both ends asleep between, the same with both looking first, and their floor,
    in turns. The note proves that one remote really slept, and was woken, each time."""
    with embedded(settings) as (_, asleep):
        sleeper = remotes(os.getpid())
        with (
            embedded(settings, SPIN_S) as (_, spinning),
            floors.eventfd_step(settings) as trip,
            _sleeps(settings.calls, sleeper) as slept,
            _sleeps(settings.calls, set(remotes(os.getpid())) - set(sleeper)) as looked,
        ):
            steps = {"asleep": _echo(asleep), "spinning": _echo(spinning), "eventfd": trip}
            samples = procs.alternated(steps, settings.calls)
    return Result(samples, f"measured in turns; {slept[0]}; where it looks first, {looked[0]}")


def call_message(settings: Settings) -> Result:
    """A call that carries what the small-message peers carry."""
    return _calls(settings, MESSAGE)


def message_and_zmq(settings: Settings) -> Result:
    """That call and pyzmq's in turns, for their ratio."""
    with embedded(settings) as (_, link), peers.zmq_step(settings) as other:
        steps = {"sbe": _echo(link, MESSAGE), "zmq": other}
        with _sleeps(settings.calls, remotes(os.getpid())) as note:
            samples = procs.alternated(steps, settings.calls)
    return Result(samples, f"measured in turns; {note[0]}")


def call_paced(settings: Settings) -> Result:
    return _calls(settings, b"", PACE_S)


def call_message_spin(settings: Settings) -> Result:
    return _calls(settings, MESSAGE, spin_s=SPIN_S)


def batch(settings: Settings) -> Result:
    """Calls a second of the batch form, two buffers each."""
    numpy = require("numpy")
    with embedded(settings) as (sbe, link):
        area = link.allocate(1 << 20)
        descriptors = numpy.empty((_BATCH, 2), sbe.buffer_dtype())
        descriptors[:, 0] = area.descriptors(sbe.In, numpy.arange(_BATCH) * 128, 64)
        descriptors[:, 1] = area.descriptors(sbe.Out, numpy.arange(_BATCH) * 128 + 64, 64)

        def step() -> None:
            link.batch("echo", descriptors, timeout=LIMIT_S).check()

        samples = procs.timed(step, max(settings.calls // 200, 10))
    return Result.of([_BATCH * 1e6 / sample for sample in samples])


def submit(settings: Settings) -> Result:
    """Calls a second of a plain submit-and-collect loop, IN_FLIGHT at a time."""
    with embedded(settings) as (_, link):

        def step() -> None:
            futures = [link.submit("echo") for _ in range(IN_FLIGHT)]
            for future in futures:
                future.result(LIMIT_S)

        samples = procs.timed(step, settings.calls // IN_FLIGHT)
    return Result.of([IN_FLIGHT * 1e6 / sample for sample in samples])


def by_reference(settings: Settings) -> Result:
    """Calls with a large and a small buffer that the service leaves alone, turn by turn."""
    with embedded(settings) as (sbe, link):
        area = link.allocate(_LARGE_BYTES)
        with memoryview(area) as view:
            view[:] = b"\x5a" * _LARGE_BYTES

        def step(size: int) -> Callable[[], object]:
            return lambda: link.call("echo", sbe.In(area[:size]), timeout=LIMIT_S)

        large, small = step(_LARGE_BYTES), step(_SMALL_BYTES)
        return Result(alternate(settings.calls // 2, {"large": large, "small": small}))


def crc(settings: Settings) -> Result:
    """Milliseconds of crc32 over 64 MiB: in the remote, by the same code in a process of its own
    that asks nobody, and by zlib in this process."""
    with embedded(settings) as (sbe, link):
        area = link.allocate(_LARGE_BYTES)
        with memoryview(area) as view:
            view[:] = os.urandom(1 << 20) * (_LARGE_BYTES >> 20)

            def remote() -> bytes:
                reply = link.call("crc32", sbe.In(area[:_LARGE_BYTES]), timeout=LIMIT_S)
                return bytes(reply.payload)

            if int.from_bytes(remote(), "little") != zlib.crc32(view):
                raise RuntimeError("the remote's crc32 differs from zlib's")
            turn = {"remote": remote, "zlib": lambda: zlib.crc32(view)}
            milliseconds: dict[str, list[float]] = {"local": []}
            for _ in range(settings.blocks):
                for name, step in turn.items():  # the second of two: the C program warms up too
                    milliseconds.setdefault(name, []).append(alternate(2, {"": step})[""][1] / 1e3)
                far = programs.cores(settings)[1]  # where the remote is
                [[local]] = programs.run(settings, "ring_bench", "crc", far, far, "1")
                milliseconds["local"].append(local)
    return Result(milliseconds)


def caller(link: Any, service: str, *buffers: Any) -> Callable[[], object]:
    """A step that makes this call."""
    return lambda: link.call(service, *buffers, timeout=LIMIT_S)


def alternate(calls: int, steps: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Microseconds of several steps taken in turn, so that all see the same machine."""
    series: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(calls):
        for name, step in steps.items():
            begin = time.perf_counter_ns()
            step()
            series[name].append((time.perf_counter_ns() - begin) / 1e3)
    return series


def bulk(settings: Settings) -> Result:
    """A block handed over, inverted in place by the remote, and back."""
    with embedded(settings) as (sbe, link):
        area = link.allocate(BLOCK_BYTES)
        with memoryview(area) as view:
            view[:] = b"\x5a" * BLOCK_BYTES

        def step() -> None:
            link.call("invert", sbe.InOut(area[:BLOCK_BYTES]), timeout=LIMIT_S)

        step()
        with memoryview(area) as view:
            if bytes(view).count(0xA5) != BLOCK_BYTES:
                raise RuntimeError("the block did not come back inverted")
        samples = procs.timed(step, settings.blocks)
    return Result.of(procs.gigabytes_per_second(BLOCK_BYTES, samples))


def sbe_import(settings: Settings) -> Result:
    require_sbe()
    import_ms("sbe")  # the first one may read from disk
    return Result.of([import_ms("sbe") for _ in range(settings.starts)])


def sbe_rss(settings: Settings) -> Result:
    require_sbe()
    bare = import_rss_mb("sys")
    return Result.of([import_rss_mb("sbe") - bare for _ in range(settings.starts)])


def remote_rss(settings: Settings) -> Result:
    with embedded(settings):
        return Result.of([procs.rss_mb(pid) for pid in remotes(os.getpid())])


def daemon_rss(settings: Settings) -> Result:
    """The daemon alone, without its remote, while it serves one client."""
    with daemon(settings) as (address, pid), require_sbe().connect(address) as link:
        link.call("echo", timeout=LIMIT_S)
        return Result.of([procs.rss_mb(pid)])


def cold_connect(settings: Settings) -> Result:
    """Milliseconds of connect, context, channel and first call while the daemon runs already."""
    sbe = require_sbe()
    with daemon(settings) as (address, _):

        def step() -> float:
            begin = time.perf_counter_ns()
            with sbe.connect(address) as link:
                link.call("echo", timeout=LIMIT_S)
                return (time.perf_counter_ns() - begin) / 1e6

        step()
        return Result.of([step() for _ in range(20 * settings.starts)])


def allocate(settings: Settings) -> Result:
    """Microseconds of an area of 1 MiB: allocated, mapped, registered, and freed again."""
    with embedded(settings) as (_, link):

        def step() -> None:
            link.allocate(1 << 20).free()

        return Result.of(procs.timed(step, settings.calls // 10))


def suballocate(settings: Settings) -> Result:
    """Microseconds of 4 KiB from a pool over an area, taken and given back."""
    with embedded(settings) as (sbe, link):
        pool = sbe.Pool(link.allocate(1 << 20))
        kept = [pool.allocate(4096) for _ in range(100)]  # not the only one in use

        def step() -> None:
            pool.free(pool.allocate(4096))

        samples = procs.timed(step, settings.calls)
        for piece in kept:
            pool.free(piece)
    return Result.of(samples)


_IDLE_CLIENT = (
    "import sbe\n"
    f"with sbe.connect(sys.argv[1]) as link:\n    link.call('echo', timeout={LIMIT_S})\n"
    "    print('connected', flush=True)\n    sys.stdin.read()\n"
)


def idle(settings: Settings) -> Result:
    """CPU time and sleeps of a connected client and its remote while nobody asks for anything."""
    require_sbe()
    with procs.child(procs.python(_IDLE_CLIENT, "loopback:")) as client:
        procs.await_line(client)
        return _idle([client.pid, *remotes(client.pid)], settings)


def idle_daemon(settings: Settings) -> Result:
    """The same with a daemon between them."""
    with (
        daemon(settings) as (address, pid),
        procs.child(procs.python(_IDLE_CLIENT, address)) as client,
    ):
        procs.await_line(client)
        return _idle([client.pid, pid, *remotes(pid)], settings)


def _idle(pids: list[int], settings: Settings) -> Result:
    time.sleep(_SETTLE_S)
    cpu, slept = procs.cpu_ms(pids), procs.sleeps(pids)
    time.sleep(settings.idle_s)
    series = {
        "cpu": [procs.cpu_ms(pids) - cpu],
        "wakeups": [float(procs.sleeps(pids) - slept)],
    }
    return Result(series, f"over {settings.idle_s:g} s, {len(pids)} processes")


PROBES = {
    "calls": Probe(calls),
    "call_message": Probe(call_message),
    "message_and_zmq": Probe(message_and_zmq),
    "call_paced": Probe(call_paced),
    "call_message_spin": Probe(call_message_spin),
    "batch": Probe(batch),
    "submit": Probe(submit),
    "by_reference": Probe(by_reference),
    "crc": Probe(crc),
    "bulk": Probe(bulk),
    "sbe_import": Probe(sbe_import),
    "sbe_rss": Probe(sbe_rss),
    "remote_rss": Probe(remote_rss),
    "daemon_rss": Probe(daemon_rss),
    "cold_connect": Probe(cold_connect),
    "allocate": Probe(allocate),
    "suballocate": Probe(suballocate),
    "idle": Probe(idle, once=True),
    "idle_daemon": Probe(idle_daemon, once=True),
}
