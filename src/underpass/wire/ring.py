"""A bounded byte log with absolute offsets: what lets a terminal's output be taken up again.

Every byte a terminal ever printed has a number, counted from 0. The ring keeps the newest of them
and knows which ones those are, so a reader who comes back with "I have N" gets exactly the rest,
or learns how much is gone. Readers are plain integers kept by whoever reads; the ring does not
know them, so a slow reader costs nothing and delays nobody.
"""

from __future__ import annotations

from collections import deque

__all__ = ["ByteRing"]

_BLOCK = 65536


class ByteRing:
    """Keeps the last *capacity* bytes of an endless byte sequence.

    Memory follows what was written, up to *capacity* plus two blocks: nothing is allocated ahead,
    because most of a few hundred idle sessions never print 2 MiB.

    Args:
        capacity: how many bytes to keep, at least 1 (default 2 MiB: spec 1, "Sessions survive").
        start: the absolute offset of the first byte to come.
        block: bytes per allocation; only tests have a reason to change it.
    """

    __slots__ = ("_base", "_block", "_blocks", "_end", "_start", "capacity")

    def __init__(
        self, capacity: int = 2 * 1024 * 1024, *, start: int = 0, block: int = _BLOCK
    ) -> None:
        if capacity < 1 or start < 0 or block < 1:
            raise ValueError("capacity and block must be at least 1, start at least 0")
        self.capacity = capacity
        self._block = block
        # Every block but the last is full, so an offset is found by division; the first block
        # begins at `_base`, which may lie before `_start`.
        self._blocks: deque[bytearray] = deque()
        self._base = start
        self._start = start
        self._end = start

    @property
    def start(self) -> int:
        """Absolute offset of the oldest byte still here."""
        return self._start

    @property
    def end(self) -> int:
        """Absolute offset after the newest byte: the number of bytes ever appended."""
        return self._end

    def __len__(self) -> int:
        return self._end - self._start

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Add *data* at the end; returns how many of the oldest bytes that pushed out."""
        size = len(data)
        position = 0
        if size > self.capacity:
            # Only the tail can survive: begin afresh there instead of copying what is dropped.
            position = size - self.capacity
            self._blocks.clear()
            self._base = self._end + position
        with memoryview(data) as view:
            while position < size:
                if not self._blocks or len(self._blocks[-1]) == self._block:
                    self._blocks.append(bytearray())
                last = self._blocks[-1]
                piece = view[position : position + self._block - len(last)]
                last += piece
                position += len(piece)
                piece.release()
        self._end += size
        return self.release(self._end - self.capacity)

    def release(self, offset: int) -> int:
        """Forget the bytes before *offset* (at most all); returns how many that were."""
        offset = min(offset, self._end)
        dropped = offset - self._start
        if dropped <= 0:
            return 0
        self._start = offset
        while self._blocks and self._base + self._block <= offset:
            self._blocks.popleft()
            self._base += self._block
        if offset == self._end:
            self._blocks.clear()
            self._base = offset
        return dropped

    def clamp(self, offset: int) -> int:
        """Where a reader who has *offset* bytes goes on.

        That is *offset* itself when the byte is here, :attr:`start` when it was dropped (the
        difference is what the reader missed), :attr:`end` when nothing that far was ever written.
        """
        return min(max(offset, self._start), self._end)

    def read(self, offset: int, limit: int) -> bytes:
        """At most *limit* bytes from absolute *offset*; empty at :attr:`end`.

        Raises:
            ValueError: when *offset* is outside what the ring holds (use :meth:`clamp` first).
        """
        if not self._start <= offset <= self._end:
            raise ValueError(f"offset {offset} is outside {self._start}..{self._end}")
        stop = min(self._end, offset + max(limit, 0))
        if stop == offset:
            return b""
        index, inner = divmod(offset - self._base, self._block)
        last = (stop - 1 - self._base) // self._block
        if index == last:
            with memoryview(self._blocks[index]) as view:
                return bytes(view[inner : inner + stop - offset])
        parts = [self._blocks[index][inner:]]
        parts += [self._blocks[middle] for middle in range(index + 1, last)]
        tail_base = self._base + last * self._block
        parts.append(self._blocks[last][: stop - tail_base])
        return b"".join(parts)
