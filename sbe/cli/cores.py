"""What `sbe firmware` drives: remote processors of this machine, and emulated boards."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Any, Protocol

from sbe import errors
from sbe.cli.screen import Screen
from sbe.kernel import remoteproc, rpmsg
from sbe.remotes.boards import Resident

_KERNELS_OWN = ("rpmsg_ctrl", "rpmsg_ns")  # devices on every rpmsg bus that no remote announces

_log = logging.getLogger("sbe.cli")

__all__ = ["Core", "all_cores", "describe", "endpoints", "find", "show", "start_board"]


class Core(Protocol):
    """One core and its life. Verbs that it has not raise BadArgument with what to do instead."""

    @property
    def name(self) -> str:
        """What its verbs are given."""

    def facts(self) -> dict[str, Any]:
        """Plain data: name, kind, state, firmware, and what only this kind has."""

    def load(self, firmware: str) -> None:
        """Chooses the firmware of the next start."""

    def start(self) -> None:
        """Starts it with the firmware that is chosen."""

    def stop(self) -> None:
        """Stops it; one that does not run is fine."""

    def reset(self) -> None:
        """Ends the firmware's life and begins another."""

    def act(self, verb: str) -> None:
        """Does what only emulated boards can: freeze, thaw, remove."""

    def log(self) -> dict[str, str]:
        """What its firmware has written, by the name of the buffer or stream."""


@dataclass
class _Processor:
    core: remoteproc.RemoteProcessor

    @property
    def name(self) -> str:
        return self.core.name

    def facts(self) -> dict[str, Any]:
        core = self.core
        return {
            "name": core.name,
            "kind": "remoteproc",
            "entry": core.entry,
            "device": core.device,
            "state": core.state,
            "firmware": core.firmware,
            "recovery": core.recovery,
            "services": sorted(
                service.name
                for service in rpmsg.services(remote=core.entry)
                if service.name not in _KERNELS_OWN
            ),
        }

    def load(self, firmware: str) -> None:
        self.core.load(firmware)

    def start(self) -> None:
        self.core.start()

    def stop(self) -> None:
        self.core.stop()

    def reset(self) -> None:
        self.core.restart()

    def act(self, verb: str) -> None:
        raise errors.BadArgument(
            f"{self.name} is a remote processor of this machine, {verb} is for emulated boards: "
            "it can be stopped and started"
        )

    def log(self) -> dict[str, str]:
        return self.core.log()


@dataclass
class _Board:
    board: Resident

    @property
    def name(self) -> str:
        return self.board.name

    def facts(self) -> dict[str, Any]:
        board = self.board
        exists = (board.directory / "ram").exists()
        state = board.state if exists else "removed"
        return {
            "name": board.name,
            "kind": "emulated",
            "board": board.board,
            "state": state,
            "firmware": board.image,
            "pid": board.pid,
            "uri": board.uri,
            "crash": board.crash() if state == "crashed" else None,
        }

    def load(self, firmware: str) -> None:
        self.board.load(firmware)

    def start(self) -> None:
        self.board = Resident.start(self.name, self.board.board, self.board.image)

    def stop(self) -> None:
        self.board.stop()

    def reset(self) -> None:
        self.board.reset()

    def act(self, verb: str) -> None:
        getattr(self.board, verb)()

    def log(self) -> dict[str, str]:
        return {"console": self.board.console()}


def all_cores() -> list[Core]:
    """All of this machine, and all emulated ones of this user."""
    processors: list[Core] = [_Processor(each) for each in remoteproc.processors()]
    try:
        boards = Resident.all()
    except (errors.PermissionDenied, errors.LinkError, errors.BadArgument) as error:
        _log.warning("emulated boards are not shown: %s", error)
        boards = []
    return [*processors, *(_Board(each) for each in boards)]


def find(name: str) -> Core:
    """The one of this name, or of this entry as in "remoteproc0". Raises BadArgument."""
    for core in remoteproc.processors():
        if name in (core.name, core.entry):
            return _Processor(core)
    with contextlib.suppress(errors.BadArgument):
        return _Board(Resident.find(name))
    there = ", ".join(core.name for core in all_cores()) or "none"
    raise errors.BadArgument(
        f"no remote processor and no emulated board {name!r}; there are: {there}"
    )


def start_board(name: str, board: str, image: str | None) -> Core:
    """Starts a new emulated board, or one that was stopped, with this image."""
    if any(name in (core.name, core.entry) for core in remoteproc.processors()):
        raise errors.BadArgument(
            f"{name} is a remote processor of this machine: give the emulated board another name"
        )
    return _Board(Resident.start(name, board, image))


def show(screen: Screen, rows: list[dict[str, Any]]) -> None:
    """A table of the facts of cores."""
    screen.table(
        ("name", "what", "state", "firmware", "reached by"),
        (
            (row["name"], describe(row), row["state"], row["firmware"], endpoints(row))
            for row in rows
        ),
    )


def describe(facts: dict[str, Any]) -> str:
    """What a core is, in a word or two."""
    if facts["kind"] == "emulated":
        alive = facts["state"] in ("running", "frozen")
        return f"{facts['board']}, process {facts['pid']}" if alive else str(facts["board"])
    return f"{facts['entry']}, {facts['device']}"


def endpoints(facts: dict[str, Any]) -> str:
    """The URI of a board; the rpmsg channels of a processor."""
    if facts["kind"] == "emulated":
        return str(facts["uri"])
    return ", ".join(facts["services"]) or "-"
