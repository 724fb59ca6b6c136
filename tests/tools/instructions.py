"""Instructions of the firmware per call, counted on an emulated Cortex-M.

QEMU runs one instruction at a time and logs each: the counts are exact and the same every time. A
call is counted from the doorbell's interrupt to the last byte of the reply's doorbell, and on to
the next sleep. Needs qemu-system-arm and `make firmware`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import sbe
from sbe.remotes.boards import QemuBoard
from sbe.sdk.direct import DirectBackend

ROOT = Path(__file__).resolve().parents[2]
GOAL = 600
GOAL_BOARD = "mps2-an385"
_SLEEP_S = 0.1  # until the core sleeps again, so that each call wakes it
_TRACE = re.compile(r"^Trace \d+: 0x\w+ \[\w+/(\w+)/\w+/\w+\] ?(\S*)")


@dataclass(frozen=True)
class Cost:
    """Instructions of one call."""

    to_reply: int  # from the doorbell's interrupt to the reply's doorbell
    to_sleep: int  # on to the next WFI
    functions: dict[str, int]  # of those to the reply


def calls_in(log: Path) -> list[Cost]:
    """Split a log at each doorbell's interrupt; what it woke the core for."""
    costs: list[Cost] = []
    functions: list[str] | None = None
    reply = 0
    before = ""
    with open(log, errors="replace") as lines:
        for line in lines:
            found = _TRACE.match(line)
            if found is None:
                continue
            name = found[2]
            # Out of sleep; what interrupts the work on a doorbell belongs to it.
            if name == "uart_receive" and before == "main":
                if functions and reply and "echo" in functions:
                    costs.append(
                        Cost(reply, len(functions), dict(Counter(functions[:reply]).most_common()))
                    )
                functions, reply = [], 0
            if functions is not None:
                functions.append(name)
                if name == "uart_send_byte" and "echo" in functions:
                    reply = len(functions)
            before = name
    return costs


def measure(board: str, call: Callable[[sbe.Connection], object], count: int = 8) -> Cost:
    """Return the cost of a call in a warm link: the least of `count` calls."""
    with QemuBoard(board) as log_home:
        log = log_home.directory / "trace.log"
        emulated = QemuBoard(board, arguments=("-singlestep", "-d", "exec,nochain", "-D", str(log)))
        with sbe.Connection(DirectBackend(30.0, emulated)) as link:
            for _ in range(4 + count):
                call(link)
                time.sleep(_SLEEP_S)
            emulated.quit()
            costs = calls_in(log)
    # The slow core makes the host ring in between, to see whether it lives: the least is the call.
    return min(costs[-count:], key=lambda cost: (cost.to_reply, cost.to_sleep))


def empty(link: sbe.Connection) -> object:
    """Nothing there, nothing back."""
    return link.call("echo", timeout=30)


def one_buffer(link: sbe.Connection) -> object:
    """A descriptor of 64 bytes in an area, echoed untouched."""
    if not hasattr(link, "_measured"):
        link._measured = link.allocate(4096)  # type: ignore[attr-defined]
    return link.call("echo", sbe.InOut(link._measured[:64]), timeout=30)  # type: ignore[attr-defined]


CALLS = {"empty call": empty, "one buffer": one_buffer}


def main() -> int:
    """Print a table and write build/instructions.json."""
    parser = argparse.ArgumentParser(description="Instructions of the firmware per call.")
    parser.add_argument("boards", nargs="*", default=["mps2-an385", "mps2-an521"])
    parser.add_argument("--functions", action="store_true", help="say where they go")
    options = parser.parse_args()
    figures: dict[str, dict[str, object]] = {}
    for board in options.boards:
        for name, call in CALLS.items():
            cost = measure(board, call)
            figures.setdefault(board, {})[name] = asdict(cost)
            print(
                f"{board}: {name}: {cost.to_reply} instructions from doorbell to reply, "
                f"{cost.to_sleep} to the next sleep"
            )
            if options.functions:
                print("".join(f"  {n:5} {function}\n" for function, n in cost.functions.items()))
            if board == GOAL_BOARD and name == "empty call":
                word = "met" if cost.to_reply <= GOAL else f"MISSED by {cost.to_reply - GOAL}"
                print(f"GOAL {board} {name}: {cost.to_reply} of at most {GOAL}: {word}")
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "instructions.json").write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
