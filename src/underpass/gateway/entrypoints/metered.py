"""A stream whose every chunk has to be let through, as it comes and as it goes."""

from __future__ import annotations

from collections.abc import Callable

from underpass.core.errors import UnderpassError
from underpass.gateway.entrypoints.limitable import LimitableStream
from underpass.links.stream import CHUNK, Receiver, Stream, StreamReset

__all__ = ["MeteredStream"]


class MeteredStream(LimitableStream):
    """*inner*, while *take* says yes; what it refuses is dropped, and nothing passes after it.

    A refused chunk must not be followed by an orderly end, which would make what arrived look
    whole: so ends are dropped, too, and whoever refuses ends the stream.

    Args:
        inner: owned from now on.
        take: asked with the size of each chunk.
    """

    def __init__(self, inner: Stream, take: Callable[[int], bool]) -> None:
        super().__init__(inner)
        self._take = take
        self._refused = False

    def admits(self, count: int) -> bool:
        """Whether *count* more bytes may pass."""
        if not self._refused:
            self._refused = not self._take(count)
        return not self._refused

    @property
    def refused(self) -> bool:
        """Whether something was dropped."""
        return self._refused

    async def read(self, max_bytes: int = CHUNK) -> bytes:
        data = await super().read(max_bytes)
        if not self.admits(len(data)):
            raise StreamReset("There is nothing left to use.", code="quota_exceeded")
        return data

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.admits(len(data)):
            super().write(data)

    def send(self, data: bytes | memoryview) -> None:
        if self.admits(len(data)):
            super().send(data)

    def finish(self) -> None:
        if not self._refused:
            super().finish()

    def attach(self, receiver: Receiver) -> None:
        super().attach(_Metering(self, receiver))


class _Metering:
    """Stands before the receiver of a metered stream."""

    __slots__ = ("_receiver", "_stream")

    def __init__(self, stream: MeteredStream, receiver: Receiver) -> None:
        self._stream = stream
        self._receiver = receiver

    def data(self, chunk: bytes | memoryview) -> None:
        """The stream's: bytes arrived."""
        if self._stream.admits(len(chunk)):
            self._receiver.data(chunk)

    def eof(self) -> None:
        """The stream's: nothing more comes."""
        if not self._stream.refused:
            self._receiver.eof()

    def lost(self, error: UnderpassError) -> None:
        """The stream's: it is over."""
        self._receiver.lost(error)

    def writable(self) -> None:
        """The stream's: it can be written to again."""
        self._receiver.writable()
