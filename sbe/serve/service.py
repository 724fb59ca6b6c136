"""A remote of Python functions that goes on: one life after another, as hosts come and go."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from sbe import errors
from sbe.serve.handlers import Handler
from sbe.serve.life import DEFAULT_LIMITS, Life, Limits
from sbe.serve.modules import check_services
from sbe.serve.places import Place
from sbe.transports import Transport

__all__ = ["Service"]

_log = logging.getLogger(__name__)
_PAUSE_S = 0.1  # after a life that could not begin: what was short may be there again


class Service:
    """Serves the hosts that come to a place, one at a time, each in a life (epoch) of its own.

    `run()` serves in the thread that calls it; with `with` a thread of its own does. Handlers run
    in that thread, one at a time: one that takes long holds everybody up. `stop()` may be called by
    any thread and by a signal handler, everything else by one thread.
    """

    def __init__(
        self,
        services: Mapping[str, Handler],
        place: Place,
        *,
        name: str = "sbe.serve",
        limits: Limits = DEFAULT_LIMITS,
        tell: Callable[[str], None] = _log.info,
    ) -> None:
        """Takes over the place. `name` is what hosts are told, `tell` hears of hosts that come and
        go. Raises BadArgument.
        """
        self._services = check_services(services, name)
        self._place = place
        self._name = name
        self._limits = limits
        self._tell = tell
        self._told = ""
        self._thread: threading.Thread | None = None
        with errors.resources("what stops serving"):
            self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def run(self) -> None:
        """Serves until `stop()`. Why a host was lost goes to the log.

        Raises BadArgument when no host can come any more, Busy when another process has taken the
        place.
        """
        said = ""
        while not self._stopped(0):
            try:
                with errors.resources("a life of this remote"):
                    transport = self._place.wait(self._stop_fd)
                    if transport is None:
                        return
                    self._live(transport)
                said = ""
            except (errors.BadArgument, errors.Busy):
                raise
            except errors.Error as error:  # the next try may go better, and soon or in days
                if said != (said := str(error)):
                    _log.warning("%s", error)
                self._stopped(_PAUSE_S)

    def _live(self, transport: Transport) -> None:
        try:
            Life(
                transport,
                self._place.memory,
                self._services,
                name=self._name,
                limits=self._limits,
                tell=self._say,
            ).run(self._stop_fd)
        except errors.LinkError as error:
            self._say(f"the host is gone: {error}")
        finally:
            self._place.let_go(transport)

    def _say(self, line: str) -> None:
        """A line that ends as fast as it is opened again says so once."""
        if line != self._told:
            self._told = line
            self._tell(line)

    def _stopped(self, within_s: float) -> bool:
        return bool(select.select([self._stop_fd], [], [], within_s)[0])

    def stop(self) -> None:
        """`run()` returns, after the handler at hand."""
        with contextlib.suppress(OSError):  # closed meanwhile
            os.eventfd_write(self._stop_fd, 1)

    def close(self) -> None:
        """Stops, waits for its thread, and lets go of everything. Calling twice is fine."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._place.close()
        if self._stop_fd >= 0:
            os.close(self._stop_fd)
            self._stop_fd = -1

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.run, name="sbe-remote", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
