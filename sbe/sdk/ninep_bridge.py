"""Bridge: a session of 9P2000.L between a socket and the remote's service of files."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from sbe import _native
from sbe.errors import (
    BadArgument,
    Busy,
    Error,
    LinkClosed,
    LinkError,
    MessageTooLarge,
    OutOfResources,
    ProtocolError,
    RemoteError,
    Timeout,
    UnknownService,
    fresh_copy,
)
from sbe.link.rings import Geometry
from sbe.sdk import ninep_wire as wire
from sbe.sdk.core import Core
from sbe.sdk.ninep_wire import Header, Incoming, Kind
from sbe.sdk.ownership import not_copied
from sbe.sdk.timeouts import ends_at, in_thread, time_left

if TYPE_CHECKING:
    from sbe.sdk.area import Area

__all__ = ["Bridge"]

_SLOT_BYTES = 8192  # of a frame: the longest walk there is fits
_SLOTS = 64
_PRIORITY = 1
_INLINE = 512  # bytes of data that go in the frame
_FIRST_MAX = 8192  # bytes of a message before a size was agreed
_MSIZE_MIN = 8192  # below it no memory is looked for any more
_DATA_MAX = 8 << 20  # bytes for data in flight
_IN_FLIGHT = 8  # messages with data at most

_NOTHING = memoryview(b"")

_numbers = itertools.count(1)


@dataclass
class _Asked:
    """A message that the remote has not answered yet."""

    tag: int
    kind: int
    deadline: float
    slot: int | None = None
    most: int | None = None  # bytes of data that may come back
    flushes: int | None = None  # a tag
    call: _native.Call | None = None


class Bridge:
    """Passes messages of one 9P2000.L client to a service of the remote: `Connection.bridge_9p()`.

    Data of more than 512 bytes are received into shared memory and sent from it; everything else
    of a message goes in its call. Threads: one calls `run()`, any may call `close()`. A thread of
    ours sends the answers.
    """

    def __init__(
        self,
        core: Core,
        service: str,
        sock: socket.socket,
        msize: int,
        heap: str | None,
        timeout: float,
    ) -> None:
        """Opens the session at the remote; the socket is its own from then on."""
        if not wire.MSIZE_LEAST <= msize <= wire.MSIZE_MAX:
            raise BadArgument(
                f"msize: {msize} is not between {wire.MSIZE_LEAST} and {wire.MSIZE_MAX}"
            )
        if not timeout > 0:
            raise BadArgument(f"timeout: {timeout!r} seconds")
        self._core, self._socket, self._heap = core, sock, heap
        self._timeout = min(timeout, threading.TIMEOUT_MAX)  # longer ones no lock waits for
        self._session, self._pid = next(_numbers), os.getpid()
        self._area: Area | None = None
        self._view = memoryview(b"")
        self._slots: deque[int] = deque()
        self._lent: list[_Asked] = []
        self._slot_bytes = 0
        self._msize = 0
        self._asked: dict[int, _Asked] = {}
        self._changed = threading.Condition()  # an answer came, or it is over
        self._done: deque[tuple[_Asked, _native.Call]] = deque()
        self._delivering = threading.Lock()
        self._sending = threading.Lock()
        self._error: BaseException | None = None
        self._closing = self._ran = False
        self._unharmed = False  # it was when close() was called: what goes wrong then, did not
        self._threads: set[int] = set()
        until = ends_at(timeout)
        _, self._service = core.prepare_until(service, until)
        opened: list[_native.Channel] = []
        try:
            slot = min(_SLOT_BYTES, core.backend.limits["slot_size"])
            slots = min(_SLOTS, core.backend.limits["slots"])
            self._channel = core.open_another(Geometry(slots, slot), _PRIORITY, opened, until)
            self._channel.names[self._service] = service
            self._open = self._channel.submit(
                self._service, (), wire.asked(wire.OPEN, self._session)
            )
            self._limit = min(msize, self._first_version(msize, until))
        except BaseException:
            if opened:
                core.close_another(opened[0])
            raise

    # -- what applications call -------------------------------------------------------------

    def run(self) -> None:
        """Serves until the client leaves or `close()` is called.

        Raises LinkError or Timeout when the remote is lost or does not answer within the timeout:
        every message that is open then has been answered with EIO. Raises ProtocolError when the
        client or the remote breaks the protocol.
        """
        self._core.check_process()
        with self._changed:
            if self._ran:
                raise BadArgument("the session of a 9P bridge runs once")
            if self._closing:
                return
            self._ran = True
        answers = threading.Thread(target=self._watch, name="sbe-9p-answers", daemon=True)
        self._threads.add(threading.get_ident())
        answers.start()
        try:
            self._socket.setsockopt(
                socket.SOL_SOCKET,
                socket.SO_SNDTIMEO,
                struct.pack("@ll", int(self._timeout) + 1, 0),
            )
            self._socket.setblocking(True)
            self._read_all()
            self._wait_idle()
        except OSError as error:
            if isinstance(error, Error):
                self._note(error)
            # else the socket is gone, and with it the client
        except BaseException as error:
            self._note(error)
        finally:
            self._closing = True
            self._open.cancel()
            answers.join(self._timeout)
            self._let_go()
        if self._error is not None and not self._unharmed:
            raise fresh_copy(self._error)

    async def arun(self) -> None:
        """As `run()`, for asyncio: it runs in another thread. Cancelling the task closes it."""
        try:
            await in_thread(float("inf"), self.run)
        finally:
            self.close()

    def close(self) -> None:
        """Ends the session: what is open is not answered any more, and `run()` returns."""
        if self._pid != os.getpid():
            self._socket.close()  # a copy; the session is that of whoever forked this process
            return
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._unharmed = self._error is None
            ran = self._ran
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if not ran:
            self._open.cancel()
            self._let_go()

    def __enter__(self) -> Bridge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        not_copied(self)

    # -- the session at the remote ----------------------------------------------------------

    def _first_version(self, msize: int, until: float) -> int:
        """What the remote's own limit is. Raises what opening failed with."""
        asked = wire.asked(wire.MESSAGE, self._session, wire.version(msize))
        try:
            reply = self._channel.call(self._service, (), asked, time_left(until))
        except Error:
            if self._open.done():
                self._open.result(0)  # raises that
            raise
        if self._open.done():
            raise ProtocolError("is it a service of 9P files? It answered what one keeps")
        limit = wire.version_msize(reply.payload, wire.NOTAG, msize)
        if limit == 0:
            raise ProtocolError("the service does not speak 9P2000.L")
        return limit

    def _let_go(self) -> None:
        with contextlib.suppress(Error):
            self._open.result(self._timeout)  # cancelled, or lost
        if self._error is None:
            with contextlib.suppress(Error):
                self._core.close_another(self._channel)
            self._free_area()
        else:  # with the next control operation: one now may wait for a remote that hangs
            self._core.give_up_another(self._channel)
            self._area, self._view = None, _NOTHING
        self._socket.close()

    def _free_area(self) -> None:
        area, self._area = self._area, None
        self._view = memoryview(b"")
        if area is not None:
            # What the remote does not answer keeps its memory until it is reset.
            with contextlib.suppress(Busy, LinkError, Timeout):
                area.free()

    # -- messages of the client -------------------------------------------------------------

    def _read_all(self) -> None:
        incoming = Incoming(self._socket)
        while not self._closing and (header := incoming.header()) is not None:
            self._check(header)
            if self._error is not None:
                incoming.skip(header.size)
                self._send(wire.refusal(header.tag, errno.EIO))
            elif header.kind == Kind.VERSION:
                self._agree(incoming.take(header.size))
            elif self._msize == 0:
                incoming.skip(header.size)
                self._send(wire.refusal(header.tag, errno.EPROTO))
            else:
                self._pass_on(header, incoming)

    def _check(self, header: Header) -> None:
        most = self._msize or _FIRST_MAX
        if not wire.HEADER <= header.size <= most:
            raise ProtocolError(
                f"the 9P client sent a message of {header.size} bytes; one has 7 to {most}"
            )
        if header.tag in self._asked:
            raise ProtocolError(f"the 9P client used tag {header.tag} twice at a time")

    def _agree(self, message: bytes) -> None:
        """A Tversion: everything before it is over, and memory for its size is found."""
        self._wait_idle()
        msize = 0
        if len(message) >= wire.HEADER + 4:
            (msize,) = struct.unpack_from("<I", message, wire.HEADER)
            if msize >= wire.MSIZE_LEAST:  # else the service says what is wrong with it
                msize = self._allocate(min(msize, self._limit))
            message = message[: wire.HEADER] + struct.pack("<I", msize) + message[11:]
        asked = wire.asked(wire.MESSAGE, self._session, message)
        tag = Header(*struct.unpack_from("<IBH", message)).tag
        try:
            answer = self._channel.call(self._service, (), asked, self._timeout).payload
        except RemoteError as error:
            answer = self._refusal(tag, error)
        self._msize = wire.version_msize(answer, tag, msize)
        self._send(answer)

    def _allocate(self, msize: int) -> int:
        """Memory for data of messages of this size, or of a smaller one that there is room for."""
        self._free_area()
        line = max(self._core.table.line_bytes, 4096)
        while True:
            slot = -(-msize // line) * line
            for count in (max(1, min(_IN_FLIGHT, _DATA_MAX // slot)), 2, 1):
                try:
                    self._area = self._core.allocate(
                        slot * count, self._heap, ends_at(self._timeout)
                    )
                except OutOfResources:
                    continue
                self._view = memoryview(self._area).cast("B")
                self._slots, self._lent = deque(range(count)), []
                self._slot_bytes = slot
                return msize
            if msize <= _MSIZE_MIN:
                raise OutOfResources("there is no memory for data of 9P messages")
            msize = max(msize // 2, _MSIZE_MIN)

    def _pass_on(self, header: Header, incoming: Incoming) -> None:
        is_write = header.kind == Kind.WRITE and header.size > wire.WRITE_HEAD + _INLINE
        inline = wire.WRITE_HEAD if is_write else header.size
        if inline > self._channel.slot_size:
            incoming.skip(header.size)
            self._send(wire.refusal(header.tag, errno.ENAMETOOLONG))
            return
        message = incoming.take(inline)
        count = wire.data_count(header.kind, message)
        if is_write and count is None:
            incoming.skip(header.size - inline)
            self._send(wire.refusal(header.tag, errno.EBADMSG))
            return
        most = None
        if count is not None and header.kind != Kind.WRITE:
            count = most = min(count, max(self._msize - wire.READ_HEAD, 0))
            message = wire.with_count(message, count)
        slot = None
        if count is not None and count > _INLINE:
            slot = self._take_slot()
            if slot is not None and is_write:
                start = slot * self._slot_bytes
                incoming.take_into(self._view[start : start + count])
            elif is_write:  # it is over
                incoming.skip(count)
        deadline = time.monotonic() + self._timeout
        asked = _Asked(header.tag, header.kind, deadline, slot, most)
        asked.flushes = wire.flushed(header.kind, message)
        self._submit(asked, message, count)

    def _take_slot(self) -> int | None:
        """Memory for a message's data. None: the session has failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._slots or self._error or self._closing)
            return None if self._error is not None or not self._slots else self._slots.popleft()

    def _submit(self, asked: _Asked, message: bytes, count: int | None) -> None:
        buffers: tuple[_native.Buffer, ...] = ()
        if asked.slot is not None and count is not None and self._area is not None:
            start = asked.slot * self._slot_bytes
            line = self._area.line_bytes
            if asked.kind == Kind.WRITE:
                buffers = (_native.In(self._area[start : start + count]),)
            else:  # to the end of a line: what the remote writes shares none
                buffers = (_native.Out(self._area[start : start + -(-count // line) * line]),)
        self._asked[asked.tag] = asked
        if self._error is not None:
            self._fail(self._error)  # answers it
            return
        payload = wire.asked(wire.MESSAGE, self._session, message)
        try:
            call = self._channel.submit(self._service, buffers, payload, self._timeout)
        except MessageTooLarge:
            self._answer(asked, wire.refusal(asked.tag, errno.ENAMETOOLONG))
        except Error as error:
            self._fail(error)
        else:
            asked.call = call
            call.add_done_callback(partial(self._ended, asked))
            self._deliver()

    # -- answers of the remote --------------------------------------------------------------

    def _watch(self) -> None:
        """Waits for as long as the session lasts; meanwhile answers are taken, here."""
        self._threads.add(threading.get_ident())
        step = min(self._timeout, 1.0)
        while not self._open.done():
            with contextlib.suppress(Error):
                self._open.exception(step)
            self._deliver()
            if self._lent:
                self._take_back()
            with contextlib.suppress(StopIteration, RuntimeError):  # it changed meanwhile
                if time.monotonic() > next(iter(self._asked.values())).deadline:
                    self._fail(
                        Timeout(f"the remote has not answered a 9P message in {self._timeout} s")
                    )
                    return
        self._deliver()
        if not self._closing:
            error = self._open.exception(0)
            if not isinstance(error, Error):
                error = LinkClosed("the remote has ended the session of 9P")
            self._fail(error)

    def _ended(self, asked: _Asked, call: _native.Call) -> None:
        """In the thread that noticed: if it is not one of ours the link is lost, and ours hear."""
        self._done.append((asked, call))
        if threading.get_ident() in self._threads:
            self._deliver()

    def _deliver(self) -> None:
        """Sends the answers that are there; looking at one may find more."""
        while self._done and self._delivering.acquire(blocking=False):
            try:
                while self._done:
                    self._deliver_one(*self._done.popleft())
            finally:
                self._delivering.release()

    def _deliver_one(self, asked: _Asked, call: _native.Call) -> None:
        tag = asked.tag
        if self._asked.get(tag) is not asked:
            self._give_back(asked)  # answered with an error before, or flushed
            return
        try:
            reply = call.result(0)
            written = reply.written[0] if asked.most is not None and asked.slot is not None else 0
            wire.check_answer(reply.payload, written, asked.kind, tag, asked.most, self._msize)
        except (UnknownService, Timeout, LinkError) as error:
            self._fail(error)
        except Error as error:
            self._answer(asked, self._refusal(tag, error))
        else:
            if asked.flushes is not None:
                self._flush(asked.flushes)
            start = (asked.slot or 0) * self._slot_bytes
            self._answer(asked, reply.payload, self._view[start : start + written])

    def _flush(self, tag: int) -> None:
        """The remote has answered a Tflush: what it is about is not answered any more."""
        flushed = self._asked.pop(tag, None)
        if flushed is not None and flushed.call is not None:
            flushed.call.cancel()

    def _refusal(self, tag: int, error: Error) -> bytes:
        """What a status of the service, and not of its files, is to the client."""
        return wire.refusal(tag, error.code if 0 < error.code <= wire.CODE_MAX else errno.EIO)

    def _answer(self, asked: _Asked, head: bytes, data: memoryview = _NOTHING) -> None:
        """Its tag is free again before the client can know."""
        if self._asked.pop(asked.tag, None) is not None:
            self._send(head, data)
        self._give_back(asked)

    def _give_back(self, asked: _Asked) -> None:
        """Its memory, unless the remote may still use that."""
        with self._changed:
            if asked.slot is not None:
                self._lent.append(asked)
            self._take_back()

    def _take_back(self) -> None:
        """Memory of what has been answered, or given up and answered later."""
        with self._changed:
            for asked in list(self._lent):
                if asked.call is None or not asked.call.in_flight:
                    self._lent.remove(asked)
                    if asked.slot is not None:
                        self._slots.append(asked.slot)
            self._changed.notify_all()

    def _send(self, head: bytes, data: memoryview = _NOTHING) -> None:
        with self._sending:
            try:
                sent = self._socket.sendmsg([head, data]) if data else self._socket.send(head)
                if sent < len(head):
                    self._socket.sendall(head[sent:])
                    sent = len(head)
                if data:
                    self._socket.sendall(data[sent - len(head) :])
            except BlockingIOError:
                self._note(Timeout(f"the 9P client took no answer for {self._timeout} s"))
                self._leave()
            except OSError:  # the client has left
                self._leave()

    def _leave(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    # -- the end ----------------------------------------------------------------------------

    def _wait_idle(self) -> None:
        """Until all is answered, which has its own bound."""
        with self._changed:
            self._changed.wait_for(lambda: not self._asked or self._error or self._closing)

    def _note(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        """The session is over: what is open is answered with EIO, and so is what has been sent.

        Who sends more is told EPIPE by the socket.
        """
        self._note(error)
        for tag in list(self._asked):
            with self._changed:
                asked = self._asked.pop(tag, None)
            if asked is not None:
                self._send(wire.refusal(tag, errno.EIO))
        with self._changed:
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
