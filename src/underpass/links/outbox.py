"""What goes out on a link, and in which order.

- While the transport takes bytes, a frame is written at once; the transport joins what one turn of
  the event loop wrote into one system call. That is most of the mux's speed.
- Once the transport says stop, or enough was written in one turn of the event loop, streams queue.
  When it goes on, interactive streams go first, then the others by turns.
- A stream is interactive when it was opened so, or while it behaves so (``habit.py``).
- A link over which somebody has just typed is *calm*: its frames have 16 KiB instead of 64, its
  turns 32 instead of 256, since a keystroke that arrives in the middle of a turn waits for its end.
  Where both ends are on one machine it also rests between turns (``link.py``).
- Control frames do not queue, since they are few and small; a peer that makes us write more than
  1 MiB of them while it does not read is cut off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from underpass.links.habit import Traffic
from underpass.wire.frames import MAX_PAYLOAD, FrameType, encode_frame

if TYPE_CHECKING:
    from underpass.links.mux_stream import MuxStream, StreamSink

__all__ = ["Buffer", "Outbox"]

Buffer = bytes | memoryview

QUANTUM: Final = 16 << 10
"""Bytes of a bulk frame on a calm link."""
_SMALL_BURST: Final = 64 << 10
"""Bytes handed over at a time while the transport is slow: what it does not take at once nothing
can overtake."""
_SLOW: Final = 0.001
"""Seconds a transport may need to go on taking bytes and still be called fast."""
TURN: Final = 256 << 10
"""Bytes of bulk written in one turn of the event loop."""
CALM_TURN: Final = 32 << 10
"""The same on a calm link."""
_OVERDRAFT: Final = 1 << 20


class Outbox:
    """One link's way out.

    Args:
        write: sends bytes; must not block.
        writelines: sends several buffers in order; must not block.
        turn_over: asks for :meth:`next_turn` in the event loop's next turn.
        overdrawn: the peer makes us write and does not read: end the link.
        monotonic: a clock in seconds.
        flush: hands over what this turn of the event loop has written so far.
        calmed: told when the link becomes calm, and when it no longer is.
        beside: whether bulk goes by beside the link.
    """

    def __init__(
        self,
        write: Callable[[Buffer], None],
        writelines: Callable[[Sequence[Buffer]], None],
        turn_over: Callable[[], None],
        overdrawn: Callable[[], None],
        monotonic: Callable[[], float],
        *,
        flush: Callable[[], None] = lambda: None,
        calmed: Callable[[bool], None] = lambda _calm: None,
        beside: Callable[[], bool] = lambda: False,
    ) -> None:
        self.write = write
        self.flush = flush
        self.writelines = writelines
        self.paused = False
        """The transport takes no more, or this turn of the event loop has written enough."""
        self.blocked = False
        """The transport takes no more."""
        self.quantum = MAX_PAYLOAD
        """Bytes of the largest DATA frame for now."""
        self.calm = False
        """Interactive streams are in use: keep every queue short."""
        self._calmed = calmed
        self._beside = beside
        self._turn_over = turn_over
        self._overdrawn = overdrawn
        self._fast: deque[MuxStream] = deque()
        self._bulk: deque[MuxStream] = deque()
        self._owing: set[MuxStream] = set()
        self.traffic = Traffic()
        """What the link carries; says which streams are quick."""
        self._typing = False
        self._pumping = False
        self._monotonic = monotonic
        self._blocked_at = 0.0
        self._slow = False
        self._written = 0
        self._turn_ended = False
        self._overdraft = 0
        self._pong: bytes | None = None
        self._shut = False

    # -- what the transport says ------------------------------------------------------------------

    def block(self) -> None:
        """The transport takes no more for now."""
        self.paused = self.blocked = True
        self._blocked_at = self._monotonic()

    def unblock(self) -> None:
        """The transport takes bytes again."""
        self.blocked = False
        self._slow = self._monotonic() - self._blocked_at > _SLOW
        self._overdraft = 0
        if self._shut:
            return
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self.write(pong)
        owing, self._owing = self._owing, set()
        for stream in owing:
            stream.consumed(0)
        if not (self.calm and self._turn_ended):  # else it rests until the next turn
            self.paused = False
            self._written = 0
        self.pump()

    def next_turn(self) -> None:
        """A new turn of the event loop has begun."""
        self._turn_ended = False
        self._written = 0
        if not self.blocked:
            self.paused = False
            self.pump()

    def shut(self) -> None:
        """The link is over: nothing more goes out."""
        self._shut = True
        self._excite()
        self._fast.clear()
        self._bulk.clear()
        self._owing.clear()

    # -- what wants to go out ---------------------------------------------------------------------

    def calm_down(self) -> None:
        """Somebody types, or is shown something: keep every queue short for a second or two."""
        self._typing = True
        if not (self.calm or self._shut):
            self.calm = True
            self.quantum = QUANTUM
            self._calmed(True)

    def tick(self) -> None:
        """A second has passed: nobody typed in it?"""
        if not self._typing:
            self._excite()
        self._typing = False
        self.traffic.tick(beside=self._beside())

    def _excite(self) -> None:
        if self.calm:
            self.calm = False
            self.quantum = MAX_PAYLOAD
            self._calmed(False)

    def control(self, frame: bytes) -> None:
        """Write a small frame ahead of everything queued."""
        if self._shut:
            return
        if self.blocked:
            self._overdraft += len(frame)
            if self._overdraft > _OVERDRAFT:
                self._overdrawn()
                return
        self.write(frame)

    def pong(self, payload: bytes) -> None:
        """Answer a ping; while the transport is blocked, only the latest."""
        frame = encode_frame(0, FrameType.PONG, payload)
        if self.blocked:
            self._pong = frame
        else:
            self.control(frame)

    def owe(self, stream: MuxStream) -> None:
        """*stream* has credit to grant once the transport is unblocked."""
        self._owing.add(stream)

    def forget(self, stream: MuxStream) -> None:
        """*stream* is over."""
        self._owing.discard(stream)

    def schedule(self, stream: MuxStream) -> None:
        """*stream* has bytes and credit: give it its turn."""
        if not stream.scheduled and not self._shut:
            stream.scheduled = True
            (self._fast if stream.interactive or stream.quick else self._bulk).append(stream)
        if not self.blocked:
            self.pump()

    def wrote(self, size: int) -> None:
        """Count what this turn of the event loop has written; enough is enough."""
        self.traffic.sent(size)
        self._written += size
        if self._written >= (CALM_TURN if self.calm else TURN):
            self.paused = True
            if not self._turn_ended:
                self._turn_ended = True
                self._turn_over()

    def pump(self) -> None:
        """Write what is queued until the transport blocks or the turn is over.

        While a calm link rests between two turns, what is fast goes out all the same.
        """
        if self._pumping:
            return
        self._pumping = True
        fast, bulk = self._fast, self._bulk
        try:
            while self._next(fast, bulk):
                parts: list[Buffer] = []
                relieved: list[tuple[MuxStream, StreamSink]] = []
                room = burst = CALM_TURN if self.calm else _SMALL_BURST if self._slow else TURN
                while room > 0 and (turns := self._next(fast, bulk)):
                    stream = turns.popleft()
                    stream.scheduled = False
                    if stream.gone or not stream.queued or stream.credit <= 0:
                        continue
                    if turns is fast and not (stream.interactive or stream.quick):
                        stream.scheduled = True  # it was quick, and has queued more since
                        bulk.append(stream)
                        continue
                    sink = stream.sink  # sending its end may be the end of the stream
                    room -= stream.take(min(self.quantum, room), parts)
                    if stream.relieved:
                        relieved.append((stream, sink))
                    if stream.queued and stream.credit > 0:
                        stream.scheduled = True
                        turns.append(stream)
                if parts:
                    self.writelines(parts)
                    self.wrote(burst - room)
                for stream, sink in relieved:
                    stream.tell_writable(sink)
        finally:
            self._pumping = False

    def _next(self, fast: deque[MuxStream], bulk: deque[MuxStream]) -> deque[MuxStream] | None:
        if not self.paused:
            return fast or bulk or None
        return (fast or None) if self.calm and self._turn_ended and not self.blocked else None
