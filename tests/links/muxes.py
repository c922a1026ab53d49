"""Two muxes joined by byte queues that a test moves by hand: no event loop, no time of its own."""

from __future__ import annotations

from typing import Any

from underpass.core.clock import ManualClock
from underpass.links.mux import LinkEnd, Mux, MuxEvents, MuxLimits, MuxStream
from underpass.wire.frames import ErrorFrame, FrameDecoder, FrameType

__all__ = ["End", "Sink", "frames_of", "pair"]


class Sink:
    """Notes what happens to a stream; consumes at once unless told to *hold*."""

    def __init__(self, *, hold: bool = False) -> None:
        self.stream: MuxStream
        self.hold = hold
        self.notes: list[Any] = []
        self.received = bytearray()
        self.held = 0
        self.at_eof = False

    def accepted(self) -> None:
        self.notes.append("accepted")

    def refused(self, error: ErrorFrame) -> None:
        self.notes.append(("refused", error.code))

    def data(self, chunk: bytes | memoryview) -> None:
        assert not self.at_eof
        self.received += chunk
        if self.hold:
            self.held += len(chunk)
        else:
            self.stream.consumed(len(chunk))

    def release(self, count: int | None = None) -> None:
        """Consume what was held."""
        count = self.held if count is None else min(count, self.held)
        self.held -= count
        self.stream.consumed(count)

    def eof(self) -> None:
        assert not self.at_eof
        self.at_eof = True

    def reset(self, code: str, message: str) -> None:
        self.notes.append(("reset", code))

    def writable(self) -> None:
        self.notes.append("writable")


class End:
    """One end: a mux, what it wrote and what it told."""

    def __init__(
        self,
        clock: ManualClock,
        *,
        dialler: bool,
        limits: MuxLimits | None,
        ordered: bool = True,
    ) -> None:
        self.clock = clock
        self.other: End
        self.wire: list[bytes] = []  # on its way to the other end
        self.high: int | None = None  # bytes on the wire at which the transport blocks
        self.accepting = True
        self.hold = False
        self.sinks: list[Sink] = []  # of streams the other end opened
        self.targets: list[tuple[str, dict[str, Any], bool]] = []
        self.messages: list[Any] = []
        self.end: LinkEnd | None = None
        self.gone_away: LinkEnd | None = None
        self.turns = 0
        self.disconnected = False
        self.mux = Mux(
            dialler=dialler,
            write=self._write,
            writelines=lambda parts: [self._write(part) for part in parts] and None,
            events=MuxEvents(
                offered=self._offered,
                requested=self.messages.append,
                answered=self.messages.append,
                failed=self.messages.append,
                notified=self.messages.append,
                gone_away=lambda end: setattr(self, "gone_away", end),
                ended=self._ended,
                disconnected=lambda: setattr(self, "disconnected", True),
                turn_over=self._turn_over,
            ),
            monotonic=clock.monotonic,
            limits=limits,
            ordered=ordered,
        )

    def _write(self, data: bytes | memoryview) -> None:
        self.wire.append(bytes(data))
        if self.high is not None and self.on_wire > self.high and not self.mux.outbox.blocked:
            self.mux.pause_writing()

    @property
    def on_wire(self) -> int:
        return sum(map(len, self.wire))

    def _turn_over(self) -> None:
        self.turns += 1

    def _offered(self, stream: MuxStream, target: str, meta: dict[str, Any]) -> None:
        self.targets.append((target, meta, stream.interactive))
        sink = Sink(hold=self.hold)
        sink.stream = stream
        stream.sink = sink
        self.sinks.append(sink)
        if self.accepting:
            stream.accept()

    def _ended(self, end: LinkEnd) -> None:
        assert self.end is None
        self.end = end

    def open(
        self, target: str = "tcp:host:1", *, hold: bool = False, interactive: bool = False
    ) -> Sink:
        sink = Sink(hold=hold)
        sink.stream = self.mux.open(target, {}, sink, interactive=interactive)
        return sink

    def next_turn(self) -> bool:
        """A new turn of the loop, if one was asked for."""
        if not self.turns:
            return False
        self.turns = 0
        self.mux.next_turn()
        return True

    def deliver(self, count: int | None = None) -> bool:
        """Bring *count* bytes, or all, to the other end; whether there were any."""
        data = b"".join(self.wire)
        self.wire.clear()
        if count is not None and count < len(data):
            self.wire.append(data[count:])
            data = data[:count]
        if data:
            self.other.mux.feed(data)
        if self.high is not None and self.mux.outbox.blocked and self.on_wire <= self.high // 4:
            self.mux.resume_writing()
        return bool(data)


def pair(
    limits: MuxLimits | None = None, clock: ManualClock | None = None, *, ordered: bool = True
) -> tuple[End, End]:
    """The dialling and the accepting end."""
    clock = clock or ManualClock()
    a = End(clock, dialler=True, limits=limits, ordered=ordered)
    b = End(clock, dialler=False, limits=limits, ordered=ordered)
    a.other, b.other = b, a
    return a, b


def settle(*ends: End) -> None:
    """Deliver and turn until nothing moves any more."""
    moving = True
    while moving:
        moved = [end.deliver() for end in ends] + [end.next_turn() for end in ends]
        moving = any(moved)


def frames_of(wire: list[bytes]) -> list[tuple[str, int, int]]:
    """(type, stream, length) of the frames in *wire*; a DATA frame counts once per piece."""
    seen: list[tuple[str, int, int]] = []
    decoder = FrameDecoder(
        lambda stream_id, chunk: seen.append(("DATA", stream_id, len(chunk))),
        lambda kind, stream_id, payload: seen.append(
            (FrameType(kind).name, stream_id, len(payload))
        ),
    )
    decoder.feed(b"".join(wire))
    return seen
