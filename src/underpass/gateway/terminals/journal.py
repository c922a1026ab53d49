"""What terminals tell the rest of the gateway: audit events, live news, gauges."""

from __future__ import annotations

from typing import Any

from underpass.control.events import Events
from underpass.control.live import LiveBus
from underpass.control.subject import Subject
from underpass.core.metrics import SESSIONS
from underpass.gateway.terminals.hub import Hub

__all__ = ["Journal"]


class Journal:
    """Writes down and announces what happens to sessions."""

    def __init__(self, events: Events, bus: LiveBus) -> None:
        self.events = events
        self._bus = bus

    async def record(
        self,
        hub: Hub,
        kind: str,
        actor: Subject | None = None,
        *,
        outcome: Any = "ok",
        rule: str | None = None,
        **details: Any,
    ) -> None:
        """One audit event about a session; details that are None are left out."""
        await self.events.record(
            kind,
            actor=actor or hub.info.username,
            agent_id=hub.info.agent_id,
            object_id=hub.info.id,
            outcome=outcome,
            rule=rule,
            details={key: value for key, value in details.items() if value is not None},
        )

    def news(self, hub: Hub, status: str) -> None:
        """Tell who looks at lists right now."""
        self._bus.publish(
            "session",
            {
                "id": hub.info.id,
                "agent_id": hub.info.agent_id,
                "user_id": hub.info.user_id,
                "status": status,
            },
        )

    def measure(self, hubs: dict[str, Hub], orphans: int) -> None:
        """Set the gauges from what is there, so that they can't drift."""
        counts = {"connecting": 0, "active": 0, "detached": orphans}
        for hub in hubs.values():
            if hub.outcome is None:
                counts[hub.status] += 1
        for state, count in counts.items():
            SESSIONS.labels(state).set(count)
