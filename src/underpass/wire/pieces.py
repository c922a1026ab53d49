"""Bytes that arrived in pieces, taken out in the lengths a format has, copied at most once."""

from __future__ import annotations

from collections import deque

__all__ = ["Buffer", "Pieces"]

Buffer = bytes | memoryview


class Pieces:
    """A queue of buffers that reads like one.

    Attributes:
        size: bytes in it.
    """

    __slots__ = ("_at", "_queue", "size")

    def __init__(self) -> None:
        self._queue: deque[Buffer] = deque()
        self._at = 0  # bytes of the first buffer that were taken already
        self.size = 0

    def add(self, data: Buffer) -> None:
        """Append *data*; a view is kept as it is until :meth:`keep`."""
        if len(data):
            self._queue.append(data)
            self.size += len(data)

    def peek(self, count: int) -> bytes:
        """The first *count* bytes, or fewer when there are fewer; nothing is taken."""
        head = self._queue[0] if self._queue else b""
        first = bytes(head[self._at : self._at + count])
        if len(first) == count or len(self._queue) < 2:
            return first
        for index, buffer in enumerate(self._queue):
            if index:
                first += bytes(buffer[: count - len(first)])
                if len(first) == count:
                    break
        return first

    def some(self, most: int) -> Buffer:
        """Take 1 to *most* bytes, as many as lie in one piece; there must be some."""
        head = self._queue[0]
        left = len(head) - self._at
        if left <= most:
            self._queue.popleft()
            piece = memoryview(head)[self._at :] if self._at else head
            self._at = 0
        else:
            left = most
            piece = memoryview(head)[self._at : self._at + most]
            self._at += most
        self.size -= left
        return piece

    def take(self, count: int) -> Buffer:
        """Take exactly *count* bytes; there must be as many."""
        if count == 0:
            return b""
        piece = self.some(count)
        if len(piece) == count:
            return piece
        parts = [piece]
        missing = count - len(piece)
        while missing:
            parts.append(piece := self.some(missing))
            missing -= len(piece)
        return b"".join(parts)

    def keep(self) -> None:
        """Copy views that stay: they may pin buffers far larger than themselves."""
        for index, buffer in enumerate(self._queue):
            if type(buffer) is not bytes:
                self._queue[index] = bytes(buffer[self._at :] if index == 0 else buffer)
                if index == 0:
                    self._at = 0

    def clear(self) -> None:
        """Drop everything."""
        self._queue.clear()
        self._at = self.size = 0
