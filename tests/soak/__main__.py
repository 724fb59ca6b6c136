"""`python -m tests.soak`: 0 when all is accounted for."""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.runner import PLACES, Soak
from tests.soak.table import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=None, help="by default a new one")
    parser.add_argument(
        "--kinds", default=",".join(PLACES), help=f"a client for each, of {', '.join(KINDS)}"
    )
    parser.add_argument("--json", type=Path, help="where calls by kind and deeds are written to")
    options = parser.parse_args()
    places = tuple(options.kinds.split(","))
    if unknown := {*places} - {*KINDS}:
        parser.error(f"no kinds of clients: {', '.join(sorted(unknown))}")
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="sbe-soak-"))
    soak = Soak(folder, seed, places)
    try:
        soak.run(60 * options.minutes)
    except BaseException as error:
        print(f"seed {seed}: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"logs of the daemon and of all clients are in {folder}", file=sys.stderr)
        if isinstance(error, AssertionError):
            return 1
        raise
    if options.json is not None:
        found = {"calls": soak.by_kind("calls"), "deeds": soak.deeds, "rounds": soak.rounds}
        by_kind = ("quota", "restarted", "audits", "streams", "stream_bytes", "stream_lost")
        found |= {field: soak.by_kind(field) for field in by_kind}
        options.json.write_text(json.dumps(found))
    shutil.rmtree(folder)
    print(f"seed {seed}: all is accounted for")
    return 0


if __name__ == "__main__":
    sys.exit(main())
