"""Batches: many calls of one service, numpy arrays in and out."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from sbe import _native
from sbe.errors import BadArgument, from_status
from sbe.sdk.arrays import buffer_dtype, numpy

__all__ = ["BatchResult", "run_batch"]


class BatchResult(NamedTuple):
    """What a batch came to, one row a call, in the order given.

    status: int32, zero or a negative errno. written: uint64 (calls, buffers), bytes written.
    payload: uint8 (calls, reply_size), zero-padded.
    """

    status: Any
    written: Any
    payload: Any

    def check(self) -> None:
        """Raises the first failure, saying which call it was."""
        np = numpy("BatchResult.check()")
        failed = np.flatnonzero(self.status)
        if failed.size:
            first = int(failed[0])
            raise from_status(
                int(self.status[first]),
                f"call {first} of {self.status.size} ({failed.size} failed)",
                remote=True,
            )


def run_batch(
    channel: _native.Channel,
    service: int,
    descriptors: Any,
    payloads: Any,
    reply_size: int,
    timeout: float | None,
) -> BatchResult:
    """Checks shapes and types, runs the batch."""
    np = numpy("Connection.batch()")
    given = np.asarray(descriptors)
    if given.dtype != buffer_dtype() or given.ndim not in (1, 2):
        raise BadArgument(
            "descriptors are an array of sbe.buffer_dtype() of shape (calls,) or (calls, buffers)"
        )
    if not 0 <= (reply_size := operator.index(reply_size)) <= channel.slot_size:
        raise BadArgument(f"a reply_size of {reply_size} bytes; a frame holds {channel.slot_size}")
    count, per_call = given.shape if given.ndim == 2 else (len(given), 1)
    given = np.ascontiguousarray(given)
    sent = np.zeros((count, 0), np.uint8) if payloads is None else np.asarray(payloads)
    if sent.dtype != np.uint8 or sent.ndim != 2 or len(sent) != count:
        raise BadArgument(f"payloads are uint8 of shape ({count}, bytes)")
    status = np.zeros(count, np.int32)
    written = np.zeros((count, per_call), np.uint64)
    replies = np.zeros((count, reply_size), np.uint8)
    channel.batch(
        service,
        count,
        per_call,
        given.ravel().view(np.uint8),
        np.ascontiguousarray(sent).ravel(),
        sent.shape[1],
        status,
        written.ravel().view(np.uint8),
        replies.ravel(),
        reply_size,
        timeout,
    )
    return BatchResult(status, written, replies)
