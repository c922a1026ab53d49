"""The agent's clock as the gateway needs it: the machine's own, corrected by the gateway's."""

from __future__ import annotations

from underpass.core.clock import Clock

__all__ = ["CorrectedClock"]


class CorrectedClock:
    """A :class:`~underpass.core.clock.Clock` with an offset, and timestamps that only grow.

    Args:
        clock: the machine's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0.0
        self.offset = 0.0
        """Seconds added to the machine's clock."""

    def now(self) -> float:
        return self._clock.now() + self.offset

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def correct(self, server_time: object) -> bool:
        """Follow the gateway's clock from now on; whether *server_time* was usable."""
        if isinstance(server_time, bool) or not isinstance(server_time, int | float):
            return False
        if not 0 < server_time < 1e11:
            return False
        self.offset = float(server_time) - self._clock.now()
        self._last = 0.0
        return True

    def stamp(self) -> float:
        """Now, rounded to milliseconds, and later than every stamp before."""
        self._last = max(round(self.now(), 3), round(self._last + 0.001, 3))
        return self._last

    def skip_past(self, timestamp: object) -> None:
        """Make the next stamp later than *timestamp*: the newest the gateway has seen."""
        if isinstance(timestamp, int | float) and timestamp < self.now() + 240:
            self._last = max(self._last, float(timestamp))
