"""What people use today instead: each measured as its own documentation would have it used."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path

from tests.bench import procs
from tests.bench.ends import iceoryx2_service
from tests.bench.floors import import_ms, import_rss_mb
from tests.bench.model import (
    BLOCK_BYTES,
    MESSAGE,
    Probe,
    Result,
    Settings,
    UnavailableError,
    require,
)


def seqpacket(settings: Settings) -> Result:
    """An AF_UNIX SOCK_SEQPACKET pair: the kernel keeps the message's borders."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        near,
        far,
        procs.far_end(settings, "seqpacket", str(far.fileno()), pass_fds=[far.fileno()]),
    ):

        def step() -> bytes:
            near.send(MESSAGE)
            return near.recv(4096)

        return Result.of(procs.timed(step, settings.calls))


def pipe(settings: Settings) -> Result:
    """multiprocessing.Pipe with bytes: the faster of its two forms, nothing is pickled."""
    near, far = Pipe()
    with near, far, procs.far_end(settings, "pipe", str(far.fileno()), pass_fds=[far.fileno()]):

        def step() -> bytes:
            near.send_bytes(MESSAGE)
            return near.recv_bytes()

        return Result.of(procs.timed(step, settings.calls))


def pipe_bulk(settings: Settings) -> Result:
    """A block through the pipe, inverted over there, and back into the memory it came from."""
    require("numpy")
    near, far = Pipe()
    end = procs.far_end(
        settings, "pipe_bulk", str(far.fileno()), str(BLOCK_BYTES), pass_fds=[far.fileno()]
    )
    with near, far, end:
        block = bytearray(b"\x5a") * BLOCK_BYTES

        def step() -> None:
            near.send_bytes(block)
            near.recv_bytes_into(block)

        samples = procs.timed(step, settings.blocks)
    passes = settings.blocks + max(1, settings.blocks // 10)
    expected = 0x5A if passes % 2 == 0 else 0xA5
    if block.count(expected) != BLOCK_BYTES:
        raise RuntimeError("the block did not come back inverted")
    return Result.of(procs.gigabytes_per_second(BLOCK_BYTES, samples))


@contextmanager
def zmq_step(settings: Settings) -> Iterator[Callable[[], object]]:
    """A small message there and back by REQ/REP over ipc."""
    library = require("zmq", "pyzmq")
    address = f"ipc://{settings.work}/zmq"
    with (
        procs.far_end(settings, "zmq", address),
        library.Context() as context,
        context.socket(library.REQ) as near,
    ):
        near.linger = 0
        near.connect(address)

        def step() -> bytes:
            near.send(MESSAGE)
            reply: bytes = near.recv()
            return reply

        yield step


def zmq(settings: Settings) -> Result:
    """pyzmq REQ/REP over ipc."""
    with zmq_step(settings) as step:
        return Result.of(procs.timed(step, settings.calls))


def iceoryx2(settings: Settings) -> Result:
    """iceoryx2's request/response; both ends spin, since it has no blocking receive.

    send_copy: for a small message from Python it beats loan, write and send by a twentieth.
    """
    require("iceoryx2")
    pair = procs.cores(settings)
    if pair is None or pair[0] == pair[1]:
        raise UnavailableError("two ends that only ever spin need two CPUs, one each")
    name = f"bench{Path(settings.work).name.replace('-', '')}"
    size = len(MESSAGE)
    try:
        with procs.far_end(settings, "iceoryx2", settings.work, name, str(size)):
            service, message = iceoryx2_service(settings.work, name, size)
            client = service.client_builder().create()
            request = message.from_buffer_copy(MESSAGE)

            def step() -> bytes:
                pending = client.send_copy(request)
                while (response := pending.receive()) is None:
                    pass
                return bytes(response.payload().contents.data)

            samples = procs.timed(step, settings.calls)
    finally:
        for rest in Path("/dev/shm").glob(f"{name}_*"):  # the far end is ended, not asked
            rest.unlink(missing_ok=True)
    return Result.of(samples, "both ends spin: two cores fully busy")


def numpy_import(settings: Settings) -> Result:
    import_ms("numpy")  # the first one may read from disk
    return Result.of([import_ms("numpy") for _ in range(settings.starts)])


def numpy_rss(settings: Settings) -> Result:
    bare = import_rss_mb("sys")
    return Result.of([import_rss_mb("numpy") - bare for _ in range(settings.starts)])


PROBES = {
    "seqpacket": Probe(seqpacket),
    "pipe": Probe(pipe),
    "pipe_bulk": Probe(pipe_bulk),
    "zmq": Probe(zmq),
    "iceoryx2": Probe(iceoryx2),
    "numpy_import": Probe(numpy_import),
    "numpy_rss": Probe(numpy_rss),
}
