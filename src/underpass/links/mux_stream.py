"""One stream of a mux: its credit, its queue, and how it begins and ends. No event loop here."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from underpass.links.habit import SMALL, Habit
from underpass.links.outbox import Buffer
from underpass.wire.flow import ReceiveWindow
from underpass.wire.frames import (
    AcceptFrame,
    EndFrame,
    ErrorFrame,
    FrameType,
    encode_frame,
    encode_payload,
    pack_header,
)

if TYPE_CHECKING:
    from underpass.links.mux import Mux

__all__ = ["NO_SINK", "MuxStream", "StreamSink"]

QUEUE_HIGH: Final = 128 << 10
QUEUE_LOW: Final = 32 << 10
_JOIN: Final = 4096
"""Bytes up to which one concatenation is cheaper than one more buffer to write."""
_EOF: Final = FrameType.EOF << 24
_WINDOW_OF_4: Final = FrameType.WINDOW << 24 | 4


class StreamSink(Protocol):
    """What happens to one stream."""

    def accepted(self) -> None:
        """The peer accepted the stream we opened."""
        ...

    def refused(self, error: ErrorFrame) -> None:
        """The peer refused the stream we opened; it is over."""
        ...

    def data(self, chunk: Buffer) -> None:
        """Bytes came. Say :meth:`MuxStream.consumed` once they are out of memory."""
        ...

    def eof(self) -> None:
        """The peer is done sending."""
        ...

    def reset(self, code: str, message: str) -> None:
        """The stream is over both ways."""
        ...

    def writable(self) -> None:
        """:attr:`MuxStream.full` was true and is false again."""
        ...


class _NoSink:
    """The sink of a stream nobody listens to: lets everything fall."""

    def accepted(self) -> None: ...

    def refused(self, error: ErrorFrame) -> None: ...

    def data(self, chunk: Buffer) -> None: ...

    def eof(self) -> None: ...

    def reset(self, code: str, message: str) -> None: ...

    def writable(self) -> None: ...


NO_SINK: Final = _NoSink()


class _LingerSink(_NoSink):
    """The sink of a stream that was closed here while the peer may still send."""

    def __init__(self, stream: MuxStream) -> None:
        self._stream = stream

    def data(self, chunk: Buffer) -> None:
        # Nobody will read this. Say so, as TCP does, unless that would drop what we still owe.
        if self._stream.eof_sent:
            self._stream.reset("closed", "The stream was closed at the other end.")


class MuxStream:
    """One stream of a mux. Not for entry points; they get an ``underpass.links.stream.Stream``."""

    __slots__ = (
        "_chunks",
        "_eof_wanted",
        "_mux",
        "_outbox",
        "credit",
        "eof_received",
        "eof_sent",
        "full",
        "gone",
        "habit",
        "id",
        "interactive",
        "linger_until",
        "offered",
        "opening",
        "queued",
        "quick",
        "scheduled",
        "sink",
        "window",
    )

    def __init__(self, mux: Mux, stream_id: int, *, interactive: bool, credit: int) -> None:
        self._mux = mux
        self._outbox = mux.outbox
        self.id = stream_id
        self.sink: StreamSink = NO_SINK
        self.interactive = interactive
        self.quick = False  # what is queued may go before bulk
        self.habit: Habit | None = None  # once it was worth looking at
        self.credit = credit  # bytes the peer still takes
        self.queued = 0  # bytes waiting here for credit or for the transport
        self.full = False  # enough is queued; ``sink.writable`` comes when it is little again
        self.scheduled = False  # stands in one of the outbox's queues
        self.window = ReceiveWindow(mux.budget, mux.limits.stream_window)
        self.opening = False  # we opened it and have no answer yet
        self.offered = False  # the peer opened it and we have not answered yet
        self.eof_received = False
        self.eof_sent = False
        self.gone = False
        self.linger_until = 0.0
        self._chunks: deque[Buffer] = deque()
        self._eof_wanted = False

    # -- answers to an offer ----------------------------------------------------------------------

    def accept(self) -> None:
        """Take the stream the peer offered."""
        if self.offered:
            self.offered = False
            self._mux.pending -= 1
            self.window.widen()
            answer = encode_payload(AcceptFrame(self.window.size))
            self._outbox.control(encode_frame(self.id, FrameType.ACCEPT, answer))

    def refuse(self, error: ErrorFrame) -> None:
        """Turn the stream the peer offered down; it is over."""
        if self.offered:
            self._mux.drop(self)
            self._outbox.control(encode_frame(self.id, FrameType.REFUSE, encode_payload(error)))

    # -- sending ----------------------------------------------------------------------------------

    def send(self, data: Buffer) -> None:
        """Send *data*, which nobody changes any more. Dropped when the stream is over."""
        if self._eof_wanted or self.gone:
            return
        size = len(data)
        outbox = self._outbox
        first = False
        if self.interactive:
            first = True
            outbox.calm_down()
        elif outbox.paused or outbox.traffic.heavy:
            first = self._judge(size)
        elif self.quick:
            self.quick = False
        if (
            not self.queued
            and size <= self.credit
            and size <= outbox.quantum
            and (not outbox.paused or (first and not outbox.blocked))
        ):
            self.credit -= size
            if size > _JOIN:
                outbox.writelines((pack_header(self.id, size), data))
                outbox.wrote(size)
            elif size:
                outbox.write(pack_header(self.id, size) + data)
                if first and outbox.traffic.heavy:
                    outbox.flush()  # this turn may have a lot to read and write before its end
        elif size:
            self._chunks.append(data)
            self.queued += size
            if self.queued > QUEUE_HIGH:
                self.full = True
            if self.credit > 0:
                outbox.schedule(self)

    def _judge(self, size: int) -> bool:
        """Whether *size* bytes to be sent now may go before bulk (``habit.py``)."""
        habit = self.habit
        if habit is None:
            habit = self.habit = Habit(self._outbox.traffic)
        self.quick = habit.sending(size, behind=self.queued)
        if self.quick and habit.typing:
            self._outbox.calm_down()
        return self.quick

    def noticed(self, size: int) -> None:
        """*size* bytes came beside bulk."""
        habit = self.habit
        if habit is None:
            habit = self.habit = Habit(self._outbox.traffic)
        habit.receiving(size)
        if size <= SMALL and habit.typing:
            self._outbox.calm_down()

    def finish(self) -> None:
        """Half-close after everything sent so far. Idempotent."""
        if not (self._eof_wanted or self.gone):
            self._eof_wanted = True
            if not self.queued:
                self._outbox.control(pack_header(self.id, _EOF))
                self._end_sent()

    def _end_sent(self) -> None:
        self.eof_sent = True
        if self.eof_received:
            self._mux.drop(self)

    def reset(self, code: str, message: str = "") -> None:
        """End the stream both ways now; what is queued is dropped. Idempotent."""
        if self.offered:
            self.refuse(ErrorFrame(code, message or "The stream was given up.", 502))
        elif not self.gone:
            self._mux.drop(self)
            why = encode_payload(EndFrame(code[:64], message[:1024]))
            self._outbox.control(encode_frame(self.id, FrameType.RESET, why))

    def linger(self) -> None:
        """Nobody reads any more: finish sending, then end, by force after ``limits.linger``."""
        if not self.gone:
            self.sink = _LingerSink(self)
            self.finish()
            self._mux.linger(self)

    # -- receiving --------------------------------------------------------------------------------

    def consumed(self, count: int) -> None:
        """*count* received bytes are out of memory: the peer may send as many again."""
        window = self.window
        window.owed += count
        if window.owed >= window.step and not (self.eof_received or self.gone or self.offered):
            outbox = self._outbox
            if outbox.blocked:
                outbox.owe(self)
            else:
                pulse = self._mux.pulse
                credit = window.grant(pulse.monotonic(), pulse.rtt_low, calm=outbox.calm)
                if credit:
                    outbox.control(pack_header(self.id, _WINDOW_OF_4) + credit.to_bytes(4, "big"))

    # -- for the outbox ---------------------------------------------------------------------------

    def take(self, limit: int, parts: list[Buffer]) -> int:
        """Append a DATA frame of at most *limit* bytes, and EOF if it is due; the bytes of data.

        Only when something is queued and there is credit.
        """
        size = min(limit, self.credit, self.queued)
        self.credit -= size
        self.queued -= size
        chunks = self._chunks
        chunk = chunks.popleft()
        have = len(chunk)
        if have == size <= _JOIN:
            parts.append(pack_header(self.id, size) + chunk)
        else:
            parts.append(pack_header(self.id, size))
            missing = size
            while have <= missing:
                parts.append(chunk)
                missing -= have
                if not missing:
                    break
                chunk = chunks.popleft()
                have = len(chunk)
            else:
                view = memoryview(chunk)
                parts.append(view[:missing])
                chunks.appendleft(view[missing:])
        if self._eof_wanted and not self.queued:
            parts.append(pack_header(self.id, _EOF))
            self._end_sent()
        return size

    @property
    def relieved(self) -> bool:
        """Whether it was full and no longer is, and the sink has not heard of it."""
        return self.full and self.queued <= QUEUE_LOW

    def tell_writable(self, sink: StreamSink) -> None:
        """Tell *sink*, unless the queue was filled again meanwhile."""
        if self.relieved:
            self.full = False
            sink.writable()

    def clear(self) -> None:
        """The stream is over: forget what is queued, and the sink."""
        self.gone = True
        self._chunks.clear()
        self.queued = 0
        self.sink = NO_SINK  # no waiting for the garbage collector
        self.window.release()
