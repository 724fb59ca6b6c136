"""A process that has imported everything and forks who is to be killed: a client or a daemon.

    python -m tests.deaths.zygote

Reads a JSON line for each order and answers with one: {"as": "client", "uri": ..., "log": ...} or
{"as": "daemon", "arguments": [...], "log": ...} with the child's number, {"wait": number} with its
status. A child is known to the gate by what it is, so that nothing else is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from typing import Any

import sbe.daemon.app
from tests.deaths.exchange import Exchange

WRONG = 3  # a client's status after a wrong answer


def be(name: str) -> None:
    """The program's name from now on, as the gate sees it."""
    libc = ctypes.CDLL(None)
    be.kept = ctypes.create_string_buffer(name.encode())  # type: ignore[attr-defined]
    place = ctypes.c_void_p.in_dll(libc, "program_invocation_short_name")
    place.value = ctypes.addressof(be.kept)  # type: ignore[attr-defined]


def life(order: dict[str, Any]) -> int:
    """Of a child; its exit status."""
    with open(order["log"], "ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    be(order["as"])
    if order["as"] == "daemon":
        return sbe.daemon.app.main(order["arguments"])
    Exchange(order["uri"], lambda error: False).run()
    return 0


def fork(order: dict[str, Any]) -> int:
    """The child's number."""
    child = os.fork()
    if child:
        return child
    status = WRONG
    try:
        status = life(order)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        else:
            answer = fork(order)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
