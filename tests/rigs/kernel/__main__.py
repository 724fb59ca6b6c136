# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.rigs.kernel COMMAND...` runs a command in the guest.

The kernel is built first where there is none.
"""

import argparse
import sys

from tests.rigs.kernel import guest


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.kernel", description=__doc__)
    parser.add_argument("--build", action="store_true", help="only build the kernel")
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS")
    parser.add_argument("--leaks", action="store_true", help="scan for leaked kernel memory (5 s)")
    parser.add_argument("--log", action="store_true", help="print the kernel's log")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    try:
        kernel = guest.build()
        if arguments.build:
            print(kernel)
            return 0
        if not arguments.command:
            parser.error("a command is needed")
        command = [part for part in arguments.command if part != "--"]
        result = guest.run(
            kernel, command, timeout_s=arguments.timeout, check_leaks=arguments.leaks
        )
    except (guest.RigMissing, guest.GuestDied) as error:
        print(error, file=sys.stderr)
        return 125
    print(result.output, end="")
    if arguments.log:
        print(result.kernel_log)
    for line in result.faults:
        print(f"kernel: {line}", file=sys.stderr)
    return result.status or (1 if result.faults else 0)


if __name__ == "__main__":
    sys.exit(main())
