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
from multiprocessing.connection import Connection
from typing import Any


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
    """An open request/response service and its message type.

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
    node = builder.create(library.ServiceType.Ipc)
    opener = node.service_builder(library.ServiceName.new(name)).request_response(message, message)
    return opener.open_or_create(), message


KINDS = {
    function.__name__: function
    for function in (eventfd, seqpacket, pipe, pipe_bulk, pipe_crc, zmq, iceoryx2)
}

if __name__ == "__main__":
    with contextlib.suppress(EOFError, ConnectionError):  # the near end has left
        KINDS[sys.argv[1]](*sys.argv[2:])
