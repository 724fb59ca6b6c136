"""Block: what `Stream.next()` gives."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from sbe.sdk.stream_format import StreamFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Block"]


class _Stream(Protocol):
    """What a block asks of its stream."""

    format: StreamFormat
    name: str
    _generation: int
    _application: int

    def give(self, block: Block) -> bool: ...
    def _bytes(self, offset: int, size: int) -> memoryview: ...
    def _array(self, data: memoryview) -> NDArray[Any]: ...


class Block:
    """The next frames of a stream, in place; they are the remote's again at the end of `with`."""

    def __init__(self, stream: _Stream, offset: int, size: int) -> None:
        self._stream = stream
        self._offset = offset
        self._at = stream._application
        self._run = stream._generation
        self.size_bytes = size
        self.data: memoryview = stream._bytes(offset, size)
        """Bytes; writable for playback."""

    @property
    def frames(self) -> int:
        """How many."""
        return self.size_bytes // self._stream.format.frame_bytes

    def array(self) -> NDArray[Any]:
        """A numpy array of shape (frames, channels), without a copy."""
        return self._stream._array(self.data)

    def __enter__(self) -> NDArray[Any]:
        return self.array()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._stream.give(self)

    def is_next(self) -> bool:
        """These frames are still the next ones of this run."""
        now = self._stream
        return (self._run, self._at) == (now._generation, now._application)
