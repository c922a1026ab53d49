"""Waits between retries: they grow, stay under the cap, and differ from one another."""

from __future__ import annotations

import itertools

from underpass.core.jitter import backoff, spread


def test_spread_stays_within() -> None:
    drawn = [spread(2.0, 3.0) for _ in range(200)]
    assert all(2.0 <= value <= 3.0 for value in drawn)
    assert len(set(drawn)) > 100


def test_backoff_doubles_up_to_the_cap() -> None:
    highest = list(itertools.islice(backoff(1.0, 5.0, lambda low, high: high), 5))
    assert highest == [1.0, 2.0, 4.0, 5.0, 5.0]
    lowest = list(itertools.islice(backoff(1.0, 5.0, lambda low, high: low), 3))
    assert lowest == [0.5, 1.0, 2.0]
