"""One probe in a process of its own: `python -m tests.bench.worker PROBE SETTINGS RESULT`.

So a probe that hangs can be killed whole, none inherits the memory, threads or placement of the
one before it, and the far ends of one probe are gone before the next one starts.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from tests.bench import procs
from tests.bench.model import Probe, Result, Settings, UnavailableError
from tests.bench.rows import PROBES


def main(arguments: list[str]) -> int:
    name, settings, target = arguments
    answer: dict[str, object]
    try:
        result = PROBES[name].run(Settings(**json.loads(settings)))
        answer = dataclasses.asdict(result)
    except UnavailableError as reason:
        answer = {"unavailable": str(reason)}
    Path(target).write_text(json.dumps(answer))
    return 0


def measure(name: str, probe: Probe, settings: Settings) -> Result:
    """Run the probe as above; UnavailableError for every way in which it can fail to answer."""
    with tempfile.TemporaryDirectory(prefix="sbe-bench-") as work:
        target, errors = Path(work, "result.json"), Path(work, "errors.txt")
        asked = json.dumps(dataclasses.asdict(dataclasses.replace(settings, work=work)))
        code = "from tests.bench.worker import main; sys.exit(main(sys.argv[1:]))"
        command = procs.python(code, name, asked, str(target))
        status = procs.run_bounded(command, probe.limit_s + settings.seconds, errors)
        if status is None:
            raise UnavailableError(f"gave no answer within {probe.limit_s + settings.seconds:g} s")
        if status != 0 or not target.exists():
            reason = procs.last_line(errors.read_text(errors="replace"))
            raise UnavailableError(f"failed: {reason or f'exit status {status}'}")
        answer = json.loads(target.read_text())
    if "unavailable" in answer:
        raise UnavailableError(answer["unavailable"])
    return Result(answer["series"], answer["note"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
