"""Which live news a person may hear: the same rules as for reading, applied to each message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from underpass.control.access import AgentView, authorise
from underpass.control.live import RESYNC, LiveMessage
from underpass.control.subject import Subject
from underpass.store.db.models import Agent

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["TOPICS", "LiveVisibility"]

TOPICS = frozenset({"agent", "enrolment", "session", "recording", "mapping", "event", RESYNC})
"""What is ever served to people; ``user`` stays inside the gateway."""


class LiveVisibility:
    """Decides message by message for one person.

    A plain user hears of machines that list them. When one stops to, they hear so once
    (``{"id": …, "gone": true}``); of machines they never saw they hear nothing, not even the id.
    """

    def __init__(self, database: Database, subject: Subject) -> None:
        self._database = database
        self._subject = subject
        self._seen: set[str] = set()

    async def start(self) -> None:
        """Read which machines the person can see now."""
        if self._subject.role != "user":
            return
        async with self._database.reading() as db:
            rows = await db.scalars(select(Agent).where(Agent.is_deleted.is_(False)))
            self._seen = {
                row.id for row in rows if authorise(self._subject, "see", AgentView.of(row)).allowed
            }

    async def shown(self, message: LiveMessage) -> LiveMessage | None:
        """*message* as this person may hear it, or ``None``."""
        if message.topic not in TOPICS or self._subject.role == "guest":
            return None
        if message.topic == RESYNC:
            await self.start()
            return message
        if self._subject.role == "admin":
            return message
        if message.topic == "enrolment":
            return None
        if self._subject.role == "auditor":
            return message
        if message.topic == "event":
            return None
        if message.topic in {"session", "recording", "mapping"}:
            mine = message.data.get("user_id") == self._subject.user_id
            return message if mine else None
        return await self._agent(message)

    async def _agent(self, message: LiveMessage) -> LiveMessage | None:
        agent_id = str(message.data.get("id") or message.data.get("agent_id") or "")
        async with self._database.reading() as db:
            row = await db.get(Agent, agent_id)
            view = None if row is None else AgentView.of(row)
        if authorise(self._subject, "see", view).allowed:
            self._seen.add(agent_id)
            return message
        if agent_id in self._seen:
            self._seen.discard(agent_id)
            return LiveMessage("agent", {"id": agent_id, "gone": True})
        return None
