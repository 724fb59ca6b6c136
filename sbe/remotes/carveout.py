"""A remote behind a window of shared RAM and a byte stream, as configured."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbe import _native, errors
from sbe.host import files, text
from sbe.remotes import Memory, Remote, cannot_restart
from sbe.transports.carveout import CarveoutTransport
from sbe.transports.doorbell import open_doorbell
from sbe.transports.window import Window, describe_crash

__all__ = ["Carveout", "CarveoutConfig"]

_QMP = "qmp:"
_RESET_S = 30.0  # then the program is killed
_WORDS_MAX = 500  # of what it said


@dataclass(frozen=True)
class CarveoutConfig:
    """A carve-out link, as configured: see docs/tutorials/cortex-m.md.

    `memory` is a file or device that can be mapped, from `offset` for `size` bytes (None: all); of
    a UIO device its map number `map` (None: 0) is, and `offset` counts from there.
    `reset` is what resets the core: a program and its arguments, which has done so when it ends
    with status 0, or "qmp:PATH", QEMU's socket of an emulated one. Empty: nothing here can.
    """

    memory: str
    doorbell: str
    offset: int = 0
    size: int | None = None
    reset: str | tuple[str, ...] = ()
    map: int | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CarveoutConfig:
        """Reads a TOML file with these keys. Raises BadArgument which names what is wrong."""
        return cls.parse(files.read_toml(path), os.fspath(path))

    @classmethod
    def parse(cls, values: dict[str, Any], where: str) -> CarveoutConfig:
        """Checks a table of these keys. Raises BadArgument which names what is wrong."""
        values = dict(values)
        reset = _parse_reset(values.pop("reset", ()), where)
        kinds: dict[str, type] = {
            "memory": str,
            "doorbell": str,
            "offset": int,
            "size": int,
            "map": int,
        }
        for key, value in values.items():
            if key not in kinds:
                known = ", ".join((*kinds, "reset"))
                raise errors.BadArgument(f"{where}: {key!r:.80} is not one of {known}")
            if type(value) is not kinds[key] or (isinstance(value, int) and value < 0):
                raise errors.BadArgument(
                    f"{where}: {key} = {value!r:.80} is no {kinds[key].__name__}"
                )
            if isinstance(value, str) and not files.is_path(value):
                raise errors.BadArgument(f"{where}: {key} = {value!r:.80} must have no NUL")
        for key in ("memory", "doorbell"):
            if not values.get(key):
                raise errors.BadArgument(f"{where}: {key} is missing")
        return cls(**values, reset=reset)


def _parse_reset(value: Any, where: str) -> str | tuple[str, ...]:
    """Raises BadArgument."""
    if isinstance(value, str) and value.startswith(_QMP) and value != _QMP and "\0" not in value:
        return value
    if isinstance(value, list | tuple) and all(
        isinstance(word, str) and word and "\0" not in word for word in value
    ):
        return tuple(value)
    raise errors.BadArgument(
        f"{where}: reset = {value!r:.80} is neither a list of words, a program and its arguments, "
        f'nor "{_QMP}PATH"'
    )


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
        self._transport: CarveoutTransport | None = None

    @property
    def window(self) -> Window:
        """The shared RAM, opened at the first use."""
        if self._window is None:
            place = self._config
            self._window = Window(place.memory, place.offset, place.size, place.map)
        return self._window

    @property
    def memory(self) -> Memory:
        """The arena, and the regions that the remote offers."""
        return Memory({self.window.heap.name: self.window.heap}, offering=self.window)

    def connect(self) -> CarveoutTransport:
        """Opens the doorbell. Raises LinkError, BadArgument."""
        window = self.window
        self._transport = CarveoutTransport(window, open_doorbell(self._config.doorbell))
        return self._transport

    def restart(self) -> None:
        """Resets the core as `reset` says. Raises LinkError where that fails."""
        how = self._config.reset
        if isinstance(how, str):
            from sbe.remotes.boards import qemu  # heavy, and of no use to real cores

            qemu.reset(Path(how.removeprefix(_QMP)))
        elif how:
            _run(how)
        else:
            raise cannot_restart(
                self, 'its configuration takes reset = ["PROGRAM", ...], which resets the core'
            )

    @property
    def awaited(self) -> str | None:
        """That the firmware shows itself, or why it will not."""
        if self._transport is None or self._window is None or self._transport.met:
            return None
        crash = _native.read_crash(self._window.memory)
        if crash is not None:
            return f"the firmware crashed: {describe_crash(crash)}"
        return (
            "no firmware has shown itself in the shared RAM: does it run, and has it no other host?"
        )

    def close(self) -> None:
        """Lets go of the shared RAM."""
        if self._window is not None:
            self._window.close()
            self._window = None


def _run(command: Sequence[str]) -> None:
    """Runs what resets a core, to its end. Raises LinkError."""
    name = command[0]
    with tempfile.TemporaryFile() as said:
        with errors.resources(f"{name}, which is to reset the core, can't be run"):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            status = process.wait(_RESET_S)
        except subprocess.TimeoutExpired:
            raise errors.LinkError(
                f"{name}, which is to reset the core, has not ended within {_RESET_S:g} s",
                errno.ETIMEDOUT,
            ) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with what it has started
                process.wait()
        said.seek(max(os.fstat(said.fileno()).st_size - _WORDS_MAX, 0))
        words = text.one_line(" ".join(said.read().decode(errors="replace").split()), _WORDS_MAX)
    if status != 0:
        raise errors.LinkError(
            f"{name}, which is to reset the core, ended with status {status}"
            + (f": {words}" if words else "")
        )
