"""How many spares are kept and which targets get one, with a clock that is told to move."""

from __future__ import annotations

from dataclasses import dataclass

from underpass.core.clock import ManualClock
from underpass.links.carriers.demand import BULK_STREAM, MOST_SPARES, Demand, TargetHistory


@dataclass
class Carried:
    bytes_in: int = 0
    bytes_out: int = 0
    closed: bool = True


class TestDemand:
    def test_it_starts_at_none_and_doubles_with_each_missing_one(self) -> None:
        demand = Demand(ManualClock().monotonic)
        assert demand.size == 0
        sizes = []
        for _ in range(6):
            demand.wanted(hit=False)
            sizes.append(demand.size)
        assert sizes == [1, 2, 4, 8, MOST_SPARES, MOST_SPARES]

    def test_hits_change_nothing(self) -> None:
        demand = Demand(ManualClock().monotonic)
        demand.wanted(hit=False)
        for _ in range(10):
            demand.wanted(hit=True)
        assert demand.size == 1

    def test_it_shrinks_while_none_is_missing_but_keeps_one(self) -> None:
        clock = ManualClock()
        demand = Demand(clock.monotonic)
        for _ in range(4):
            demand.wanted(hit=False)
        seen = []
        for _ in range(12):
            clock.advance(10)
            demand.wanted(hit=True)
            seen.append(demand.size)
        assert seen == [8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1, 1]

    def test_it_forgets(self) -> None:
        clock = ManualClock()
        demand = Demand(clock.monotonic)
        demand.wanted(hit=False)
        clock.advance(59)
        assert demand.size == 1
        clock.advance(1)
        assert demand.size == 0
        demand.wanted(hit=False)
        assert demand.size == 1


class TestHistory:
    def test_a_target_becomes_bulk_by_what_it_carried(self) -> None:
        history = TargetHistory()
        assert not history.is_bulk("tcp:a:1")
        history.opened("tcp:a:1", Carried(BULK_STREAM - 1, 0))
        assert not history.is_bulk("tcp:a:1")
        for _ in range(20):
            history.opened("tcp:a:1", Carried(3 * BULK_STREAM, BULK_STREAM))
            history.is_bulk("tcp:a:1")
        assert history.is_bulk("tcp:a:1")
        assert not history.is_bulk("tcp:b:1")
        for _ in range(20):
            history.opened("tcp:a:1", Carried(1000, 0))
            history.is_bulk("tcp:a:1")
        assert not history.is_bulk("tcp:a:1")

    def test_one_large_stream_is_enough_and_counts_once(self) -> None:
        history = TargetHistory()
        history.opened("t", Carried(10 * BULK_STREAM))
        assert history.is_bulk("t")
        history.opened("t", Carried(0))
        for _ in range(50):
            history.is_bulk("t")
        assert history.is_bulk("t")

    def test_an_open_stream_counts_when_it_is_large_already(self) -> None:
        history = TargetHistory()
        stream = Carried(closed=False)
        history.opened("t", stream)
        assert not history.is_bulk("t")
        stream.bytes_out = 9 * BULK_STREAM
        assert history.is_bulk("t")

    def test_memory_is_bounded(self) -> None:
        history = TargetHistory()
        for number in range(2000):
            history.opened(f"tcp:h:{number}", Carried(10))
        assert len(history._averages) == len(history._newest) == 256
