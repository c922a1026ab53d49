"""Streams and links inside one process, chiefly for tests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from underpass.core.clock import Clock
from underpass.links.link import Link, Peer
from underpass.links.mux import MuxLimits
from underpass.links.stream import BufferedStream, Stream, StreamReset
from underpass.links.transports.transport import (
    WRITE_HIGH,
    WRITE_LOW,
    BaseTransport,
    Buffer,
    WriteBatch,
)

__all__ = ["MemoryTransport", "memory_links", "memory_pair", "memory_transports"]

_HIGH: Final = 128 << 10
_LOW: Final = 32 << 10


class _MemoryStream(BufferedStream):
    """One end of a pipe. What is written lands in the other end's buffer at once."""

    def __init__(self) -> None:
        super().__init__()
        self.other: _MemoryStream
        self._paused = False
        self._held = 0  # bytes pushed while paused
        self.finished = False

    def occupied(self) -> int:
        """Bytes that wait for the reader here."""
        return self._buffered + self._held

    def take_in(self, chunk: bytes | memoryview) -> None:
        self.bytes_in += len(chunk)
        if self.closed:
            return
        if self._receiver is None:
            self._arrived(chunk)
            return
        if self._paused:
            self._held += len(chunk)
        self._receiver.data(chunk)

    def take_eof(self) -> None:
        self._ended()

    def take_loss(self, error: StreamReset) -> None:
        self._lost(error)

    def relieve(self) -> None:
        """The other end has room again."""
        self._open_gate()
        if self._receiver is not None:
            self._receiver.writable()

    def _taken(self, count: int) -> None:
        before = self.occupied() + count
        if before > _LOW >= self.occupied():
            self.other.relieve()

    @property
    def full(self) -> bool:
        return self.other.occupied() > _HIGH

    def send(self, data: bytes | memoryview) -> None:
        if not (self.closed or self.finished) and data:
            self.bytes_out += len(data)
            self.other.take_in(data)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        held, self._held = self._held, 0
        if held:
            self.other.relieve()

    def finish(self) -> None:
        if not (self.closed or self.finished):
            self.finished = True
            self.other.take_eof()

    async def close(self) -> None:
        self.finish()
        if not self.closed:
            self._chunks.clear()
            self._buffered = self._held = 0
            self._lost(StreamReset("The stream was closed on this side.", code="closed"))
            if not self.other.finished:
                # What it writes from now on would reach nobody.
                asyncio.get_running_loop().call_soon(self.other.cut)

    def cut(self) -> None:
        """The other end is closed: writing is over, what was received can still be read."""
        self.finished = True
        self._open_gate()

    def abort(self, code: str = "cancelled", message: str = "") -> None:
        if not self.closed:
            self._chunks.clear()
            self._buffered = self._held = 0
            self._lost(StreamReset(message or "The stream was given up on this side.", code=code))
            self.other.take_loss(StreamReset(message or "The peer gave the stream up.", code=code))


def memory_pair() -> tuple[Stream, Stream]:
    """Two streams; what is written to one is read from the other."""
    a, b = _MemoryStream(), _MemoryStream()
    a.other, b.other = b, a
    return a, b


class MemoryTransport(BaseTransport):
    """One end of a link in memory; delivers in later turns of the loop, as a socket would."""

    def __init__(self) -> None:
        super().__init__("memory")
        self.other: MemoryTransport
        self.writes = 0
        """How many pieces were handed over; tests count them."""
        self._batch = WriteBatch(self._hand_over)
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[bytes] = deque()
        self._size = 0
        self._open = True  # whether the inbox is emptied
        self._scheduled = False
        self._ending = False

    def _set_reading(self, reading: bool) -> None:
        self._open = reading
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        while self._inbox and self._open:
            data = self._inbox.popleft()
            self._size -= len(data)
            self._arrived(data)
        if self._size <= WRITE_LOW and self.other.writing_paused:
            self.other.relieve()
        if self._ending and not self._inbox and not self._lost:
            self._gone(self._error)

    def relieve(self) -> None:
        """The other end took what was waiting."""
        self._resume_sink()

    def receive(self, data: bytes) -> int:
        """Take *data* from the other end; returns how much is waiting here."""
        self._inbox.append(data)
        self._size += len(data)
        self._schedule()
        return self._size

    def end(self, error: Exception | None = None) -> None:
        """The connection is over once what is waiting here was delivered."""
        self._ending = True
        self._error = error
        self._schedule()

    def _hand_over(self, data: bytes) -> None:
        self.writes += 1
        if self.other.receive(data) > WRITE_HIGH and not self.writing_paused:
            self._pause_sink()

    def write(self, data: Buffer) -> None:
        self._batch.add(data)

    def writelines(self, parts: Sequence[Buffer]) -> None:
        self._batch.extend(parts)

    def close(self) -> None:
        if not self.closing:
            self._batch.end(flush=True)
            self.closing = True
            self.other.end()
            self.drop_inbox()
            self.end()

    def abort(self) -> None:
        self.cut(None)

    def cut(self, error: Exception | None) -> None:
        """Lose the connection on both ends, as a cut cable would."""
        for end in (self, self.other):
            end.closing = True
            end.drop_inbox()
            end.end(error)

    def drop_inbox(self) -> None:
        """Nobody will read what is waiting here."""
        self._batch.end(flush=False)
        self._inbox.clear()
        self._size = 0


def memory_transports() -> tuple[MemoryTransport, MemoryTransport]:
    """The two ends of a connection in memory."""
    a, b = MemoryTransport(), MemoryTransport()
    a.other, b.other = b, a
    return a, b


def memory_links(
    dialler: Peer | None = None,
    acceptor: Peer | None = None,
    *,
    clock: Clock | None = None,
    limits: MuxLimits | None = None,
) -> tuple[Link, Link]:
    """Two ends of one link: the dialling one (an agent's, say) and the accepting one (a node's).

    Args:
        dialler: who dials: the *peer* of the accepting end. An agent named ``memory`` by default.
        acceptor: who accepts: the *peer* of the dialling end. A node by default.

    Both are not started yet; set their handlers, then ``start`` them.
    """
    near, far = memory_transports()
    agent = dialler or Peer("agent", "memory-agent", "memory", None, "0", frozenset())
    node = acceptor or Peer("node", "memory-node", "node", None, "0", frozenset())
    return (
        Link(near, node, dialler=True, id="memory", clock=clock, limits=limits),
        Link(far, agent, dialler=False, id="memory", clock=clock, limits=limits),
    )
