"""Time as something handed in, so that every deadline and window can be tested without sleeping."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock", "rfc3339", "utc"]


class Clock(Protocol):
    """Where "now" comes from."""

    def now(self) -> float:
        """Wall-clock time in seconds since the Unix epoch (UTC)."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps; only differences mean anything."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to; for tests and simulations.

    Args:
        start: the wall-clock time it shows first, in seconds since the epoch.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._monotonic = 1000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on both clocks."""
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Move only the wall clock, as an NTP step would."""
        self._now += seconds


def utc(timestamp: float) -> datetime:
    """The aware UTC datetime of *timestamp* (seconds since the epoch)."""
    return datetime.fromtimestamp(timestamp, UTC)


def rfc3339(timestamp: float | datetime) -> str:
    """RFC 3339 in UTC with milliseconds, e.g. ``2026-01-02T03:04:05.678Z`` (spec 7: times)."""
    moment = timestamp if isinstance(timestamp, datetime) else utc(timestamp)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
