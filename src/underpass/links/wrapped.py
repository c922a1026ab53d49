"""A stream over a stream: what shaping, compression and encryption share.

The wrapper is the receiver of the stream below. It decodes no more than its own reader takes: what
has come and is not decoded yet waits in its encoded form, and the stream below is paused, so a
small record that expands can fill nobody's memory.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from underpass.core.errors import UnderpassError
from underpass.links.stream import BufferedStream, Receiver, Stream, StreamReset
from underpass.wire.pieces import Buffer

__all__ = ["WrappedStream"]

_HIGH: Final = 128 << 10
"""Decoded bytes kept for a slow reader before the stream below is paused."""
_LOW: Final = 32 << 10


class WrappedStream(BufferedStream):
    """A stream whose bytes travel over *inner* in another form.

    A subclass says how they are decoded (:meth:`_take_in`, :meth:`_next_piece`, :meth:`_check_end`)
    and encoded (``send``, :meth:`_end_output`), and calls :meth:`_start` when it is ready.
    """

    def __init__(self, inner: Stream) -> None:
        super().__init__()
        self._inner = inner
        self._paused = False  # our reader has enough
        self._holding = False  # we have paused the stream below
        self._pumping = False
        self._attaching = False
        self._dry = True  # nothing more can be decoded of what has come
        self._input_over = False
        self._finished = False
        self._late_loss: UnderpassError | None = None

    def _start(self) -> None:
        self._inner.attach(self)

    # -- for the subclass -------------------------------------------------------------------------

    @abstractmethod
    def _take_in(self, chunk: Buffer) -> None:
        """Keep *chunk*, which came from below."""

    @abstractmethod
    def _next_piece(self) -> Buffer | None:
        """The next decoded piece; None when more has to come (or time to pass) first.

        Raises:
            StreamReset: what came can't be decoded; the stream ends with it.
        """

    def _settle(self) -> None:
        """Pieces were taken; what stays in encoded form stays longer than the callback."""

    def _backlog(self) -> bool:
        """Whether decoded bytes wait for something other than the reader."""
        return False

    def _check_end(self) -> None:
        """The stream below came to its end, and everything was decoded.

        Raises:
            StreamReset: it is not the end the peer meant.
        """

    @abstractmethod
    def _end_output(self) -> None:
        """``finish`` was called for the first time: send what has to be sent, end *inner*."""

    # -- Receiver of the stream below -------------------------------------------------------------

    def data(self, chunk: Buffer) -> None:
        """The inner stream's: bytes came."""
        if not self.closed:
            self._take_in(chunk)
            self._dry = False
            self._pump()

    def eof(self) -> None:
        """The inner stream's: it is at its end."""
        self._input_over = True
        self._pump()

    def lost(self, error: UnderpassError) -> None:
        """The inner stream's: it is over."""
        if self._input_over and not (self._at_eof or self.closed):
            # Everything came; only our reader has not taken it yet. It may.
            self._late_loss = error
            self.writable()
        else:
            self._lost(error)

    def writable(self) -> None:
        """The inner stream's: it can be written to again."""
        self._open_gate()
        if self._receiver is not None:
            self._receiver.writable()

    # -- decoding ---------------------------------------------------------------------------------

    def _stopped(self) -> bool:
        if self._paused or self._attaching:
            return True
        return self._buffered >= (_LOW if self._holding else _HIGH)

    def _pump(self) -> None:
        """Decode and deliver as much as the reader takes."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while not (self.closed or self._dry or self._stopped()):
                try:
                    piece = self._next_piece()
                except StreamReset as error:
                    self._fail(error)
                    break
                if piece is None:
                    self._dry = True
                else:
                    self._deliver(piece)
        finally:
            self._pumping = False
        if not self.closed:
            self._settle()
            self._regulate()

    def _deliver(self, piece: Buffer) -> None:
        self.bytes_in += len(piece)
        if self._receiver is not None and not self._chunks:
            self._receiver.data(piece)
        else:
            self._arrived(piece)

    def _regulate(self) -> None:
        backlog = self._backlog()
        hold = backlog or self._stopped()
        if hold != self._holding:
            self._holding = hold
            if hold:
                self._inner.pause()
            else:
                self._inner.resume()
        if self._input_over and self._dry and not (backlog or self._at_eof or self._attaching):
            try:
                self._check_end()
            except StreamReset as error:
                self._fail(error)
                return
            self._ended()
            if self._late_loss is not None:
                self._lost(self._late_loss)

    def _fail(self, error: StreamReset) -> None:
        """End both ways because of what the peer sent."""
        self._lost(error)
        self._inner.abort(error.code, error.message)

    # -- Stream -----------------------------------------------------------------------------------

    def _taken(self, count: int) -> None:
        if self._holding and not self._attaching:
            self._pump()

    def attach(self, receiver: Receiver) -> None:
        # What is decoded while the buffer is pushed would overtake it.
        self._attaching = True
        try:
            super().attach(receiver)
        finally:
            self._attaching = False
        self._pump()

    @property
    def full(self) -> bool:
        return self._late_loss is None and self._inner.full

    def pause(self) -> None:
        self._paused = True
        if not self._pumping and not self.closed:
            self._regulate()

    def resume(self) -> None:
        self._paused = False
        self._pump()

    def finish(self) -> None:
        if not (self.closed or self._finished):
            self._finished = True
            self._end_output()

    async def close(self) -> None:
        self.finish()
        self._over(StreamReset("The stream was closed on this side.", code="closed"))
        await self._inner.close()

    def abort(self, code: str = "cancelled", message: str = "") -> None:
        self._over(StreamReset(message or "The stream was given up on this side.", code=code))
        self._inner.abort(code, message)

    def _over(self, error: StreamReset) -> None:
        self._chunks.clear()
        self._buffered = 0
        self._lost(error)
