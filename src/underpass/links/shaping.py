"""Bandwidth limits: a stream whose bytes wait for their tokens, each way.

Nothing is read ahead: while bytes wait, the stream below is paused (or the writer told that the
stream is full), so at most what was under way when the limit bit is kept here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from underpass.core.errors import UnderpassError
from underpass.core.token_bucket import TokenBucket
from underpass.links.stream import Stream, StreamReset, WriteGate
from underpass.links.wrapped import WrappedStream
from underpass.wire.pieces import Buffer, Pieces

__all__ = ["TokenBucket", "shaped"]

_PIECE_SECONDS: Final = 0.01
"""What passes at a time is worth this much of the rate: smooth, and few timers."""
_SMALLEST: Final = 512
_LARGEST: Final = 64 << 10
_RECHECK: Final = 0.25
"""Seconds after which a changed rate has its effect on what is waiting."""
_SHORTEST: Final = 0.001
_STUCK: Final = 30.0
"""Seconds a closed stream may take to go on where no limit holds it back."""


def shaped(
    stream: Stream,
    *,
    inbound: Sequence[TokenBucket] = (),
    outbound: Sequence[TokenBucket] = (),
) -> Stream:
    """*stream* within limits; *stream* itself when there are none.

    Args:
        inbound: what is read from it goes through all of these.
        outbound: what is written to it.
    """
    return ShapedStream(stream, inbound, outbound) if inbound or outbound else stream


class ShapedStream(WrappedStream):
    """See :func:`shaped`."""

    def __init__(
        self, inner: Stream, inbound: Sequence[TokenBucket], outbound: Sequence[TokenBucket]
    ) -> None:
        super().__init__(inner)
        self._inbound = _Queue(inbound, self._inbound_due)
        self._outbound = _Queue(outbound, self._send_due)
        self._moved = WriteGate()
        self._sending = False
        self._start()

    # -- in -----------------------------------------------------------------------------------

    def _take_in(self, chunk: Buffer) -> None:
        self._inbound.pieces.add(chunk)

    def _next_piece(self) -> Buffer | None:
        return self._inbound.next()

    def _settle(self) -> None:
        self._inbound.pieces.keep()

    def _backlog(self) -> bool:
        return self._inbound.pieces.size > 0

    def _inbound_due(self) -> None:
        self._dry = False
        self._pump()

    # -- out ----------------------------------------------------------------------------------

    def send(self, data: Buffer) -> None:
        if not (self.closed or self._finished) and data:
            self.bytes_out += len(data)
            was_full = self._outbound.pieces.size > 0
            self._outbound.pieces.add(data)
            self._send_due(tell=was_full)
            self._outbound.pieces.keep()

    @property
    def full(self) -> bool:
        return self._outbound.pieces.size > 0 or super().full

    def writable(self) -> None:
        if self._outbound.pieces.size:
            self._send_due()
        else:
            super().writable()

    def _send_due(self, *, tell: bool = True) -> None:
        """Send what may go now; *tell* the writer if that is everything."""
        if self._sending:
            return
        waiting = self._outbound.pieces.size
        self._sending = True
        try:
            # A stream below that is full says so to us: nothing is piled up in it.
            while not self._inner.full and (piece := self._outbound.next()) is not None:
                self._inner.send(piece)
        finally:
            self._sending = False
        if waiting == self._outbound.pieces.size:
            return
        self._moved.open()
        if not self._outbound.pieces.size:
            if self._finished:
                self._inner.finish()
            if tell and not self.full:
                super().writable()

    def _end_output(self) -> None:
        if not self._outbound.pieces.size:
            self._inner.finish()

    # -- the end ------------------------------------------------------------------------------

    def lost(self, error: UnderpassError) -> None:
        self._outbound.clear()
        self._moved.open()
        super().lost(error)

    def _lost(self, error: UnderpassError) -> None:
        self._inbound.clear()
        super()._lost(error)

    async def close(self) -> None:
        self.finish()
        self._over(StreamReset("The stream was closed on this side.", code="closed"))
        try:
            while self._outbound.pieces.size:
                async with asyncio.timeout(_STUCK + self._outbound.due_in()):
                    await self._moved.wait()
        except TimeoutError:
            self.abort("timeout", "The stream did not take what was left to send.")
        except asyncio.CancelledError:
            self.abort()
            raise
        await self._inner.close()

    def abort(self, code: str = "cancelled", message: str = "") -> None:
        self._outbound.clear()
        self._moved.open()
        super().abort(code, message)


class _Queue:
    """Bytes of one direction that wait for their tokens.

    Args:
        due: called when the first of them may go; it calls :meth:`next`.
    """

    def __init__(self, buckets: Sequence[TokenBucket], due: Callable[[], None]) -> None:
        self.pieces = Pieces()
        self._buckets = tuple(buckets)
        self._due = due
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._reserved = 0  # bytes at the front that have their reservations
        self._marks: list[float] = []

    def next(self) -> Buffer | None:
        """The next piece, if it may go now; else the timer is set for it."""
        if not self.pieces.size:
            return None
        if not self._buckets:
            return self.pieces.some(_LARGEST)
        if not self._reserved:
            self._reserved = min(self.pieces.size, self._size())
            self._marks = [bucket.reserve(self._reserved) for bucket in self._buckets]
        wait = self.due_in()
        if wait > 0:
            if self._timer is None:
                self._timer = self._loop.call_later(
                    min(max(wait, _SHORTEST), _RECHECK), self._timed_out
                )
            return None
        piece = self.pieces.take(self._reserved)
        self._reserved = 0
        self._cancel()
        return piece

    def due_in(self) -> float:
        """Seconds until the first piece may go."""
        if not self._reserved:
            return 0.0
        marked = zip(self._buckets, self._marks, strict=True)
        return max(bucket.wait(mark) for bucket, mark in marked)

    def _size(self) -> int:
        """How many bytes to let pass at a time."""
        size = float(_LARGEST)
        for bucket in self._buckets:
            if bucket.rate is not None:
                size = min(size, max(bucket.available(), bucket.rate * _PIECE_SECONDS, _SMALLEST))
        return int(size)

    def _timed_out(self) -> None:
        self._timer = None
        self._due()

    def clear(self) -> None:
        """Nothing more passes; what was reserved is given back."""
        self.pieces.clear()
        if self._reserved:
            for bucket in self._buckets:
                bucket.give_back(self._reserved)
            self._reserved = 0
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
