"""In a process of its own: every system call of every control operation fails or is interrupted.

argv: the link. Prints a line for each thing that is not as it should be, at last what was tried.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sbe
from sbe.errors import LinkError

_shim = ctypes.CDLL(None)
_shim.fail_disarm.restype = ctypes.c_char_p
TIMEOUT_S = 20.0  # of each operation; nothing waits that long
SETTLE_S = 10.0
MOST = 500  # system calls of one operation


class Way:
    """How a system call goes wrong."""

    def __init__(self, name: str, code: int, number: int) -> None:
        self.name, self.code, self.number = name, code, number

    def begin(self, which: int) -> None:
        _shim.fail_arm(which, self.code, self.number)


WAYS = [
    Way("no descriptors", errno.EMFILE, 0),
    Way("denied", errno.EPERM, 0),
    Way("interrupted", 0, signal.SIGINT),
]


def descriptors(pid: int | str) -> Counter[str]:
    """By what they are, without the numbers that tell one from another."""
    found: Counter[str] = Counter()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[re.sub(r"\[\d+\]|/\d+/", "", os.readlink(fd))] += 1
    return found


def mappings(pid: int | str) -> int:
    return Path(f"/proc/{pid}/maps").read_text().count("/memfd:")


def children() -> int:
    tasks = Path("/proc/self/task").glob("*/children")  # of any thread
    return sum(len(task.read_text().split()) for task in tasks)


class World:
    """The link that lives through all of it, and what there is of everything."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.link = sbe.connect(uri, timeout=TIMEOUT_S)

    def state(self) -> dict[str, Any]:
        gc.collect()
        listed = self.link.list()
        pid = listed["links"][0]["pid"]
        return {
            "descriptors": descriptors("self"),
            "mappings": mappings("self"),
            "children": children(),
            "areas": len(listed["areas"]),
            "channels": len(listed["channels"]),
            "contexts": len(listed["contexts"]),
            "services": sorted(item["name"] for item in listed["services"]),
            "remote's descriptors": sum(descriptors(pid).values()),
            "remote's mappings": mappings(pid),
        }

    def ready(self) -> dict[str, Any]:
        """What there is while nothing is going on."""
        with contextlib.suppress(LinkError):
            self.link.services()
        self.link.services()
        return self.state()

    def settled(self, like: dict[str, Any]) -> dict[str, Any]:
        """What there is once the ends have heard of each other."""
        until = time.monotonic() + SETTLE_S
        while True:
            with contextlib.suppress(LinkError):  # the call that finds the link lost
                state = self.state()
                if state == like or time.monotonic() > until:
                    return state
            time.sleep(0.002)

    # -- operations ----------------------------------------------------------------------------

    def connect(self) -> None:
        sbe.connect(self.uri, timeout=TIMEOUT_S).close()

    def allocate(self) -> None:
        area = self.link.allocate(8192)
        try:
            area.free()
        except BaseException:
            finish(area.free)
            raise

    def serve(self) -> None:
        try:
            self.link.serve("mine", lambda payload: payload)
            self.link.unserve("mine")
        except BaseException:
            if self.link._server.offers("mine"):
                finish(lambda: self.link.unserve("mine"))
            raise

    def ask(self) -> None:
        self.link.services()
        self.link.find("echo")
        self.link.stat()

    def power(self) -> None:
        try:
            self.link.request_frequency(0)
        except sbe.Error as error:
            if error.code != errno.EOPNOTSUPP:  # of the remote: it was asked
                raise

    def recover(self) -> None:
        self.link._core.channel.fail(sbe.RemoteRestarted("by the test"))
        self.link.services()


def finish(work: Callable[[], object]) -> None:
    """What failed halfway is done, now that nothing fails."""
    _disarmed.append(_shim.fail_disarm())
    work()


_disarmed: list[bytes | None] = []


def attempt(work: Callable[[], object], way: Way, which: int) -> tuple[str, BaseException | None]:
    """The call that failed, "" none; and what was raised."""
    raised: BaseException | None = None
    _disarmed.clear()
    way.begin(which)
    try:
        try:
            work()
        finally:
            for _ in range(3):  # Python looks for signals between loops
                pass
    except BaseException as error:
        raised = error.with_traceback(None)
    name = _shim.fail_disarm() or (_disarmed and _disarmed[0]) or b""
    if raised is not None:
        raised.__context__ = raised.__cause__ = None
    return name.decode(), raised


def is_right(raised: BaseException | None, way: Way) -> bool:
    if raised is None:
        return True
    if way.number:
        return isinstance(raised, KeyboardInterrupt)
    return isinstance(raised, (sbe.OutOfResources, LinkError, sbe.PermissionDenied))


def main() -> None:
    world = World(sys.argv[1])
    # The last one starts a thread, which then has a say in when a channel goes.
    works = [world.ask, world.allocate, world.power, world.recover, world.connect, world.serve]
    tried: Counter[str] = Counter()
    gc.collect()
    gc.freeze()
    for work in works:
        with contextlib.suppress(sbe.Error):
            work()  # what is made once is made
        for way in WAYS:
            for which in range(1, MOST):
                before = world.ready()
                name, raised = attempt(work, way, which)
                if not name and raised is None:
                    break
                where = f"{work.__name__}, {way.name}, call {which} ({name})"
                tried[f"{work.__name__} {way.name}"] += 1
                if not is_right(raised, way):
                    print(f"{where}: raised {raised!r}", flush=True)
                after = world.settled(before)
                if after != before:
                    changed = {key: (before[key], after[key]) for key in before}
                    changed = {key: pair for key, pair in changed.items() if pair[0] != pair[1]}
                    print(f"{where}: {changed} after {raised!r}", flush=True)
    world.link.close()
    print("tried", dict(tried), flush=True)


if __name__ == "__main__":
    main()
