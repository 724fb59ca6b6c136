"""The other way: a process at the end of a multiprocessing.Pipe, which gets copies.

`python -m sbe.cli.far_end FD WORK SIZE` answers each message with as many bytes, after WORK:
`echo` returns them as they came, `invert` flips every bit, as the service of that name does.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from sbe.host.descriptors import duplicate

__all__ = ["far_end"]


@contextlib.contextmanager
def far_end(work: str, size: int) -> Iterator[Connection[Any, Any]]:
    """This end of a pipe, with a process at the other that works; it has answered once."""
    near, far = Pipe()
    (fd,) = duplicate((far.fileno(),), "the other end's pipe")
    # -P: modules come from where ours do, not from whatever lies in this folder.
    module = ["-P", "-m", "sbe.cli.far_end"]
    command = [sys.executable, *module, str(fd), work, str(size)]
    # In a session of its own: Ctrl-C is for us, it ends with the pipe.
    try:
        process = subprocess.Popen(command, pass_fds=[fd], start_new_session=True)
    finally:
        os.close(fd)
        far.close()
    try:
        near.send_bytes(b"?")
        try:
            near.recv_bytes()
        except EOFError:
            raise RuntimeError("the process at the end of the pipe did not start") from None
        yield near
    finally:
        near.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _serve(pipe: Connection[Any, Any], work: str, size: int) -> None:
    buffer = memoryview(bytearray(size))
    pixels: Any = None
    if work == "invert":
        import numpy as np

        pixels = np.frombuffer(buffer, np.uint8)
        invert = np.invert
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            count = pipe.recv_bytes_into(buffer)
            if pixels is not None:
                invert(pixels[:count], out=pixels[:count])
            pipe.send_bytes(buffer[:count])


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), sys.argv[2], int(sys.argv[3]))
