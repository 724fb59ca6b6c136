"""The far end of each two-process probe, run as a script: `ends.py KIND ARGUMENTS`.

It imports only what its kind needs, says "ready", and answers until its peer ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

IN_FLIGHT = 16


def ready() -> None:
    print("ready", flush=True)


def eventfd(ring: str, answer: str) -> None:
    mine, theirs = int(ring), int(answer)
    ready()
    while True:
        os.eventfd_read(mine)
        os.eventfd_write(theirs, 1)


def seqpacket(fd: str) -> None:
    end = socket.socket(fileno=int(fd))
    ready()
    while message := end.recv(4096):
        end.send(message)


def pipe(fd: str) -> None:
    end: Connection[bytes, bytes] = Connection(int(fd))
    ready()
    while True:
        end.send_bytes(end.recv_bytes())


def pipe_bulk(fd: str, size: str) -> None:
    numpy: Any = importlib.import_module("numpy")
    end: Connection[bytes, bytes] = Connection(int(fd))
    block = bytearray(int(size))
    array = numpy.frombuffer(block, numpy.uint8)
    ready()
    while True:
        end.recv_bytes_into(block)
        numpy.invert(array, out=array)
        end.send_bytes(block)


def pipe_crc(fd: str) -> None:
    zlib: Any = importlib.import_module("zlib")
    end: Connection[bytes, bytes] = Connection(int(fd))
    ready()
    while True:
        end.send_bytes(zlib.crc32(end.recv_bytes()).to_bytes(4, "little"))


def zmq(address: str) -> None:
    library: Any = importlib.import_module("zmq")
    end = library.Context().socket(library.REP)
    end.bind(address)
    ready()
    while True:
        end.send(end.recv())


def iceoryx2(root: str, name: str, size: str) -> None:
    service, _ = iceoryx2_service(root, name, int(size))
    server = service.server_builder().create()
    ready()
    while True:
        request = server.receive()
        if request is not None:
            request.send_copy(request.payload().contents)
            request.delete()


def iceoryx2_service(root: str, name: str, size: int) -> tuple[Any, Any]:
    """An open request/response service and its message type."""
    _, node, message = _iceoryx2_node(root, name, size)
    opener = _iceoryx2_opener(node, name).request_response(message, message)
    return opener.open_or_create(), message


def iceoryx2_flow(root: str, name: str, size: int) -> tuple[Any, Any, Any]:
    """An open publish-subscribe service, the events that tell of its blocks, and how long to wait
    for one at most. The publisher waits for the reader, as a pipe's writer does."""
    library, node, message = _iceoryx2_node(root, name, size)
    blocks = _iceoryx2_opener(node, name).publish_subscribe(message).enable_safe_overflow(False)
    events = _iceoryx2_opener(node, name).event()
    return blocks.open_or_create(), events.open_or_create(), library.Duration.from_secs(1)


def _iceoryx2_opener(node: Any, name: str) -> Any:
    library: Any = importlib.import_module("iceoryx2")
    return node.service_builder(library.ServiceName.new(name))


def _iceoryx2_node(root: str, name: str, size: int) -> tuple[Any, Any, Any]:
    """The library, a node, and a message of so many bytes.

    Its files lie under `root` and its shared memory starts with `name`: nothing of another
    iceoryx2 on this machine is seen or disturbed.
    """
    library: Any = importlib.import_module("iceoryx2")
    library.set_log_level(library.LogLevel.Error)
    message = type("Message", (ctypes.Structure,), {"_fields_": [("data", ctypes.c_uint8 * size)]})
    config = library.config.default()
    places = config.global_cfg
    places.root_path = library.Path.new(f"{root}/")
    places.prefix = library.FileName.new(f"{name}_")
    mode = library.SignalHandlingMode.Disabled
    builder = library.NodeBuilder.new().config(config).signal_handling_mode(mode)
    return library, builder.create(library.ServiceType.Ipc), message


def beats(period_ns: int) -> Iterator[int]:
    """The times of a steady pace, each when it has come; 0: all at once."""
    due = time.monotonic_ns()
    while True:
        due += period_ns
        while period_ns and (now := time.monotonic_ns()) < due:
            time.sleep((due - now) / 1e9)
        yield due


def stamps(asked: str, told: str, period_ns: str) -> None:
    """As many events as are asked for, each with the time at which it was sent as its number."""
    mine, theirs = int(asked), int(told)
    ready()
    while True:
        for _, _ in zip(range(os.eventfd_read(mine)), beats(int(period_ns)), strict=False):
            os.eventfd_write(theirs, time.monotonic_ns())


def flow_pipe(fd: str, size: str, period_ns: str) -> None:
    end: Connection[bytes, bytes] = Connection(int(fd), readable=False)
    block = bytearray(int(size))
    ready()
    for _ in beats(int(period_ns)):
        end.send_bytes(block)


def flow_unix(fd: str, size: str, period_ns: str) -> None:
    end = socket.socket(fileno=int(fd))
    block = bytearray(int(size))
    ready()
    for _ in beats(int(period_ns)):
        end.sendall(block)


def flow_iceoryx2(root: str, name: str, size: str, period_ns: str) -> None:
    blocks, events, _ = iceoryx2_flow(root, name, int(size))
    publisher, notifier = blocks.publisher_builder().create(), events.notifier_builder().create()
    block = bytes(int(size))
    ready()
    for _ in beats(int(period_ns)):
        sample = publisher.loan_uninit()
        ctypes.memmove(sample.payload_ptr, block, len(block))
        sample.assume_init().send()
        notifier.notify()


def calls(link: Any, count: int) -> None:
    """Empty calls, some of them in flight at any time, as somebody makes them who wants many."""
    for _ in range(0, count, IN_FLIGHT):
        for call in [link.submit("echo", timeout=20.0) for _ in range(IN_FLIGHT)]:
            call.result()


def caller(address: str, count: str) -> None:
    """Makes its calls each time it is asked for them by a line."""
    sbe: Any = importlib.import_module("sbe")
    with sbe.connect(address) as link:
        ready()
        for _ in sys.stdin:
            calls(link, int(count))
            ready()


def ninep_bridge(fd: str) -> None:
    """A bridge of 9P in a process of its own, as the one of a mount is."""
    sbe: Any = importlib.import_module("sbe")
    with sbe.connect("loopback:") as link:
        bridge = link.bridge_9p(socket.socket(fileno=int(fd)))
        ready()
        bridge.run()


KINDS = {
    function.__name__: function
    for function in (
        eventfd,
        seqpacket,
        pipe,
        pipe_bulk,
        pipe_crc,
        zmq,
        iceoryx2,
        stamps,
        flow_pipe,
        flow_unix,
        flow_iceoryx2,
        caller,
        ninep_bridge,
    )
}

if __name__ == "__main__":
    with contextlib.suppress(EOFError, ConnectionError):  # the near end has left
        KINDS[sys.argv[1]](*sys.argv[2:])
