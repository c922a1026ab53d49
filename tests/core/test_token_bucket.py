"""Token buckets against a clock that moves when told: exact over time, fair, changeable."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.core.clock import ManualClock
from underpass.core.token_bucket import TokenBucket


def bucket(rate: float | None, burst: float | None = None) -> tuple[TokenBucket, ManualClock]:
    clock = ManualClock()
    return TokenBucket(rate, burst, clock), clock


def test_full_at_first_then_at_its_rate() -> None:
    limit, clock = bucket(1000, 500)
    assert limit.take(500) == 0
    assert limit.take(100) == pytest.approx(0.1)
    assert limit.take(100) == pytest.approx(0.2)
    clock.advance(0.2)
    assert limit.available() == pytest.approx(0, abs=1e-6)
    assert limit.take(1) == pytest.approx(0.001)


def test_it_fills_up_to_the_burst_and_no_further() -> None:
    limit, clock = bucket(1000, 500)
    limit.take(500)
    clock.advance(0.3)
    assert limit.available() == pytest.approx(300)
    clock.advance(3600)
    assert limit.available() == 500


def test_the_default_burst_is_half_a_second() -> None:
    assert TokenBucket(10_000).burst == 5000
    assert TokenBucket(100).burst == 1024
    assert TokenBucket(None).burst == 1024
    limit, _ = bucket(10_000)
    assert 4.0 <= limit.take(50_000) <= 6.0


def test_reservations_fall_due_in_order() -> None:
    limit, clock = bucket(100, 100)
    marks = [limit.reserve(100) for _ in range(3)]
    assert [limit.wait(mark) for mark in marks] == pytest.approx([0, 1, 2])
    clock.advance(1)
    assert [limit.wait(mark) for mark in marks] == pytest.approx([0, 0, 1])


def test_a_new_rate_moves_what_waits() -> None:
    limit, clock = bucket(100, 100)
    limit.reserve(100)
    mark = limit.reserve(1000)
    clock.advance(1)
    assert limit.wait(mark) == pytest.approx(9)
    limit.rate = 450
    assert limit.wait(mark) == pytest.approx(2)
    clock.advance(1)
    assert limit.wait(mark) == pytest.approx(1)
    limit.rate = None
    assert limit.wait(mark) == 0


def test_no_limit() -> None:
    limit, _ = bucket(None)
    assert limit.take(1 << 40) == 0
    assert limit.available() == math.inf
    limit.rate = 1000
    assert limit.burst == 1024
    assert limit.available() == 1024


def test_a_smaller_burst_counts_at_once() -> None:
    limit, _ = bucket(1000, 5000)
    limit.burst = 10
    assert limit.available() == 10
    limit.rate = 2000
    assert limit.available() == 10


def test_a_smaller_rate_has_a_smaller_default_burst() -> None:
    limit, _ = bucket(1_000_000)
    limit.rate = 10_000
    assert limit.available() == 5000


def test_what_is_not_used_is_given_back() -> None:
    limit, clock = bucket(1000, 1000)
    limit.reserve(1000)
    limit.reserve(1000)
    limit.give_back(1000)
    assert limit.take(10) == pytest.approx(0.01)
    clock.advance(10)
    limit.give_back(5000)
    assert limit.available() == 1000


def test_a_clock_that_stands_still_or_is_handed_in() -> None:
    limit, clock = bucket(1000, 1000)
    now = clock.monotonic()
    assert limit.take(1500, now) == pytest.approx(0.5)
    assert limit.wait(1500, now - 5) == pytest.approx(0.5)
    assert limit.wait(1500, now + 0.25) == pytest.approx(0.25)
    assert limit.available(now + 1) == pytest.approx(500)


@pytest.mark.parametrize("wrong", [0, -1, math.nan])
def test_limits_are_above_zero(wrong: float) -> None:
    with pytest.raises(ValueError):
        TokenBucket(wrong)
    with pytest.raises(ValueError):
        TokenBucket(1, wrong)
    limit, _ = bucket(1)
    with pytest.raises(ValueError):
        limit.rate = wrong
    with pytest.raises(ValueError):
        limit.burst = wrong


@given(
    rate=st.floats(1, 1e9),
    burst=st.floats(1, 1e6),
    sizes=st.lists(st.integers(1, 100_000), min_size=1, max_size=50),
    pauses=st.lists(st.floats(0, 3), min_size=1, max_size=50),
)
def test_never_more_than_burst_and_rate_allow(
    rate: float, burst: float, sizes: list[int], pauses: list[float]
) -> None:
    limit, clock = bucket(rate, burst)
    start = clock.monotonic()
    passed = 0
    for index, size in enumerate(sizes):
        clock.advance(pauses[index % len(pauses)])
        due = limit.take(size)
        passed += size
        at = clock.monotonic() - start + due
        assert passed <= (burst + rate * at) * (1 + 1e-6) + 0.01
