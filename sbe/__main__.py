"""`python -m sbe` is the command `sbe`."""

import sys

from sbe.cli import main

if __name__ == "__main__":
    sys.exit(main())
