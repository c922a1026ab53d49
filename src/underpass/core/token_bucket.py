"""Token buckets: how many bytes may pass, exact over time, changeable while in use.

Bytes are *reserved* in the order in which they are asked for, also beyond what is in the bucket,
and each reservation falls due when the bucket has been filled that far. So many streams can share
one bucket: nobody starves, nothing is lost to rounding, and a new rate moves every due time.
"""

from __future__ import annotations

from typing import Final

from underpass.core.clock import Clock, SystemClock

__all__ = ["TokenBucket"]

BURST_SECONDS: Final = 0.5
MIN_BURST: Final = 1024.0
_DUST: Final = 1e-6
"""Bytes that are a rounding error of the arithmetic and worth no timer."""


class TokenBucket:
    """One limit, full at the start.

    Args:
        rate: bytes per second; None for no limit.
        burst: bytes that may pass at once after a pause; by default what the rate gives in half
            a second, at least 1 KiB. (A larger floor would break the promise that 50 KB at
            10 KB/s take 4 to 6 s.)
        clock: where the time comes from.

    Raises:
        ValueError: a rate or burst that is not above zero.
    """

    __slots__ = ("_burst", "_clock", "_filled", "_filled_at", "_rate", "_reserved")

    def __init__(
        self, rate: float | None, burst: float | None = None, clock: Clock | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._rate = _positive(rate)
        self._burst = _positive(burst)
        self._filled = self.burst  # tokens since the beginning, without those that overflowed
        self._reserved = 0.0  # bytes since the beginning
        self._filled_at = self._clock.monotonic()

    # -- the limit ----------------------------------------------------------------------------

    @property
    def rate(self) -> float | None:
        """Bytes per second; None for no limit."""
        return self._rate

    @rate.setter
    def rate(self, rate: float | None) -> None:
        checked = _positive(rate)
        self._fill(None)
        self._rate = checked
        self._fill(None)  # a smaller rate has a smaller default burst

    @property
    def burst(self) -> float:
        """Bytes that may pass at once after a pause."""
        if self._burst is not None:
            return self._burst
        return max((self._rate or 0.0) * BURST_SECONDS, MIN_BURST)

    @burst.setter
    def burst(self, burst: float | None) -> None:
        checked = _positive(burst)
        self._fill(None)
        self._burst = checked
        self._fill(None)

    # -- bytes ----------------------------------------------------------------------------------

    def take(self, count: int, now: float | None = None) -> float:
        """Reserve *count* bytes; gives the seconds until they may pass, 0.0 for at once.

        Args:
            now: the clock's monotonic time, when the caller has it already.
        """
        return self.wait(self.reserve(count, now), now)

    def available(self, now: float | None = None) -> float:
        """How many bytes could pass at once; infinite without a limit."""
        self._fill(now)
        if self._rate is None:
            return float("inf")
        return max(0.0, self._filled - self._reserved)

    def reserve(self, count: int, now: float | None = None) -> float:
        """Reserve *count* bytes; gives the mark that :meth:`wait` asks for."""
        self._fill(now)
        self._reserved += count
        return self._reserved

    def wait(self, mark: float, now: float | None = None) -> float:
        """Seconds until the reservation with *mark* may pass, at the rate of this moment."""
        self._fill(now)
        missing = mark - self._filled
        if self._rate is None or missing <= _DUST:
            return 0.0
        return missing / self._rate

    def give_back(self, count: int) -> None:
        """A reservation of *count* bytes is not used after all."""
        self._fill(None)
        self._filled = min(self._filled + count, self._reserved + self.burst)

    def _fill(self, now: float | None) -> None:
        moment = self._clock.monotonic() if now is None else now
        passed = max(0.0, moment - self._filled_at)
        self._filled_at = max(self._filled_at, moment)
        most = self._reserved + self.burst
        if self._rate is None:
            self._filled = most
        else:
            self._filled = min(self._filled + passed * self._rate, most)


def _positive(value: float | None) -> float | None:
    if value is not None and not value > 0:
        raise ValueError(f"{value} is not above zero")
    return value
