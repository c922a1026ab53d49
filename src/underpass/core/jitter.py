"""Jitter for retries and polls: spreads what would otherwise come all at once. Not for secrets."""

from __future__ import annotations

import random  # noqa: TID251 - the one place; spreading load needs no secrecy
from collections.abc import Callable, Iterator

__all__ = ["Jitter", "backoff", "spread"]

Jitter = Callable[[float, float], float]
"""Gives a number between its two arguments; injected so that tests can fix it."""


def spread(low: float, high: float) -> float:
    """A uniformly random number of seconds between *low* and *high*."""
    return random.uniform(low, high)


def backoff(first: float, cap: float, jitter: Jitter = spread) -> Iterator[float]:
    """Waits for successive retries: *full jitter* exponential backoff, for ever.

    Args:
        first: upper bound of the first wait in seconds.
        cap: upper bound of any wait in seconds.
        jitter: where the randomness comes from.
    """
    bound = first
    while True:
        yield jitter(bound / 2, bound)
        bound = min(cap, bound * 2)
