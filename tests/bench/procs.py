"""Children of the benchmark: bounded in time, placed on a core, and ended by their own id."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.model import ROOT, Settings, UnavailableError
from tests.children import end_with_parent

ENDS = Path(__file__).with_name("ends.py")
READY_S = 20.0
_TURN = 200  # steps in a row of one side, where two alternate
_CPUS = sorted(os.sched_getaffinity(0))  # before anything is placed; a probe may place twice

# The checkout goes to the end of sys.path: an installed `sbe` must win over the bare source tree,
# which has no compiled extension.
_PRELUDE = f"import sys; sys.path.append({str(ROOT)!r})\n"


def python(code: str, *arguments: str) -> list[str]:
    """The command line of a fresh interpreter that can import both `sbe` and `tests`."""
    return [sys.executable, "-P", "-c", _PRELUDE + code, *arguments]


@contextmanager
def child(
    command: Sequence[str], pass_fds: Sequence[int] = (), stderr: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child with stdin and stdout as pipes, ended when the block is left."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        pass_fds=pass_fds,
        preexec_fn=end_with_parent,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], patience_s: float = 2.0) -> None:
    """Close its pipes, ask politely, then insist. Never leaves a zombie."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    for stop in (process.terminate, process.kill):
        if process.poll() is not None:
            return
        stop()
        try:
            process.wait(patience_s)
            return
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def await_line(process: subprocess.Popen[bytes], limit_s: float = READY_S) -> str:
    """The next line of a child's output; a child that dies or stays silent makes no row."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], limit_s)
    line = process.stdout.readline().decode().strip() if readable else ""
    if not line:
        raise UnavailableError(f"{process.args!r:.60} said nothing within {limit_s:g} s")
    return line


def run_python(code: str, limit_s: float = READY_S) -> str:
    """The output of a few lines in a fresh interpreter."""
    done = subprocess.run(
        python(code),
        check=False,
        capture_output=True,
        text=True,
        timeout=limit_s,
        preexec_fn=end_with_parent,
    )
    if done.returncode != 0:
        raise UnavailableError(last_line(done.stderr) or f"exit status {done.returncode}")
    return done.stdout


def last_line(text: str) -> str:
    """The line of a traceback that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def end_command(kind: str) -> list[str]:
    """The command line of the far end `kind` of ends.py, but for its arguments."""
    return [sys.executable, "-P", str(ENDS), kind]


@contextmanager
def far_end(
    settings: Settings, kind: str, *arguments: str, pass_fds: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """The far end `kind` of ends.py, ready and placed; this process is placed opposite."""
    with child([*end_command(kind), *arguments], pass_fds) as process:
        await_line(process)
        place(settings, [process.pid])
        yield process


def run_bounded(command: Sequence[str], limit_s: float, errors: Path) -> int | None:
    """Run a command in a process group of its own; its status, or None when time ran out.

    Whatever is left of the group is killed in either case. The leader is reaped only afterwards,
    so that its id can't have passed to anybody else by then.
    """
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    finished = False
    handle = os.pidfd_open(process.pid)
    try:
        finished = bool(select.select([handle], [], [], limit_s)[0])
    finally:
        os.close(handle)
        os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    return status if finished else None


def two_cores() -> tuple[int, int] | None:
    """Two CPUs on different cores where there are such; None on a single CPU."""
    if len(_CPUS) < 2:
        return None
    return _CPUS[0], next((cpu for cpu in _CPUS if cpu not in _siblings(_CPUS[0])), _CPUS[1])


def cores(settings: Settings) -> tuple[int, int] | None:
    """The CPUs of this end and of the far one; None leaves them to the scheduler."""
    match settings.placement:
        case "two":
            return two_cores()
        case "one":
            return _CPUS[0], _CPUS[0]
        case "none":
            return None


def _siblings(cpu: int) -> set[int]:
    """The hardware threads that share a core with `cpu`, itself included."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    found = {cpu}
    try:
        for part in path.read_text().strip().split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    except (OSError, ValueError):
        pass
    return found


def place(settings: Settings, far: Sequence[int]) -> None:
    """This thread and the processes `far` on the CPUs that the settings say.

    Two cores are how a host and its remote are. The scheduler decides otherwise as often as not:
    two ends that wake each other are quicker on one core, and they move between rounds. Probes
    place themselves only after their children started, since affinity is inherited.
    """
    pair = cores(settings)
    if pair is None:
        return
    os.sched_setaffinity(0, {pair[0]})
    for pid in far:
        for task in _tasks(pid):
            os.sched_setaffinity(int(task.name), {pair[1]})


def timed(step: Callable[[], object], calls: int, pause_s: float = 0.0) -> list[float]:
    """Microseconds of each of `calls` steps, after a tenth as many to warm up."""
    _warm_up(step, calls)
    return _samples(step, calls, pause_s)


def alternated(steps: Mapping[str, Callable[[], object]], calls: int) -> dict[str, list[float]]:
    """The same of several steps, in turns of a few milliseconds.

    On a virtual machine whatever sleeps and wakes costs up to a half more at times, as if somebody
    else used the other hyperthread of a core. That comes and goes several times a second: sides
    that are measured one after the other, seconds apart, do not see the same of it. Each turn
    begins with a step that does not count, while the side before may still be looking for more.
    """
    for step in steps.values():
        _warm_up(step, calls)
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for done in range(0, calls, _TURN):
        for name, step in steps.items():
            step()
            samples[name] += _samples(step, min(_TURN, calls - done))
    return samples


def _warm_up(step: Callable[[], object], calls: int) -> None:
    for _ in range(max(1, calls // 10)):
        step()


def _samples(step: Callable[[], object], calls: int, pause_s: float = 0.0) -> list[float]:
    clock = time.perf_counter_ns
    samples = []
    for _ in range(calls):
        if pause_s:
            time.sleep(pause_s)
        begin = clock()
        step()
        samples.append((clock() - begin) / 1e3)
    return samples


def gigabytes_per_second(size: int, samples_us: list[float]) -> list[float]:
    return [size / sample / 1e3 for sample in samples_us]


def rss_mb(pid: int) -> float:
    """Resident memory in MB (10^6 bytes); exact, where VmRSS lags by up to 64 pages a thread."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise UnavailableError("/proc/PID/smaps_rollup has no Rss line")


def descendants(pid: int, name: str) -> list[int]:
    """The processes called `name` below `pid`."""
    parents: dict[int, int] = {}
    named = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            command, _, fields = entry.read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        process = int(entry.parent.name)
        parents[process] = int(fields.split()[1])
        named += [process] if command == name else []
    return [process for process in named if _is_below(process, pid, parents)]


def _is_below(process: int, ancestor: int, parents: dict[int, int]) -> bool:
    while process in parents:
        process = parents[process]
        if process == ancestor:
            return True
    return False


def cpu_ms(pids: Sequence[int]) -> float:
    """CPU time used so far, user and system, of all threads."""
    total = 0.0
    for pid in pids:
        for task in _tasks(pid):
            try:
                total += int((task / "schedstat").read_text().split()[0]) / 1e6
            except FileNotFoundError:  # a kernel without it: ticks, mostly of 10 ms
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                total += ticks * 1e3 / os.sysconf("SC_CLK_TCK")
    return total


def sleeps(pids: Iterable[int]) -> int:
    """How often their threads went to sleep so far (each wake-up ends with one)."""
    total = 0
    for pid in pids:
        for task in _tasks(pid):
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    total += int(line.split()[1])
    return total


def _tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())
