# SPDX-License-Identifier: Apache-2.0
"""In a guest with another kernel beside it: one window of RAM, and a serial line between them.

    python -m tests.rigs.kernel.beside COMMAND...

writes /run/link.toml, which both kernels' ends use, and becomes the command.
"""

import os
import sys
from pathlib import Path

from tests.rigs.kernel import parts

LINK = "/run/link.toml"
FACTS = Path("/sys/module/sbe_rig_iomem/parameters")


def main() -> None:
    parts.insert("sbe_rig_iomem")
    address, size = (int((FACTS / name).read_text()) for name in ("address", "size"))
    Path(LINK).write_text(
        f'memory = "/dev/mem"\noffset = {address}\nsize = {size}\n'
        'doorbell = "serial:/dev/ttyS1,115200"\n'
    )
    os.environ.pop("SBE_RIG_GUEST", None)  # it means another rig to the suite's plugins
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
