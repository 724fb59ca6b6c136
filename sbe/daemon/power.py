"""What a remote asks about power, carried out by a program of the integrator."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal

from sbe.daemon.config import PowerConfig
from sbe.link.power import Answer, PowerRequest

__all__ = ["PowerCommand"]

_log = logging.getLogger(__name__)


class PowerCommand:
    """The program of one link. Not thread-safe: it belongs to the loop.

    One at a time: who asks meanwhile, after a restart of the remote, is told EBUSY.
    """

    def __init__(self, link: str, config: PowerConfig) -> None:
        self._link = link
        self._config = config
        self._task: asyncio.Task[None] | None = None

    def carry_out(self, request: PowerRequest, khz: int, answer: Answer) -> None:
        """Runs it, and answers with its exit status."""
        command = self._config.command
        if command is None:
            answer(errno.EOPNOTSUPP)
        elif self._task is not None:
            answer(errno.EBUSY)
        else:
            arguments = [request.word]
            if request is PowerRequest.FREQUENCY:
                arguments.append(str(khz))
            self._task = asyncio.create_task(self._run([*command, *arguments], answer))

    async def stop(self) -> None:
        """Kills it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self, command: list[str], answer: Answer) -> None:
        where = {"link": self._link}
        code = errno.EIO
        try:
            code = await self._exit_code(command)
            _log.info(
                "%s: %s", " ".join(command), os.strerror(code) if code else "done", extra=where
            )
        except OSError as error:
            code = error.errno or errno.EIO
            _log.error("%s can't be run: %s", command[0], error.strerror, extra=where)
        finally:
            self._task = None  # first: the remote may have asked for more
            answer(code)

    async def _exit_code(self, command: list[str]) -> int:
        """A positive errno number, 0 done."""
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        try:
            async with asyncio.timeout(self._config.seconds):
                status = await process.wait()
        except TimeoutError:
            return errno.ETIMEDOUT
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with what it has started
                await process.wait()
        return status if status >= 0 else errno.EIO
