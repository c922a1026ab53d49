"""Removes mappings whose owner or machine was removed: nobody could answer for them; and those a
machine declared that may not any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import and_, or_, select
from sqlalchemy.exc import SQLAlchemyError

from underpass.control.live import RESYNC, LiveBus, LiveMessage
from underpass.core.errors import UnderpassError
from underpass.store.db.mapping_models import MappingRow
from underpass.store.db.models import Agent, User

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["MappingOrphans"]

_log = structlog.get_logger(__name__)

SWEEP_EVERY: Final = 3600.0
"""Seconds between looks that no news asked for: news may be missed."""


class MappingOrphans:
    """Looks for orphans at the start, after every removal, and now and then.

    Args:
        remove: deletes the mapping with an id, for a reason (``Mappings.remove``).
    """

    def __init__(
        self, database: Database, bus: LiveBus, remove: Callable[[str, str], Awaitable[bool]]
    ) -> None:
        self._database = database
        self._bus = bus
        self._remove = remove

    async def watch(self) -> None:
        """Work until the bus closes."""
        with self._bus.subscribe(_may_orphan) as news:
            while not news.closed:
                try:
                    await self.sweep()
                except (UnderpassError, SQLAlchemyError, OSError) as error:
                    _log.error("mapping_sweep_failed", error=str(error)[:300])
                await news.next(SWEEP_EVERY)

    async def sweep(self) -> int:
        """Delete every orphan; how many there were."""
        alive = select(Agent.id).where(Agent.is_deleted.is_(False))
        may_declare = alive.where(Agent.may_declare.is_(True))
        async with self._database.reading() as db:
            orphans = await db.scalars(
                select(MappingRow.id).where(
                    or_(
                        MappingRow.user_id.not_in(select(User.id)),
                        MappingRow.target_agent_id.not_in(alive),
                        MappingRow.source_agent_id.not_in(alive),
                        and_(
                            MappingRow.declared_by != "", MappingRow.declared_by.not_in(may_declare)
                        ),
                    )
                )
            )
            found = list(orphans)
        for mapping_id in found:
            await self._remove(
                mapping_id, "Its owner or its machine was removed, or may not declare any more."
            )
        return len(found)


def _may_orphan(message: LiveMessage) -> bool:
    if message.topic == "user":
        return message.data.get("reason") == "deleted"
    return message.topic == RESYNC or (
        message.topic == "agent" and message.data.get("change") in {"deleted", "updated"}
    )
