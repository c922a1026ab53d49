"""The health of a mapping's target: from single tries to up and down, and when the next is due.

Pure: told of tries and asked for the time. Who tries is ``gateway/entrypoints/probes.py`` (spec 4:
load balancing with health checks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from underpass.core.clock import Clock, rfc3339
from underpass.core.jitter import Jitter, spread

__all__ = ["UNKNOWN", "Health", "HealthState", "HealthStatus", "TargetHealth", "health_record"]

HealthState = Literal["up", "down", "unknown"]

FIRST_WITHIN: Final = 0.5
"""The first try comes within this share of the interval: what is new should be known soon."""
SPREAD: Final = 0.1
"""Share of the interval by which tries come earlier or later, so that they do not all come at
once."""
NEWS_EVERY: Final = 10.0
"""Seconds between two pieces of news about one target, however fast it comes and goes."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a target is tried.

    Attributes:
        type: a TCP connection, or an HTTP GET of ``path`` that answers 2xx or 3xx.
        interval: seconds between tries.
        fall, rise: failures in a row that take a target out, successes that bring it back.
    """

    type: Literal["tcp", "http"] = "tcp"
    path: str = "/"
    interval: float = 10.0
    fall: int = 3
    rise: int = 2


@dataclass(frozen=True, slots=True)
class HealthStatus:
    """What is known of a target.

    Attributes:
        state: ``unknown`` until the first try passed, or ``fall`` of them failed.
        reason: why it is down; ``None`` otherwise.
        since: Unix seconds; ``None`` while it is unknown.
    """

    state: HealthState = "unknown"
    reason: str | None = None
    since: float | None = None


UNKNOWN: Final = HealthStatus()


class TargetHealth:
    """Counts tries of one target: ``fall`` failures in a row take it down, ``rise`` successes in a
    row bring it up again. The very first success suffices: nothing speaks against the target yet.

    Args:
        rules: thresholds and interval.
        clock: where the time comes from.
        jitter: spreads the tries.
    """

    def __init__(self, rules: Health, clock: Clock, jitter: Jitter = spread) -> None:
        self.rules = rules
        self.status = UNKNOWN
        self._clock = clock
        self._jitter = jitter
        self._passed = 0
        self._failed = 0
        self._told: HealthState = "unknown"
        self._quiet_until = 0.0
        self.due_at = clock.monotonic() + jitter(0.0, FIRST_WITHIN * rules.interval)
        """When the next try should begin, on the monotonic clock."""

    @property
    def due(self) -> bool:
        """Whether a try should begin now."""
        return self.due_at <= self._clock.monotonic()

    def begin(self) -> None:
        """A try begins; the next one is due an interval later."""
        interval = self.rules.interval
        wait = self._jitter((1 - SPREAD) * interval, (1 + SPREAD) * interval)
        self.due_at = self._clock.monotonic() + wait

    def passed(self) -> None:
        """A try went well."""
        self._failed = 0
        self._passed += 1
        state = self.status.state
        if state == "unknown" or (state == "down" and self._passed >= self.rules.rise):
            self.status = HealthStatus("up", None, self._clock.now())

    def failed(self, reason: str) -> None:
        """A try failed; *reason* is shown to people."""
        self._passed = 0
        self._failed += 1
        if self.status.state == "down":
            # The latest reason helps most; since when it is down stays.
            self.status = HealthStatus("down", reason, self.status.since)
        elif self._failed >= self.rules.fall:
            self.status = HealthStatus("down", reason, self._clock.now())

    def news(self) -> tuple[HealthState, HealthStatus] | None:
        """What it was when last told and what it is now, if that should be told now."""
        now = self._clock.monotonic()
        if self.status.state == self._told or now < self._quiet_until:
            return None
        before, self._told = self._told, self.status.state
        if before != "unknown":
            self._quiet_until = now + NEWS_EVERY
        return before, self.status


def health_record(status: HealthStatus | None) -> dict[str, Any] | None:
    """The public fields; ``None`` for a target that nobody tries."""
    if status is None:
        return None
    return {
        "health": status.state,
        "reason": status.reason,
        "since": None if status.since is None else rfc3339(status.since),
    }
