"""The error tree. Everything the SDK raises on its own is a `sbe.Error`.

    Error                               code
     |- BadArgument (ValueError)        EINVAL ...  the call itself is wrong; nothing was sent
     |   |- MessageTooLarge             EMSGSIZE    payload or buffers exceed a frame
     |   |- AreaFreed                   EFAULT      the buffer's area was freed or never mapped
     |   `- OutOfRange                  ERANGE      offset + size leaves the area
     |- PermissionDenied (PermissionError) EPERM    policy, quota or isolation says no
     |- WouldBlock (BlockingIOError)    EAGAIN      the ring is full and waiting was not wanted
     |- Timeout (TimeoutError)          ETIMEDOUT   the deadline passed
     |- Cancelled                       ECANCELED   this end cancelled the transaction
     |- RemoteError                     any         the remote's service answered with an error
     |   |- UnknownService              ENOENT      no service of that name or version
     |   `- NoRoom                      ENOSPC      an OUT buffer or the reply was too small
     |- Busy                            EBUSY       an area is held by unanswered transactions, or
     |                                              the remote can't do this now
     |- OutOfResources                  ENOMEM      a table, a quota or a heap is exhausted
     |- StreamError                     EPERM       not in the state in which the stream is
     `- LinkError (ConnectionError)     ENOTCONN    the link is not usable
         |- RemoteRestarted             ECONNRESET  the remote died or restarted under the call
         |- LinkClosed                  ESHUTDOWN   this end closed the link or channel
         |- DaemonGone                  EPIPE       the daemon went away
         `- ProtocolError               EPROTO      refused negotiation, or the peer broke a rule

`from_status()` is the one place where C statuses (negative Linux errno numbers, see
firmware/core/status.h) become exceptions, `from_system()` the one where the operating system's
refusals do.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

__all__ = [
    "AreaFreed",
    "BadArgument",
    "Busy",
    "Cancelled",
    "DaemonGone",
    "Error",
    "LinkClosed",
    "LinkError",
    "MessageTooLarge",
    "NoRoom",
    "OutOfRange",
    "OutOfResources",
    "PermissionDenied",
    "ProtocolError",
    "RemoteError",
    "RemoteRestarted",
    "StreamError",
    "Timeout",
    "UnknownService",
    "WouldBlock",
    "fresh_copy",
    "from_status",
    "from_system",
    "resources",
]


class Error(Exception):
    """Root of everything the SDK raises on its own. `code` is a positive errno number."""

    default_code: int = errno.EIO

    def __init__(self, message: str = "", code: int | None = None) -> None:
        super().__init__(message)
        self.code = self.default_code if code is None else code


class BadArgument(Error, ValueError):
    """The call itself is wrong; nothing was sent."""

    default_code = errno.EINVAL


class MessageTooLarge(BadArgument):
    """Payload, inline data or number of buffers exceed what one frame holds."""

    default_code = errno.EMSGSIZE


class AreaFreed(BadArgument):
    """The buffer's area was freed, or this link never mapped it."""

    default_code = errno.EFAULT


class OutOfRange(BadArgument):
    """A buffer's offset and size leave its area."""

    default_code = errno.ERANGE


class PermissionDenied(Error, PermissionError):
    """Policy, a quota or isolation between contexts says no."""

    default_code = errno.EPERM


class WouldBlock(Error, BlockingIOError):
    """The ring is full and the caller asked not to wait."""

    default_code = errno.EAGAIN


class Timeout(Error, TimeoutError):
    """The deadline passed. Buffers stay quarantined until the remote answers or is reset."""

    default_code = errno.ETIMEDOUT


class Cancelled(Error):
    """This end cancelled the transaction."""

    default_code = errno.ECANCELED


class RemoteError(Error):
    """The remote's service answered with an error status."""


class UnknownService(RemoteError):
    """The other end has no service of that name and version."""

    default_code = errno.ENOENT


class NoRoom(RemoteError):
    """An OUT buffer or the reply had too little room."""

    default_code = errno.ENOSPC


class Busy(Error):
    """Unanswered transactions still hold the area: the remote may still write it.

    Or the remote can't do now what is asked of it.
    """

    default_code = errno.EBUSY


class OutOfResources(Error):
    """A table, a quota or a heap is exhausted."""

    default_code = errno.ENOMEM


class StreamError(Error):
    """Not in the state in which the stream is; an xrun has stopped it, for one. `state` says."""

    default_code = errno.EPERM

    def __init__(self, message: str = "", code: int | None = None, *, state: str = "") -> None:
        super().__init__(message, code)
        self.state = state


class LinkError(Error, ConnectionError):
    """The link is not usable."""

    default_code = errno.ENOTCONN


class RemoteRestarted(LinkError):
    """The remote died or restarted while the call was in flight; it may have run or not."""

    default_code = errno.ECONNRESET


class LinkClosed(LinkError):
    """This end closed the link or the channel."""

    default_code = errno.ESHUTDOWN


class DaemonGone(LinkError):
    """The daemon went away; connect again once it runs."""

    default_code = errno.EPIPE


class ProtocolError(LinkError):
    """Negotiation was refused, or the peer broke the protocol."""

    default_code = errno.EPROTO


_BY_CODE: dict[int, type[Error]] = {
    errno.EINVAL: BadArgument,
    errno.EMSGSIZE: MessageTooLarge,
    errno.EFAULT: AreaFreed,
    errno.ERANGE: OutOfRange,
    errno.EPERM: PermissionDenied,
    errno.EACCES: PermissionDenied,
    errno.EAGAIN: WouldBlock,
    errno.ETIMEDOUT: Timeout,
    errno.ECANCELED: Cancelled,
    errno.ENOENT: UnknownService,
    errno.ENOSPC: NoRoom,
    errno.EBUSY: Busy,
    errno.ENOMEM: OutOfResources,
    errno.EMFILE: OutOfResources,
    errno.ENFILE: OutOfResources,
    errno.EEXIST: BadArgument,
    errno.ENOTCONN: LinkError,
    errno.ECONNRESET: RemoteRestarted,
    errno.ESHUTDOWN: LinkClosed,
    errno.EPIPE: DaemonGone,
    errno.EPROTO: ProtocolError,
    errno.EBADMSG: ProtocolError,
}

# What a status means when a service answered with it: its own verdict on the arguments is not
# this end's BadArgument, its EPERM not our policy.
_FROM_REMOTE: dict[int, type[Error]] = {
    errno.ENOENT: UnknownService,
    errno.ENOSPC: NoRoom,
    errno.ETIMEDOUT: Timeout,
    errno.ECANCELED: Cancelled,
    errno.ESHUTDOWN: RemoteRestarted,
}


def fresh_copy(error: BaseException) -> BaseException:
    """A copy of an exception that is kept, such as why a link is closed, to be raised.

    Raising the kept object itself would add each raise to its traceback: memory that only grows,
    and frames whose areas stay alive. A copy has the cause of the original and no traceback.
    """
    copy = None
    with contextlib.suppress(Exception):
        parts: Any = error.__reduce__()
        copy = parts[0](*parts[1])
        if len(parts) > 2 and parts[2]:
            copy.__setstate__(parts[2])
    if type(copy) is not type(error):  # a class that can't be copied
        return error.with_traceback(None)
    copy.__cause__ = error.__cause__
    return copy


def from_status(status: int, message: str = "", *, remote: bool = False) -> Error:
    """The exception for a negative errno status.

    `remote`: the status came in a response, so it is the service's word.
    """
    code = -status
    # A remote may answer any number; only known ones have words, and strerror takes no others.
    known = code in errno.errorcode
    meaning = f"{os.strerror(code)} ({errno.errorcode[code]})" if known else f"status {status}"
    if remote and code == errno.ETIMEDOUT:  # the caller's own, which the remote minds too
        return Timeout(f"{message or 'the call'} had not ended at the deadline", code)
    if remote:
        text = f"{message} answered: {meaning}" if message else meaning
        return _FROM_REMOTE.get(code, RemoteError)(text, code)
    return _BY_CODE.get(code, Error)(message or meaning, code)


# The system has no more of something: what this process may have, or what there is.
_EXHAUSTED = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOBUFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ETOOMANYREFS,  # descriptors in flight
}


def from_system(error: OSError | MemoryError, step: str) -> Error:
    """The exception for a refusal of the operating system; `step` says what it was asked for.

    OutOfResources where there is no more, else LinkError: a sandbox that denies a call, say.
    """
    code = getattr(error, "errno", None) or errno.ENOMEM
    kind = OutOfResources if code in _EXHAUSTED else LinkError
    words = getattr(error, "strerror", None) or os.strerror(code)  # ours may say more
    return kind(f"{step}: {words}", code)


@contextlib.contextmanager
def resources(step: str) -> Iterator[None]:
    """What the operating system refuses inside the block is raised by `from_system()`."""
    try:
        yield
    except Error:
        raise
    except (OSError, MemoryError) as error:
        raise from_system(error, step) from error
