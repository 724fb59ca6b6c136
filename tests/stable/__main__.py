"""Shows what differs from the record, or adopts it."""

from __future__ import annotations

import argparse
import sys

from tests.stable import __doc__ as text
from tests.stable.record import PARTS, adopt, difference


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.stable", description=text, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--adopt", action="store_true", help="write the record anew")
    adopting = parser.parse_args().adopt
    changed = 0
    for name in PARTS:
        if adopting:
            adopt(name)
            continue
        for line in difference(name):
            print(f"{name}: {line}")
            changed = 1
    return changed


if __name__ == "__main__":
    sys.exit(main())
