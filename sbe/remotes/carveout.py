"""A remote behind a window of shared RAM and a byte stream, as configured."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from sbe import errors
from sbe.host import files
from sbe.remotes import Memory, Remote
from sbe.transports.carveout import CarveoutTransport
from sbe.transports.doorbell import open_doorbell
from sbe.transports.window import Window

__all__ = ["Carveout", "CarveoutConfig"]


@dataclass(frozen=True)
class CarveoutConfig:
    """A carve-out link, as configured: see docs/tutorials/cortex-m.md.

    `memory` is a file or device that can be mapped, from `offset` for `size` bytes (None: all).
    """

    memory: str
    doorbell: str
    offset: int = 0
    size: int | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CarveoutConfig:
        """Reads a TOML file with these keys. Raises BadArgument which names what is wrong."""
        return cls.parse(files.read_toml(path), os.fspath(path))

    @classmethod
    def parse(cls, values: dict[str, Any], where: str) -> CarveoutConfig:
        """Checks a table of these keys. Raises BadArgument which names what is wrong."""
        kinds: dict[str, type] = {"memory": str, "doorbell": str, "offset": int, "size": int}
        for key, value in values.items():
            if key not in kinds:
                raise errors.BadArgument(f"{where}: {key!r:.80} is not one of {', '.join(kinds)}")
            if type(value) is not kinds[key] or (isinstance(value, int) and value < 0):
                raise errors.BadArgument(
                    f"{where}: {key} = {value!r:.80} is no {kinds[key].__name__}"
                )
            if isinstance(value, str) and not files.is_path(value):
                raise errors.BadArgument(f"{where}: {key} = {value!r:.80} must have no NUL")
        for key in ("memory", "doorbell"):
            if not values.get(key):
                raise errors.BadArgument(f"{where}: {key} is missing")
        return cls(**values)


class Carveout(Remote):
    """A remote whose power is not ours: each `connect()` begins another life of this end.

    Not thread-safe.
    """

    transport = "carveout"

    def __init__(self, config: CarveoutConfig, name: str = "carveout") -> None:
        self.name = name
        self.uri = f"carveout:{name}"
        self._config = config
        self._window: Window | None = None

    @property
    def window(self) -> Window:
        """The shared RAM, opened at the first use."""
        if self._window is None:
            self._window = Window(self._config.memory, self._config.offset, self._config.size)
        return self._window

    @property
    def memory(self) -> Memory:
        """The arena, and the regions that the remote offers."""
        return Memory({self.window.heap.name: self.window.heap}, offering=self.window)

    def connect(self) -> CarveoutTransport:
        """Opens the doorbell. Raises LinkError, BadArgument."""
        window = self.window
        return CarveoutTransport(window, open_doorbell(self._config.doorbell))

    def close(self) -> None:
        """Lets go of the shared RAM."""
        if self._window is not None:
            self._window.close()
            self._window = None
