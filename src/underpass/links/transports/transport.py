"""The seam every carrier fits: a transport that writes bytes, and a sink that is fed what arrives.

A handshake runs over the same transport the link gets afterwards. The sink can be switched at any
time with :meth:`Transport.set_sink`, which is what ``set_protocol`` is to asyncio. :class:`Inbox`
is a sink for code that would rather await bytes::

    inbox = Inbox(transport)
    async with asyncio.timeout(10):
        while (done := handshake.feed(await inbox.read())) is None:
            transport.write(handshake.take())
    link = Link(transport, peer, dialler=False, leftover=inbox.detach())

``detach`` stops the transport from reading and gives the bytes that came behind the handshake (give
back with ``unread`` what your parser holds of them). ``Link.start`` takes them and lets the
transport read again, so nothing is lost in between. Until there is a sink, what arrives is kept
and reading is paused.

Writers may call ``write`` many times in one turn of the event loop: a transport sends what one
turn wrote in one piece (:class:`WriteBatch`). uvloop did that itself up to 0.22; now it makes
a system call of each write, as asyncio always has.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol

from underpass.core.errors import TooLarge, Unavailable

__all__ = [
    "BaseTransport",
    "Buffer",
    "Carrier",
    "Inbox",
    "Transport",
    "TransportSink",
    "WriteBatch",
]

Carrier = Literal["tcp", "tls", "websocket", "quic", "memory"]
Buffer = bytes | memoryview

WRITE_HIGH: Final = 64 << 10
"""Bytes a link keeps unsent in its own memory before it stops taking: nothing overtakes them."""
WRITE_LOW: Final = 16 << 10
LARGEST_BATCH: Final = 128 << 10
"""Bytes that are handed over without waiting for the turn to end."""
_JOIN: Final = 4096
"""Bytes per buffer above which copying costs more than one more buffer in the system call."""


class TransportSink(Protocol):
    """What a transport feeds."""

    def feed(self, data: bytes) -> None:
        """Bytes arrived."""
        ...

    def pause_writing(self) -> None:
        """The transport holds enough unsent bytes."""
        ...

    def resume_writing(self) -> None:
        """The transport can take more again."""
        ...

    def lost(self, error: Exception | None) -> None:
        """The connection is gone; None when it ended in an orderly way. Called once."""
        ...


class Transport(ABC):
    """A connection that carries bytes in order, both ways, without half-close."""

    carrier: Carrier
    peer_address: str | None = None
    """``host:port`` of the other end, when there is one."""
    local: bool = False
    """The other end is on this machine: both work on the same processors."""
    closing: bool = False
    """:meth:`close` or :meth:`abort` was called, or the connection is gone."""
    writing_paused: bool = False
    """The sink was told to pause writing and not yet to resume."""
    binding: bytes = b""
    """What names this very connection to both ends, for the handshake to cover; empty: nothing."""
    ordered: bool = True
    """Frames of different streams arrive in the order they were written."""

    @abstractmethod
    def set_sink(self, sink: TransportSink) -> None:
        """Feed *sink* from now on. If the connection is already gone, *sink* learns it at once."""

    @abstractmethod
    def write(self, data: Buffer) -> None:
        """Send *data*; dropped when closing. Never blocks, never raises."""

    @abstractmethod
    def writelines(self, parts: Sequence[Buffer]) -> None:
        """Send *parts* one after another."""

    def flush(self) -> None:  # noqa: B027 - what does not collect has nothing to hand over
        """Hand over what was written, instead of when this turn of the event loop ends."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Feed nothing until :meth:`resume_reading`. Idempotent."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Undo :meth:`pause_reading`. Idempotent."""

    def framed(self) -> None:  # noqa: B027 - on one pipe there is nothing to do
        """The handshake is over: from now on whole frames (``wire/frames.py``) are written and fed.

        Only a carrier that sends the frames of each stream a way of their own needs to know.
        """

    @abstractmethod
    def close(self) -> None:
        """Send what was written, then end. Idempotent."""

    @abstractmethod
    def abort(self) -> None:
        """End at once. Idempotent."""

    async def ended(self) -> None:  # noqa: B027 - see below
        """Wait, not long, until what was written before :meth:`close` has arrived or never will.

        Returns at once where the kernel sees to that without us.
        """


class WriteBatch:
    """Collects what one turn of the event loop writes and hands it over in one piece.

    Args:
        write: given the joined bytes.
        writelines: given large buffers as they are; without it they are joined too.
    """

    __slots__ = ("_call_soon", "_open", "_parts", "_scheduled", "_write", "_writelines", "size")

    def __init__(
        self,
        write: Callable[[bytes], None],
        writelines: Callable[[Sequence[Buffer]], None] | None = None,
    ) -> None:
        self._write = write
        self._writelines = writelines
        self._call_soon = asyncio.get_running_loop().call_soon
        self._parts: list[Buffer] = []
        self._scheduled = False
        self._open = True
        self.size = 0

    def add(self, data: Buffer) -> None:
        """Take *data*; dropped after :meth:`end`."""
        if self._open:
            self._parts.append(data)
            self.size += len(data)
            if not self._scheduled:
                self._scheduled = True
                self._call_soon(self._turn)
            elif self.size >= LARGEST_BATCH:
                self._flush()

    def extend(self, parts: Sequence[Buffer]) -> None:
        """Take *parts*; dropped after :meth:`end`."""
        if self._open:
            for part in parts:
                self.size += len(part)
            self._parts += parts
            if self.size >= LARGEST_BATCH:
                self._flush()
            elif not self._scheduled:
                self._scheduled = True
                self._call_soon(self._turn)

    def flush(self) -> None:
        """Hand over what there is now."""
        if self._parts:
            self._flush()

    def _turn(self) -> None:
        self._scheduled = False
        if self._parts:
            self._flush()

    def _flush(self) -> None:
        parts = self._parts
        size = self.size
        self._parts = []
        self.size = 0
        if len(parts) == 1 and type(parts[0]) is bytes:
            self._write(parts[0])
        elif self._writelines is not None and size > _JOIN * len(parts):
            self._writelines(parts)
        else:
            self._write(b"".join(parts))

    def end(self, *, flush: bool) -> None:
        """Take nothing more; hand over what there is, or forget it."""
        self._open = False
        if flush and self._parts:
            self._flush()
        self._parts = []
        self.size = 0


class BaseTransport(Transport):
    """What the network transports share: the sink, and what arrives while nobody may be fed.

    A subclass calls :meth:`_arrived`, :meth:`_pause_sink`, :meth:`_resume_sink` and :meth:`_gone`,
    and implements :meth:`_set_reading`.
    """

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.peer_address = None
        self.closing = False
        self.writing_paused = False
        self._sink: TransportSink | None = None
        self._feed: Callable[[bytes], None] | None = None  # the sink's, when nothing stands between
        self._held: deque[bytes] = deque()
        self._reading = True  # what the owner wants
        self._lost = False
        self._told = False
        self._error: Exception | None = None

    @abstractmethod
    def _set_reading(self, reading: bool) -> None:
        """Stop or go on reading from the network, if that is still open."""

    def _arrived(self, data: bytes) -> None:
        if self._feed is not None:
            self._feed(data)
            return
        if not self._held:
            self._set_reading(False)
        self._held.append(data)

    def _connect_sink(self) -> None:
        """Let bytes go straight to the sink if it wants them and none are held."""
        straight = self._sink is not None and self._reading and not self._held
        self._feed = self._sink.feed if self._sink is not None and straight else None

    def _feed_held(self) -> None:
        """Feed what was held, in order, as long as the sink wants it."""
        had = bool(self._held)
        while self._held and self._reading and self._sink is not None:
            # Nothing new overtakes it: what arrives meanwhile is held, too.
            self._sink.feed(self._held.popleft())
        self._connect_sink()
        if had and self._feed is not None and not self.closing:
            self._set_reading(True)
        self._tell_lost()

    def _pause_sink(self) -> None:
        self.writing_paused = True
        if self._sink is not None:
            self._sink.pause_writing()

    def _resume_sink(self) -> None:
        self.writing_paused = False
        if self._sink is not None:
            self._sink.resume_writing()

    def _gone(self, error: Exception | None) -> None:
        self.closing = True
        self._lost = True
        self._error = error
        self._tell_lost()

    def _tell_lost(self) -> None:
        if self._lost and not self._told and not self._held and self._sink is not None:
            self._told = True
            self._sink.lost(self._error)

    def set_sink(self, sink: TransportSink) -> None:
        self._sink = sink
        self._feed = None
        self._told = False
        if self.writing_paused:
            sink.pause_writing()
        self._feed_held()

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._feed = None
            if not self.closing:
                self._set_reading(False)

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            if self._held:
                self._feed_held()
            else:
                self._connect_sink()
                if not self.closing:
                    self._set_reading(True)


class Inbox:
    """A transport's pull side, for a handshake.

    Args:
        transport: its sink becomes this inbox.
        limit: bytes it keeps at most; more is a :class:`TooLarge` for the reader.
    """

    def __init__(self, transport: Transport, limit: int = 64 << 10) -> None:
        self._transport = transport
        self._limit = limit
        self._buffer = bytearray()
        self._lost = False
        self._waiter: asyncio.Future[None] | None = None
        transport.set_sink(self)
        transport.resume_reading()

    def feed(self, data: bytes) -> None:
        """The transport's: bytes arrived."""
        self._buffer += data
        if len(self._buffer) > self._limit:
            self._transport.pause_reading()
        self._wake()

    def pause_writing(self) -> None:
        """The transport's: a handshake writes too little to care."""

    def resume_writing(self) -> None:
        """The transport's: a handshake writes too little to care."""

    def lost(self, error: Exception | None) -> None:
        """The transport's: the connection is gone."""
        del error
        self._lost = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def read(self) -> bytes:
        """What has arrived, at least one byte. Put a deadline around it.

        Raises:
            Unavailable: code ``connection_lost`` when the peer has gone.
            TooLarge: when more came than *limit*.
        """
        while not self._buffer:
            if self._lost:
                raise Unavailable(
                    "The peer closed the connection during the handshake.", code="connection_lost"
                )
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if len(self._buffer) > self._limit:
            raise TooLarge(f"The peer sent more than {self._limit} bytes before it was asked to.")
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def unread(self, data: bytes) -> None:
        """Put back bytes that belong to what comes next."""
        self._buffer[:0] = data

    def detach(self) -> bytes:
        """Stop reading and give the bytes nobody has read: ``Link(..., leftover=...)``."""
        self._transport.pause_reading()
        data = bytes(self._buffer)
        self._buffer.clear()
        return data
