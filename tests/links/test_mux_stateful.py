"""Two muxes under arbitrary interleavings: nothing lost, doubled, out of order or stuck."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.links.muxes import End, Sink, pair, settle
from underpass.links.mux import MuxLimits
from underpass.wire.flow import EARLY_WINDOW, MAX_WINDOW
from underpass.wire.frames import ErrorFrame

WHO = st.sampled_from([0, 1])
WHICH = st.integers(0, 30)


@dataclass
class Side:
    """One end of one stream, with what it sent."""

    end: End
    sink: Sink
    sent: bytearray = field(default_factory=bytearray)
    finished: bool = False
    over: bool = False  # reset or refused by somebody, or lingering: no promises any more


class TwoMuxes(RuleBasedStateMachine):
    """The model: per stream and direction, the bytes sent so far."""

    def __init__(self) -> None:
        super().__init__()
        limits = MuxLimits(streams=20, opens_pending=6, link_window=2 << 20)
        self.ends = pair(limits)
        for end in self.ends:
            end.accepting = False
        self.streams: list[list[Side | None]] = []  # [opener's side, acceptor's side once known]
        self.by_stream: dict[tuple[int, int], list[Side | None]] = {}
        self.count = 0

    def _adopt(self) -> None:
        """Find the sinks of streams that were offered since."""
        for index, end in enumerate(self.ends):
            for sink in end.sinks:
                key = (1 - index, sink.stream.id)
                pair_ = self.by_stream[key]
                if pair_[1] is None:
                    pair_[1] = Side(end, sink)

    def _side(self, which: int, who: int) -> Side | None:
        if not self.streams:
            return None
        return self.streams[which % len(self.streams)][who]

    @rule(who=WHO, interactive=st.booleans(), hold=st.booleans())
    def open(self, who: int, interactive: bool, hold: bool) -> None:
        end = self.ends[who]
        if len(end.mux.streams) >= end.mux.limits.streams:
            return
        sink = end.open(interactive=interactive, hold=hold)
        sides: list[Side | None] = [Side(end, sink), None]
        self.streams.append(sides)
        self.by_stream[who, sink.stream.id] = sides

    @rule(which=WHICH)
    def accept(self, which: int) -> None:
        if side := self._side(which, 1):
            side.sink.stream.accept()

    @rule(which=WHICH)
    def refuse(self, which: int) -> None:
        side = self._side(which, 1)
        if side and side.sink.stream.offered:
            side.sink.stream.refuse(ErrorFrame("no", "No."))
            for one in self.streams[which % len(self.streams)]:
                if one:
                    one.over = True

    @rule(which=WHICH, who=WHO, size=st.sampled_from([1, 100, 5000, 70_000, 300_000]))
    def send(self, which: int, who: int, size: int) -> None:
        side = self._side(which, who)
        if side is None or side.sink.stream.offered:
            return
        self.count += 1
        data = (self.count.to_bytes(4, "big") * (size // 4 + 1))[:size]
        if not side.finished and not side.sink.stream.gone:
            side.sent += data
        side.sink.stream.send(data)

    @rule(which=WHICH, who=WHO)
    def finish(self, which: int, who: int) -> None:
        side = self._side(which, who)
        if side and not side.sink.stream.offered:
            side.finished = True
            side.sink.stream.finish()

    @rule(which=WHICH, who=WHO)
    def reset(self, which: int, who: int) -> None:
        if side := self._side(which, who):
            side.sink.stream.reset("cancelled")
            for one in self.streams[which % len(self.streams)]:
                if one:
                    one.over = True

    @rule(which=WHICH, who=WHO)
    def hold_or_release(self, which: int, who: int) -> None:
        if side := self._side(which, who):
            side.sink.hold = not side.sink.hold
            if not side.sink.hold:
                side.sink.release()

    @rule(who=WHO, count=st.sampled_from([1, 7, 100, 9000, None]))
    def deliver(self, who: int, count: int | None) -> None:
        self.ends[who].deliver(count)
        self._adopt()

    @rule(who=WHO)
    def next_turn(self, who: int) -> None:
        self.ends[who].next_turn()

    @rule(who=WHO)
    def block_early(self, who: int) -> None:
        end = self.ends[who]
        end.high = None if end.high else 10_000
        if end.high is None and end.mux.outbox.blocked:
            end.mux.resume_writing()

    @rule(seconds=st.floats(0.0001, 2))
    def pass_time(self, seconds: float) -> None:
        self.ends[0].clock.advance(seconds)

    @precondition(lambda self: self.streams)
    @rule()
    def settle(self) -> None:
        self._settle()

    def _settle(self) -> None:
        for end in self.ends:
            end.high = None
            if end.mux.outbox.blocked:
                end.mux.resume_writing()
        settle(*self.ends)
        self._adopt()

    @invariant()
    def the_link_lives(self) -> None:
        assert [end.end for end in self.ends] == [None, None]

    @invariant()
    def what_arrived_is_a_prefix_of_what_was_sent(self) -> None:
        for near, far in self.streams:
            for sender, receiver in ((near, far), (far, near)):
                if sender and receiver:
                    got = receiver.sink.received
                    assert sender.sent.startswith(got)
                    if receiver.sink.at_eof:
                        assert sender.finished
                        assert got == sender.sent

    @invariant()
    def windows_and_caps_hold(self) -> None:
        for end in self.ends:
            mux = end.mux
            assert 0 <= mux.budget.used <= mux.budget.cap
            assert mux.budget.used == sum(
                stream.window.size - EARLY_WINDOW for stream in mux.streams.values()
            )
            assert mux.pending == sum(stream.offered for stream in mux.streams.values())
            assert mux.pending <= mux.limits.opens_pending
            for stream in mux.streams.values():
                assert 0 <= stream.window.left <= stream.window.size <= MAX_WINDOW
                assert stream.credit >= 0
        # A sink holds no more than was granted to its stream.
        for sides in self.streams:
            for side in sides:
                if side and not side.sink.stream.gone:
                    assert side.sink.held <= side.sink.stream.window.size

    @invariant()
    def nothing_is_ready_and_left_lying(self) -> None:
        for end in self.ends:
            if not end.mux.outbox.paused:
                for stream in end.mux.streams.values():
                    assert not (stream.queued and stream.credit > 0)

    def teardown(self) -> None:
        """All that was sent on streams left alone arrives in the end, and nothing is left over."""
        self._settle()
        for sides in self.streams:
            for side in sides:
                if side:
                    side.sink.stream.accept()
                    side.sink.hold = False
                    side.sink.release()
        self._settle()
        for near, far in self.streams:
            refused = near and any(note[0] in ("refused", "reset") for note in near.sink.notes)
            if near and far and not (near.over or far.over or refused):
                assert far.sink.received == near.sent
                assert near.sink.received == far.sent
        for sides in self.streams:
            for side in sides:
                if side:
                    side.sink.stream.finish()
        self._settle()
        self.the_link_lives()
        for end in self.ends:
            assert not end.mux.streams
            assert end.mux.budget.used == 0
            assert end.mux.pending == 0


TwoMuxes.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTwoMuxes = TwoMuxes.TestCase
