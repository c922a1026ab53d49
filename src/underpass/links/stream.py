"""A stream: one ordered flow of bytes each way, with half-close and back-pressure.

This is the whole interface entry points and openers are written against, whatever carries the
bytes: a mux stream of a link, a socket, memory. ``read``/``write``/``drain`` are for code that
looks at the bytes; :func:`underpass.links.relay.relay` uses the *push* half of the interface
(``attach``, ``pause``, ``resume``, ``full``, ``finish``), which moves bytes from one protocol's
callback straight into the other transport's write without a coroutine in between.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import Final, Protocol

from underpass.core.errors import UnderpassError

__all__ = ["CHUNK", "BufferedStream", "Receiver", "Stream", "StreamReset", "WriteGate"]

CHUNK: Final = 65536
"""Bytes a read gives at most unless asked otherwise."""


class StreamReset(UnderpassError):
    """The stream ended before its end: the peer or the link gave it up. ``code`` says why."""

    code, status, close_code = "stream_reset", 502, 4502


class Receiver(Protocol):
    """Where a stream pushes what arrives, once attached."""

    def data(self, chunk: bytes | memoryview) -> None:
        """Bytes arrived."""
        ...

    def eof(self) -> None:
        """The peer is done sending; nothing more comes."""
        ...

    def lost(self, error: UnderpassError) -> None:
        """The stream is over both ways; nothing more comes or goes."""
        ...

    def writable(self) -> None:
        """``full`` was true and is false again."""
        ...


class Stream(ABC):
    """One ordered byte flow each way. Owned by one reader and one writer at a time."""

    closed: bool = False
    """No more use: closed or aborted here, or ended by the peer."""
    bytes_in: int = 0
    """Bytes received so far."""
    bytes_out: int = 0
    """Bytes handed to :meth:`write` so far."""

    # -- pull ---------------------------------------------------------------------------------

    @abstractmethod
    async def read(self, max_bytes: int = CHUNK) -> bytes:
        """The next 1 to *max_bytes* bytes, or ``b""`` at the end.

        Raises:
            StreamReset: when the stream was reset, or closed on this side.
        """

    @abstractmethod
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*; never blocks. Call :meth:`drain` now and then to bound memory.

        On a stream that is over, the bytes are dropped (``drain`` and ``read`` say why).
        """

    @abstractmethod
    async def drain(self) -> None:
        """Return when little enough is waiting to be sent.

        Raises:
            StreamReset: when the stream is over.
        """

    async def write_eof(self) -> None:
        """Half-close: the peer reads the end after everything written; reading goes on."""
        self.finish()

    @abstractmethod
    async def close(self) -> None:
        """End both ways gracefully: what was written still arrives. Idempotent; never raises."""

    @abstractmethod
    def abort(self, code: str = "cancelled", message: str = "") -> None:
        """End both ways at once; unsent bytes are dropped, the peer's end reads a reset."""

    # -- push ---------------------------------------------------------------------------------

    @abstractmethod
    def attach(self, receiver: Receiver) -> None:
        """Push from now on: what is buffered first, then everything as it arrives."""

    @abstractmethod
    def pause(self) -> None:
        """Slow the peer down: the receiver has enough. What is under way may still be pushed."""

    @abstractmethod
    def resume(self) -> None:
        """Undo :meth:`pause`."""

    @abstractmethod
    def finish(self) -> None:
        """What ``write_eof`` does, without waiting."""

    @abstractmethod
    def send(self, data: bytes | memoryview) -> None:
        """:meth:`write` for bytes that nobody changes any more: kept, not copied."""

    @property
    @abstractmethod
    def full(self) -> bool:
        """Enough is waiting to be sent; ``Receiver.writable`` tells when that is over."""


class WriteGate:
    """Wakes those who wait in ``drain``."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait for the next :meth:`open`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def open(self) -> None:
        """Let all waiters go on."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class BufferedStream(Stream):
    """The receiving half every stream shares: a buffer for ``read``, or a receiver to push to.

    A subclass calls :meth:`_arrived`, :meth:`_ended` and :meth:`_lost`, and learns through
    :meth:`_taken` how many bytes the reader took.
    """

    def __init__(self) -> None:
        self.closed = False
        self.bytes_in = 0
        self.bytes_out = 0
        self._receiver: Receiver | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._at_eof = False
        self._error: UnderpassError | None = None
        self._read_waiter: asyncio.Future[None] | None = None
        self._gate: WriteGate | None = None

    # -- for the subclass -----------------------------------------------------------------------

    def _taken(self, count: int) -> None:
        """The reader took *count* bytes out of the buffer."""

    def _arrived(self, chunk: bytes | memoryview) -> None:
        """Buffer *chunk* for ``read``; a view is copied, since it would pin a far larger buffer."""
        self._chunks.append(chunk if type(chunk) is bytes else bytes(chunk))
        self._buffered += len(chunk)
        self._wake_reader()

    def _ended(self) -> None:
        """The peer is done sending."""
        if self._at_eof:
            return
        self._at_eof = True
        if self._receiver is not None:
            self._receiver.eof()
        else:
            self._wake_reader()

    def _lost(self, error: UnderpassError) -> None:
        """The stream is over both ways because of *error*."""
        if self._error is not None:
            return
        self._error = error
        self.closed = True
        self._wake_reader()
        self._open_gate()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(error)

    def _wake_reader(self) -> None:
        waiter, self._read_waiter = self._read_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _open_gate(self) -> None:
        if self._gate is not None:
            self._gate.open()

    # -- Stream ---------------------------------------------------------------------------------

    async def read(self, max_bytes: int = CHUNK) -> bytes:
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        while not self._chunks:
            if self._at_eof:
                return b""
            if self._error is not None:
                raise self._error
            if self._receiver is not None:
                raise RuntimeError("this stream pushes to a receiver")
            if self._read_waiter is not None:
                raise RuntimeError("another task is reading this stream")
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._read_waiter = waiter
            try:
                await waiter
            finally:
                if self._read_waiter is waiter:
                    self._read_waiter = None
        chunk = self._chunks.popleft()
        if len(chunk) > max_bytes:
            self._chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        self._buffered -= len(chunk)
        self._taken(len(chunk))
        return chunk

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.send(data if type(data) is bytes else bytes(data))

    async def drain(self) -> None:
        while True:
            if self._error is not None:
                raise self._error
            if self.closed or not self.full:
                return
            if self._gate is None:
                self._gate = WriteGate()
            await self._gate.wait()

    def attach(self, receiver: Receiver) -> None:
        if self._read_waiter is not None:
            raise RuntimeError("another task is reading this stream")
        self._receiver = receiver
        while self._chunks and self._receiver is receiver:
            chunk = self._chunks.popleft()
            self._buffered -= len(chunk)
            receiver.data(chunk)
            self._taken(len(chunk))
        if self._error is not None:
            self._receiver = None
            receiver.lost(self._error)
        elif self._at_eof:
            receiver.eof()
