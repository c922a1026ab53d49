"""A mux stream as a :class:`~underpass.links.stream.Stream`."""

from __future__ import annotations

import asyncio

from underpass.links.mux import MuxStream
from underpass.links.peer_errors import OpenRefused, peer_error
from underpass.links.stream import BufferedStream, StreamReset
from underpass.wire.frames import ErrorFrame

__all__ = ["Channel"]


class Channel(BufferedStream):
    """One stream of a link.

    Args:
        answer: resolved when the peer accepts the opening; None for a stream the peer opened.
    """

    def __init__(self, answer: asyncio.Future[None] | None) -> None:
        super().__init__()
        self._answer = answer
        self._mux_stream: MuxStream
        self._paused = False
        self._withheld = 0  # bytes pushed while paused: credit for them waits

    def bind(self, stream: MuxStream) -> None:
        """Say which mux stream this is."""
        self._mux_stream = stream

    # -- StreamSink -------------------------------------------------------------------------------

    def accepted(self) -> None:
        """The mux's: the peer took the stream."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def refused(self, error: ErrorFrame) -> None:
        """The mux's: the peer turned it down."""
        refusal = peer_error(error, OpenRefused)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(refusal)
        self._lost(refusal)

    def data(self, chunk: bytes | memoryview) -> None:
        """The mux's: bytes came."""
        size = len(chunk)
        self.bytes_in += size
        receiver = self._receiver
        if receiver is None:
            self._arrived(chunk)
        elif self._paused:
            # The receiver will keep it for a while; a view would pin the whole read it came in.
            self._withheld += size
            receiver.data(chunk if type(chunk) is bytes else bytes(chunk))
        else:
            receiver.data(chunk)
            if self._paused:
                self._withheld += size
            else:
                self._mux_stream.consumed(size)

    def eof(self) -> None:
        """The mux's: the peer is done sending."""
        self._ended()

    def reset(self, code: str, message: str) -> None:
        """The mux's: the stream is over."""
        error = StreamReset(message or "The peer gave the stream up.", code=code or "stream_reset")
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self._lost(error)

    def writable(self) -> None:
        """The mux's: it can be written to again."""
        self._open_gate()
        if self._receiver is not None:
            self._receiver.writable()

    # -- Stream -----------------------------------------------------------------------------------

    def _taken(self, count: int) -> None:
        if self._paused:
            self._withheld += count
        else:
            self._mux_stream.consumed(count)

    @property
    def full(self) -> bool:
        return self._mux_stream.full

    def send(self, data: bytes | memoryview) -> None:
        if not self.closed:
            self.bytes_out += len(data)
            self._mux_stream.send(data)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        withheld, self._withheld = self._withheld, 0
        if withheld:
            self._mux_stream.consumed(withheld)

    def finish(self) -> None:
        if not self.closed:
            self._mux_stream.finish()

    async def close(self) -> None:
        if not self.closed:
            self._chunks.clear()
            self._mux_stream.linger()
            self._lost(StreamReset("The stream was closed on this side.", code="closed"))

    def abort(self, code: str = "cancelled", message: str = "") -> None:
        if not self.closed:
            self._chunks.clear()
            self._mux_stream.reset(code, message)
            self._lost(StreamReset(message or "The stream was given up on this side.", code=code))
