"""What was turned away, and why: counted every time, told to the audit trail now and then.

A port that is open to the world is knocked at all day long, so an event per knock would drown the
trail: of one mapping and one reason there is one event a minute at most, with a count.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final, Literal

from underpass.control.events import Events
from underpass.core import metrics
from underpass.core.clock import Clock
from underpass.core.supervisor import Supervisor

__all__ = ["Reason", "Refusals", "reason_of"]

Reason = Literal[
    "address", "limit", "permission", "agent_away", "policy", "unreachable", "proxy_header",
    "handshake", "login", "timeout", "quota", "failed",
]  # fmt: skip
"""Why somebody was turned away; also the metric's label, hence a closed list."""

EVERY: Final = 60.0
"""Seconds between two events of one mapping and reason."""
_MAX_KNOWN: Final = 10_000
_DENIED: Final = frozenset({"address", "permission", "policy", "login", "quota"})

_BY_CODE: Final[dict[str, Reason]] = {
    "permission_lost": "permission",
    "agent_unlinked": "agent_away",
    "link_lost": "agent_away",
    "going_away": "agent_away",
    "policy_denied": "policy",
    "connect_refused": "unreachable",
    "connect_timeout": "unreachable",
    "connect_failed": "unreachable",
    "resolve_failed": "unreachable",
    "open_timeout": "timeout",
    "handshake_timeout": "timeout",
    "proxy_header": "proxy_header",
    "bad_handshake": "handshake",
    "no_request": "handshake",
    "login_refused": "login",
    "address_denied": "address",
    "too_many_connections": "limit",
    "quota_exceeded": "quota",
}


def reason_of(code: str) -> Reason:
    """The reason behind an error's code; a code the peer made up is just a failure."""
    return _BY_CODE.get(code, "failed")


class Refusals:
    """Counts and tells.

    Args:
        events: the audit trail.
        clock: when something was told last.
        supervisor: owns the writing.
    """

    def __init__(self, events: Events, clock: Clock, supervisor: Supervisor) -> None:
        self._events = events
        self._clock = clock
        self._supervisor = supervisor
        self._told: dict[tuple[str, Reason], tuple[float, int]] = {}

    def note(self, mapping: Any, reason: Reason, source: str | None = None, **details: Any) -> None:
        """Somebody at *source* was turned away from *mapping*."""
        metrics.MAPPING_REFUSALS.labels(mapping.protocol, reason).inc()
        now = self._clock.monotonic()
        key = (mapping.id, reason)
        told, silent = self._told.get(key, (-EVERY, 0))
        if now - told < EVERY:
            self._told[key] = (told, silent + 1)
            return
        if len(self._told) >= _MAX_KNOWN:
            self._told.clear()
        self._told[key] = (now, 0)
        denied = reason in _DENIED
        self.record(
            mapping, "stream.denied" if denied else "stream.failed",
            outcome="denied" if denied else "failed", ip=source,
            details={"reason": reason, "count": silent + 1, **details},
        )  # fmt: skip

    def forget(self, mapping_id: str) -> None:
        """The mapping is gone."""
        for key in [key for key in self._told if key[0] == mapping_id]:
            del self._told[key]

    def record(self, mapping: Any, event: str, **more: Any) -> None:
        """Write one event about *mapping*, in the background."""
        with contextlib.suppress(RuntimeError):  # closed: the gateway is on its way out
            self._supervisor.start(
                self._events.record(
                    event, agent_id=mapping.target_agent_id, object_id=mapping.id, **more
                ),
                event,
            )
