"""SBE over a real kernel's rpmsg beside rpmsg alone. These probes run in the rig's guest."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import procs, programs
from tests.bench.model import MESSAGE, Probe, Result, Row, Settings, UnavailableError
from tests.bench.ours import LIMIT_S, require_sbe

__all__ = ["PROBES", "ROWS", "inside", "run_inside"]

FRAGMENT_BYTES = 496
"""What one rpmsg message carries: buffers of 512 bytes less a header of 16."""

PROGRAM = "rpmsg_end"
GUEST_LIMIT_S = 900.0

_BLOCK = bytes(range(256)) * 4096  # 1 MiB


def inside() -> bool:
    """This process runs in the rig's guest."""
    return "SBE_RIG_GUEST" in os.environ


def run_inside(build: Path, arguments: Sequence[str]) -> int:
    """Run this benchmark with these arguments in the rig's guest; its exit status."""
    from tests.rigs.kernel import guest

    try:
        folder = guest.build()
        programs.build(build, PROGRAM)  # quicker here than in there
        command = [sys.executable, "-m", "tests.bench", *arguments]
        result = guest.run(folder, command, timeout_s=GUEST_LIMIT_S)
    except (guest.RigMissing, guest.GuestDied, UnavailableError) as error:
        print(error, file=sys.stderr)
        return 1
    print(result.output, end="")
    for line in result.faults:
        print(f"kernel: {line}", file=sys.stderr)
    return result.status or (1 if result.faults else 0)


@contextmanager
def _processor(settings: Settings, program: Path | None = None) -> Iterator[Any]:
    """A remote processor that runs this program, else sbe-remote-rpmsg; the rig's `parts`."""
    require_sbe()
    if not inside():
        raise UnavailableError("runs in the rig's kernel: make bench-kernel")
    from sbe.kernel import remoteproc
    from tests.rigs.kernel import parts

    work = Path(settings.work)
    parts.make_firmware(work)
    for module in ("sbe_dmabuf", "sbe_userproc"):  # the guest ends with them
        if not Path("/sys/module", module).exists():
            parts.insert(module)
    with parts.core_process(program=program or parts.REMOTE):
        processor = remoteproc.find(parts.NAME)
        processor.start()
        try:
            yield parts
        finally:
            processor.stop()


@contextmanager
def _endpoint(settings: Settings) -> Iterator[int]:
    """A blocking descriptor of rpmsg_char; rpmsg_end.c is at the other end."""
    program = programs.build(Path(settings.build), PROGRAM)
    with _processor(settings, program) as parts:
        from sbe.kernel import rpmsg

        service = parts.wait_for_service("sbe-bench")
        fd = rpmsg.create_endpoint(service.control, "bench", service.destination)
        os.set_blocking(fd, True)
        try:
            yield fd
        finally:
            rpmsg.destroy_endpoint(fd)


@contextmanager
def _connection(settings: Settings) -> Iterator[Any]:
    with _processor(settings) as parts:
        from sbe.remotes.rpmsg import RpmsgRemote
        from sbe.sdk.connection import Connection
        from sbe.sdk.direct import DirectBackend

        parts.wait_for_service("sbe-doorbell")
        with Connection(DirectBackend(LIMIT_S, RpmsgRemote(parts.NAME))) as connection:
            yield connection


def bare_echo(settings: Settings) -> Result:
    """A message to the other end and back, with nothing but write and read."""
    with _endpoint(settings) as fd:

        def step() -> None:
            os.write(fd, MESSAGE)
            os.read(fd, FRAGMENT_BYTES)

        return Result.of(procs.timed(step, settings.calls))


def bare_blocks(settings: Settings) -> Result:
    """A block in fragments, put together at the other end, which answers the last one."""
    view = memoryview(_BLOCK)
    fragments = [
        view[start : start + FRAGMENT_BYTES] for start in range(0, len(view), FRAGMENT_BYTES)
    ]
    if len(fragments[-1]) == FRAGMENT_BYTES:
        raise RuntimeError("the last fragment has to be a short one: it asks for the answer")
    with _endpoint(settings) as fd:

        def step() -> None:
            for fragment in fragments:
                os.write(fd, fragment)
            os.read(fd, FRAGMENT_BYTES)

        samples = procs.timed(step, settings.blocks)
    return Result.of([len(_BLOCK) / sample for sample in samples])


def call(settings: Settings) -> Result:
    """The same message as the payload of a call."""
    with _connection(settings) as connection:

        def step() -> object:
            return connection.call("echo", payload=MESSAGE, timeout=LIMIT_S)

        return Result.of(procs.timed(step, settings.calls))


def blocks(settings: Settings) -> Result:
    """A block put into an area by this end and copied out of it by the other one."""
    with _connection(settings) as connection:
        sbe = require_sbe()
        given, kept = connection.allocate(len(_BLOCK)), connection.allocate(len(_BLOCK))

        def step() -> None:
            given[:] = _BLOCK
            connection.call("copy", sbe.In(given), sbe.Out(kept), timeout=LIMIT_S)

        samples = procs.timed(step, settings.blocks * 10)
        if bytes(kept) != _BLOCK:
            raise RuntimeError("the block did not arrive as it was sent")
    return Result.of([len(_BLOCK) / sample for sample in samples])


PROBES = {
    "rpmsg_echo": Probe(bare_echo),
    "rpmsg_blocks": Probe(bare_blocks, limit_s=120.0),
    "rpmsg_call": Probe(call),
    "rpmsg_area_blocks": Probe(blocks),
}

ROWS = [
    Row(
        "rpmsg_call_vs_echo",
        "us",
        "rpmsg_call",
        "rpmsg_echo",
        "rpmsg_char",
        "call with 32 bytes; the same bytes written and read bare",
        goal=1.3,
    ),
    Row(
        "rpmsg_blocks_vs_fragments",
        "MB/s",
        "rpmsg_area_blocks",
        "rpmsg_blocks",
        "rpmsg_char",
        "1 MiB handed over in an area; the same in messages of 496 bytes",
        goal=50.0,
        higher_is_better=True,
    ),
]
"""Of build/bench-kernel.json."""
