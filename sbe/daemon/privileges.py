"""What root may beyond others, given up once it is not needed any more."""

from __future__ import annotations

import ctypes
import logging
import os

from sbe.daemon.config import Config, EmbeddedLink

__all__ = ["drop"]

_log = logging.getLogger(__name__)

_VERSION_3 = 0x20080522  # linux/capability.h
_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS


def drop(config: Config) -> None:
    """Gives up every capability, for this process and all that it starts, where none is needed.

    Devices may belong to another user, and a program of the integrator may be what root runs: then
    all stays, and the unit decides. Only for the thread that calls and those that it makes later.
    """
    if any(not isinstance(link, EmbeddedLink) or link.power.command for link in config.link):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    held, none = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    if libc.capget(header, held) == 0 and not any(held):
        return  # as under the unit
    # The first alone would let a program that root starts have all of them again.
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.capset(header, none):
        _log.warning("capabilities stay: %s", os.strerror(ctypes.get_errno()))
