"""Which streams are quick: what is typed goes before bulk, and nobody gains by pretending."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.links.muxes import End, Sink, frames_of, pair, settle
from underpass.links.habit import SMALL, Habit, Traffic

KIB = 1024
MIB = 1024 * KIB


def bulk_over(a: End, b: End, amount: int = 2 * MIB) -> Sink:
    """A stream that has just carried *amount* bytes from *a* to *b*."""
    bulk = a.open()
    settle(a, b)
    for _ in range(amount // (64 * KIB)):
        bulk.stream.send(b"b" * 64 * KIB)
        settle(a, b)
    return bulk


class TestHabit:
    def test_small_and_sparse_is_quick(self) -> None:
        traffic = Traffic()
        habit = Habit(traffic)
        for _ in range(20):
            assert all(habit.sending(64) for _ in range(50))
            traffic.tick()

    def test_a_large_piece_is_not_nor_what_waits_behind_it(self) -> None:
        habit = Habit(Traffic())
        assert not habit.sending(SMALL + 1)
        assert not habit.sending(1, behind=SMALL)
        assert habit.sending(1)

    def test_much_in_small_pieces_is_not_until_two_seconds_later(self) -> None:
        traffic = Traffic()
        traffic.sent(64 * MIB)
        habit = Habit(traffic)
        granted = sum(1 * KIB for _ in range(1000) if habit.sending(1 * KIB))
        assert granted == 64 * KIB
        traffic.tick()
        assert not habit.sending(1)
        traffic.tick()
        assert habit.sending(1)

    @given(st.lists(st.integers(1, SMALL), min_size=100, max_size=2000), st.integers(0, 10 * MIB))
    def test_many_together_get_a_quarter(self, sizes: list[int], bulk: int) -> None:
        traffic = Traffic()
        traffic.sent(bulk)
        granted = sum(size for size in sizes if Habit(traffic).sending(size))
        assert granted <= max(16 * KIB, bulk // 4)

    def test_typing_is_again_and_again(self) -> None:
        traffic = Traffic()
        habit = Habit(traffic)
        assert [habit.typing for _ in range(5) if habit.sending(1)] == [False] * 3 + [True] * 2
        traffic.tick()
        habit.receiving(1)
        assert habit.typing
        traffic.tick()
        traffic.tick()
        habit.receiving(1)
        assert not habit.typing

    def test_a_download_with_small_questions_is_no_typing(self) -> None:
        habit = Habit(Traffic())
        for _ in range(10):
            habit.sending(100)
            habit.receiving(64 * KIB)
        assert not habit.typing


class TestOutbox:
    def test_a_keystroke_nobody_announced_goes_before_bulk(self) -> None:
        a, b = pair()
        bulk, keys = a.open(), a.open()
        settle(a, b)
        a.mux.pause_writing()
        bulk.stream.send(b"b" * 100 * KIB)
        keys.stream.send(b"key")
        a.mux.resume_writing()
        assert frames_of(a.wire)[0] == ("DATA", keys.stream.id, 3)
        settle(a, b)
        assert (b.sinks[0].received, b.sinks[1].received) == (b"b" * 100 * KIB, b"key")

    def test_it_needs_no_turn_of_the_loop(self) -> None:
        a, b = pair()
        bulk = bulk_over(a, b)
        keys = a.open()
        settle(a, b)
        for _ in range(8):
            bulk.stream.send(b"b" * 60 * KIB)
        assert a.mux.outbox.paused
        assert not a.mux.outbox.blocked
        before = a.on_wire
        keys.stream.send(b"k")
        assert a.on_wire == before + 9

    def test_beside_bulk_it_does_not_wait_for_the_end_of_a_turn(self) -> None:
        a, b = pair()
        flushed: list[int] = []
        a.mux.outbox.flush = lambda: flushed.append(a.on_wire)
        keys = a.open()
        settle(a, b)
        keys.stream.send(b"k")
        assert not flushed
        bulk_over(a, b)
        keys.stream.send(b"k")
        assert flushed == [9]

    def test_who_queues_more_goes_back_to_the_others(self) -> None:
        a, b = pair()
        bulk, false = a.open(), a.open()
        settle(a, b)
        a.mux.pause_writing()
        bulk.stream.send(b"b" * 64 * KIB)
        false.stream.send(b"f" * KIB)
        false.stream.send(b"f" * 100 * KIB)
        a.mux.resume_writing()
        assert frames_of(a.wire)[0][:2] == ("DATA", bulk.stream.id)
        settle(a, b)
        assert b.sinks[1].received == b"f" * 101 * KIB

    def test_bulk_in_small_pieces_does_not_starve_bulk(self) -> None:
        a, b = pair()
        bulk = a.open()
        pretenders = [a.open() for _ in range(50)]
        settle(a, b)
        a.high = 32 * KIB
        for _ in range(40):
            bulk.stream.send(b"b" * 64 * KIB)
            for pretender in pretenders:
                for _ in range(4):
                    pretender.stream.send(b"p" * SMALL)
            a.deliver()
            b.deliver()
            a.next_turn()
            if not a.wire:
                a.mux.resume_writing()
        got = len(b.sinks[0].received)
        others = sum(len(sink.received) for sink in b.sinks[1:])
        assert got > 0.75 * (got + others) / 51  # what taking turns alone would give it

    def test_typing_beside_bulk_calms_both_ends(self) -> None:
        a, b = pair()
        keys = a.open()
        bulk_over(a, b)
        assert not (a.mux.outbox.calm or b.mux.outbox.calm)
        for _ in range(4):
            keys.stream.send(b"k")
            settle(a, b)
        assert a.mux.outbox.calm
        assert b.mux.outbox.calm
        for _ in range(3):
            a.mux.tick()
            b.mux.tick()
        assert not (a.mux.outbox.calm or b.mux.outbox.calm)

    def test_typing_without_bulk_calms_nobody(self) -> None:
        a, b = pair()
        keys = a.open()
        settle(a, b)
        for _ in range(100):
            keys.stream.send(b"k")
            settle(a, b)
        assert not a.mux.outbox.calm
        assert keys.stream.habit is None

    def test_a_few_first_bytes_calm_nobody(self) -> None:
        a, b = pair()
        for _ in range(3):
            bulk_over(a, b)
            for _ in range(50):
                a.open().stream.send(b"GET /")
                settle(a, b)
            a.mux.tick()
            b.mux.tick()
        assert not (a.mux.outbox.calm or b.mux.outbox.calm)

    def test_who_is_told_of_calm_is_told_of_its_end(self) -> None:
        for over in (False, True):
            a, b = pair()
            told: list[bool] = []
            a.mux.outbox._calmed = told.append
            keys = a.open(interactive=True)
            settle(a, b)
            keys.stream.send(b"k")
            assert told == [True]
            if over:
                a.mux.close("closed")
                a.mux.outbox.calm_down()
            else:
                a.mux.tick()
                a.mux.tick()
            assert told == [True, False]

    def test_bulk_beside_the_link_counts(self) -> None:
        a, b = pair()
        for end in (a, b):
            end.mux.outbox._beside = lambda: True
            end.mux.tick()
        keys = a.open()
        settle(a, b)
        for _ in range(4):
            keys.stream.send(b"k")
            settle(a, b)
        assert a.mux.outbox.calm
        assert b.mux.outbox.calm
