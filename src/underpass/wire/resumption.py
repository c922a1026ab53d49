"""A byte stream that outlives the connections (*paths*) that carry it: one end, without I/O.

Each direction is a sequence of bytes with absolute offsets; its end takes one number, too, so that
"I have N" says whether the end arrived. What was sent is kept in a replay ring until the peer has
it. When a path is lost another takes its place: each end tells how far it got, and the other goes
on there. No byte is lost and none comes twice. While a path stands this costs four bytes and one
copy per record: header and bytes are joined once, ring and path share the result.

*Received* frees the sender's ring; *consumed* (the reader took it) opens the sender's window. They
are two, and no end ever stops reading a path, because a direction whose reader is slow must not
hold back the acknowledgements of the other.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from underpass.wire.resume_records import (
    HEADER,
    MAX_DATA,
    Ended,
    Item,
    Progress,
    Record,
    RecordDecoder,
    Reset,
    ResumptionError,
    encode_offsets,
    encode_record,
)

__all__ = ["ACK_EVERY", "WINDOW", "Event", "Resumption"]

WINDOW: Final = 4 << 20
"""Bytes sent and not consumed, at most; also the most a ring holds before the writer is stopped."""
ACK_EVERY: Final = 256 << 10
"""Bytes after which the peer hears at once how far we are."""
RECORD_COST: Final = 64
"""Bytes of memory a record is taken to need beside its own; tiny writes must not fill memory."""
_ROOM: Final = 512 << 10
"""Bytes by which a ring stops taking before it is full: what a reader hands over in one go."""
_QUEUE_HIGH: Final = 256 << 10
_QUEUE_LOW: Final = 64 << 10

Event = memoryview | Ended | Reset
"""What came: bytes, their end, or the stream's end."""


class Resumption:
    """One end of a resumable stream.

    Args:
        window: bytes, see :data:`WINDOW`; only tests have a reason to change it.
    """

    def __init__(self, *, window: int = WINDOW) -> None:
        self.window = window
        self.ready = False
        """There is a path and we know how far the peer is: records may go out."""
        self.greeted = False
        """The peer has been heard of at least once."""
        self.received = 0
        """What we have of the peer's direction, its end counted as one."""
        self.ended = False
        """The peer's end is among it."""
        self.finished = False
        """We said our end."""
        self.sent = 0
        """Offset of what goes out next."""
        self.end = 0
        """Offset after everything we were given to send."""
        self.acked = 0
        """What the peer has of our direction."""
        self.held = 0
        """Bytes of memory in the ring."""
        self.queued = 0
        """Bytes of it that wait to go out."""
        self._high = max(window - _ROOM, window // 2)
        self._consumed = 0
        self._peer_consumed = 0
        self._told_received = 0
        self._told_consumed = 0
        self._untold = False  # an acknowledgement may have been lost with its path
        self._base = 0  # offset of the first record in flight
        self._flight: deque[bytes] = deque()
        self._queue: deque[bytes] = deque()
        self._decoder = RecordDecoder()

    # -- paths ------------------------------------------------------------------------------------

    def dialled(self) -> None:
        """A path to the agent is open; the agent speaks first."""
        self.detach()

    def accepted(self, peer_received: int) -> bytes:
        """The client has opened a path and claims to have *peer_received*; what to say first.

        Raises:
            ResumptionError: that can't be.
        """
        self.detach()
        self._rewind(peer_received)
        self.ready = self.greeted = True
        return self._tell(hello=True)

    def detach(self) -> None:
        """The path is gone. The part of a record that came has come."""
        self.ready = False
        self._untold = self.greeted
        self._decoder = RecordDecoder()

    def _rewind(self, offset: int) -> None:
        """Go on at *offset*, which is what the peer has."""
        self._acknowledged(offset)
        flight, self._flight = self._flight, deque()
        if self._base < offset:  # a record arrived in part
            first = flight.popleft()
            rest = encode_record(Record.DATA, memoryview(first)[HEADER + offset - self._base :])
            self.held -= len(first) - len(rest)
            flight.appendleft(rest)
        self.queued += sum(map(len, flight))
        self._queue.extendleft(reversed(flight))
        self.sent = self._base = offset

    # -- sending ----------------------------------------------------------------------------------

    def push(self, data: bytes | memoryview) -> None:
        """Take *data* to send; dropped after :meth:`finish`."""
        size = len(data)
        if size > MAX_DATA:
            view = memoryview(data)
            for at in range(0, size, MAX_DATA):
                self.push(view[at : at + MAX_DATA])
        elif size and not self.finished:
            self.end += size
            self._enqueue(encode_record(Record.DATA, data))

    def finish(self) -> None:
        """Nothing follows what was pushed. Idempotent."""
        if not self.finished:
            self.finished = True
            self.end += 1
            self._enqueue(encode_record(Record.EOF))

    def _enqueue(self, record: bytes) -> None:
        self._queue.append(record)
        self.queued += len(record)
        self.held += len(record) + RECORD_COST

    def next_record(self) -> bytes | None:
        """What to hand to the path now; None when there is nothing or it may not go yet."""
        if not (self.ready and self._queue):
            return None
        record = self._queue[0]
        size = _size(record)
        if self.sent + size > self._peer_consumed + self.window + 1:  # one for the end
            return None
        self._queue.popleft()
        self._flight.append(record)
        self.queued -= len(record)
        self.sent += size
        return record

    @property
    def full(self) -> bool:
        """The writer should wait."""
        return self.held >= self._high or self.queued >= _QUEUE_HIGH

    @property
    def relieved(self) -> bool:
        """A writer that waits may go on."""
        return self.held <= self._high - self._high // 8 and self.queued <= _QUEUE_LOW

    def _acknowledged(self, offset: int) -> None:
        if not self.acked <= offset <= self.sent:
            raise ResumptionError(
                f"The peer claims {offset} bytes; it can have {self.acked} to {self.sent}."
            )
        self.acked = offset
        flight = self._flight
        while flight and self._base + _size(flight[0]) <= offset:
            record = flight.popleft()
            self._base += _size(record)
            self.held -= len(record) + RECORD_COST

    # -- receiving --------------------------------------------------------------------------------

    def feed(self, chunk: bytes | memoryview) -> list[Event]:
        """Take what a path brought; what it means, in order. Views are of *chunk*.

        How far the peer is comes in silence: look at :meth:`next_record` and :attr:`relieved`.

        Raises:
            ResumptionError: the peer broke the rules; the stream can't go on. Code
                ``resume_unsupported`` when it never seemed to know them.
        """
        try:
            return [
                event for item in self._decoder.feed(chunk) if (event := self._take(item))
            ]  # fmt: skip
        except ResumptionError as error:
            if self.greeted:
                raise
            raise ResumptionError(
                "The other end does not resume streams.", code="resume_unsupported"
            ) from error

    def _take(self, item: Item) -> Event | None:
        if isinstance(item, Progress):
            if item.hello is self.ready:
                raise ResumptionError("A greeting came out of turn.")
            if item.hello:
                self._rewind(item.received)
                self.ready = self.greeted = True
            if not self._peer_consumed <= item.consumed <= item.received:
                raise ResumptionError("The peer takes back what it said it had taken.")
            self._acknowledged(item.received)
            self._peer_consumed = item.consumed
            return None
        if isinstance(item, Reset):
            return item
        if self.ended or not self.ready:
            raise ResumptionError("Data came out of turn.")
        if isinstance(item, Ended):
            self.ended = True
            self.received += 1
            self._consumed += 1
            return item
        self.received += len(item)
        if self.received > self._told_consumed + self.window + 1:
            raise ResumptionError("The peer sent more than it may.", code="flow_control")
        return item

    def consume(self, count: int) -> None:
        """*count* of the bytes that came have left our memory."""
        self._consumed += count

    @property
    def owes(self) -> bool:
        """The peer does not know yet how far we are."""
        return self.ready and (
            self._untold
            or self.received != self._told_received
            or (self._consumed != self._told_consumed and not self.ended)
        )

    @property
    def owes_now(self) -> bool:
        """The same, and it should hear of it at once."""
        return self.ready and (
            self._untold
            or (self._consumed - self._told_consumed >= ACK_EVERY and not self.ended)
            or self.received - self._told_received >= ACK_EVERY
            or (self.ended and self.received != self._told_received)
        )

    def acknowledge(self) -> bytes:
        """The record that says how far we are."""
        return self._tell(hello=False)

    def _tell(self, *, hello: bool) -> bytes:
        self._untold = False
        self._told_received = self.received
        self._told_consumed = self._consumed
        return encode_offsets(self.received, self._consumed, hello=hello)

    # -- the end ----------------------------------------------------------------------------------

    @property
    def delivered(self) -> bool:
        """The peer has everything we sent, our end included."""
        return self.finished and self.acked == self.end

    @property
    def complete(self) -> bool:
        """Both directions came to their end, and both ends know, as far as can be told."""
        told = self._told_received == self.received and not self._untold
        return self.delivered and self.ended and told

    def clear(self) -> None:
        """Forget what was to be sent: the stream is over."""
        self._flight.clear()
        self._queue.clear()
        self.held = self.queued = 0


def _size(record: bytes) -> int:
    """How many numbers a DATA or EOF record takes."""
    return len(record) - HEADER or 1
