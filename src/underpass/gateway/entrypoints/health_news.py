"""What the audit trail and the live news say of targets that go down and come back."""

from __future__ import annotations

from underpass.control.health import HealthState, HealthStatus
from underpass.control.live import LiveBus
from underpass.control.mapping import Mapping
from underpass.gateway.entrypoints.refusals import Refusals

__all__ = ["HealthNews"]


class HealthNews:
    """Call it with what changed.

    Args:
        refusals: writes events about mappings.
        bus: topic ``mapping``, change ``health``.
    """

    def __init__(self, refusals: Refusals, bus: LiveBus) -> None:
        self._refusals = refusals
        self._bus = bus

    def __call__(self, mapping: Mapping, before: HealthState, status: HealthStatus) -> None:
        """Tell that *mapping*'s target was *before*, and what it is now."""
        if before != "unknown" or status.state != "up":  # well from the start is no event
            self._refusals.record(
                mapping, "mapping.health_changed",
                outcome="failed" if status.state == "down" else "ok",
                details={"name": mapping.name, "group": mapping.group, "before": before,
                         "health": status.state, "reason": status.reason},
            )  # fmt: skip
        self._bus.publish(
            "mapping",
            {"id": mapping.id, "change": "health", "user_id": mapping.user_id,
             "agent_id": mapping.target_agent_id},
        )  # fmt: skip
