"""Instructions of work for one of many, counted by callgrind: `python -m tests.bench.growth`.

growth.c drives the remote's end of a link over rpmsg, engine and all, beside `MANY` channels, kept
requests or contexts, and beside none. What is counted is the remote's work alone. CI holds the
ratio of the two, and where the core walks a table of its own (docs/design/core.md) what each other
entry adds. Of `inline`, which has no remote, the extension's work is counted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from tests.bench import procs, programs
from tests.bench.instructions import Profile, extension, profile
from tests.bench.model import ROOT, UnavailableError

MANY = 1_000
_ROUNDS = 200
_LINK = ("rpmsg_host_to_link", "rpmsg_host_run")


class Work(NamedTuple):
    """What growth.c can do, and how far it may grow: times as much, or instructions for each."""

    words: str
    ratio: float = 0.0
    each: float = 0.0


WORK = {
    "doorbell": Work("an empty call on one of so many channels", ratio=1.05),
    "private": Work("the same where rings are not shared", ratio=1.05),
    # A step for each bit that tells so many apart.
    "oldest": Work("a request kept, the oldest of so many answered", ratio=1.1),
    "newest": Work("the newest", ratio=1.1),
    "any": Work("any of them", ratio=1.1),
    "cancel": Work("any of them cancelled", ratio=1.1),
    "bind": Work("a channel opened, bound and closed beside so many", each=15),
    "inline": Work("a call whose buffer rides inline, in a process with so many links", ratio=1.15),
    "context": Work("a context with area and channel, beside so many with ten areas", each=60),
}


class Growth(NamedTuple):
    """Instructions of one round among many, and alone."""

    among: float
    alone: float

    @property
    def ratio(self) -> float:
        """How many times as many."""
        return self.among / self.alone

    @property
    def each(self) -> float:
        """How many for each of the others."""
        return (self.among - self.alone) / MANY

    def fault(self, work: str) -> str:
        """What is wrong with it, empty if nothing is."""
        wanted = WORK[work]
        right = self.ratio <= wanted.ratio if wanted.ratio else self.each <= wanted.each
        said = f"{work}: {self.among:,.0f} instructions among {MANY:,}, {self.alone:,.0f} alone"
        return "" if right else f"{said} ({wanted.words})"


def count(build: Path, work: str) -> Growth:
    """Both counts of this work."""
    if work == "inline":
        code = "from tests.bench.growth import scripted; scripted(*sys.argv[1:])"
        command = procs.python(code)
    else:
        command = [str(programs.build(build, "growth")), work]

    def rounds(many: int) -> float:
        one, two = (profile([*command, str(many), str(n * _ROUNDS)]) for n in (1, 2))
        return (_counted(two, work) - _counted(one, work)) / _ROUNDS

    return Growth(rounds(MANY), rounds(1))


def scripted(many: str, calls: str) -> None:
    """What runs under callgrind: calls answered in advance, beside the areas of so many links."""
    from sbe import In, _native
    from sbe.heaps.memfd import MemfdHeap
    from tests.bench.scripted import Script

    script, heap, areas = Script(), MemfdHeap(), []
    script.write(2 * _ROUNDS, together=False)
    for _ in range(int(many)):
        with heap.allocate(4096) as allocation:
            areas.append(_native.Memory(allocation.fd, 4096))
        _native.Table(1).add(areas[-1], 1 << 16, 1)
    buffer = In(b"inline")
    for answer in range(1, int(calls) + 1):
        script.head[0] = answer
        script.link.call("echo", buffer)
    script.link.close()


def _counted(found: Profile, work: str) -> int:
    if work == "inline":
        return extension(found)
    names = _LINK if work == "cancel" else (*_LINK, "sbe_kept_answer")
    return sum(found.inclusive[name] for name in names)


def main() -> int:
    faults = []
    for work, wanted in WORK.items():
        found = count(ROOT / "build", work)
        faults.append(found.fault(work))
        counts = f"{found.among:>8,.0f} {found.alone:>8,.0f}"
        print(f"{work:9}{counts} {found.ratio:>6.3f} {found.each:>6.2f}  {wanted.words}")
    print("\n".join(fault for fault in faults if fault) or "as flat as they should be")
    return int(any(faults))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UnavailableError as reason:
        sys.exit(str(reason))
