"""Quotas as they are kept: who may use what, told to everything that enforces it at once."""

from __future__ import annotations

from collections.abc import Mapping as Fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.events import Events
from underpass.control.live import LiveBus
from underpass.control.quota import Quota, checked_limits
from underpass.control.sessions import LIVE
from underpass.control.subject import Subject
from underpass.core.clock import Clock
from underpass.core.errors import NotFound, Unavailable
from underpass.core.ids import is_id
from underpass.store.db.mapping_models import MappingRow
from underpass.store.db.models import Agent, TtySession, User
from underpass.store.db.quota_models import QuotaRow
from underpass.store.db.races import lost_race

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["TOPIC", "Quotas"]

TOPIC = "quota"
"""The bus's topic of what was changed: ``user_id``, and ``limits`` as they are stored then."""
ATTEMPTS = 5


class Quotas:
    """Reads, changes and checks quotas.

    Args:
        events: told of every change (``quota.changed``).
        bus: told, too, so that what is open changes at once.
        defaults: the limits of those for whom nobody has set any.

    Attributes:
        defaults: the same.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        events: Events,
        bus: LiveBus,
        defaults: Quota | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._bus = bus
        self.defaults = defaults or Quota()

    # -- reading ----------------------------------------------------------------------------------

    async def get(self, user_id: str) -> Quota:
        """What somebody may use.

        Raises:
            NotFound: there is no such user.
        """
        async with self._database.reading() as db:
            await _require_user(db, user_id)
            return await self.of(db, user_id)

    async def of(self, db: AsyncSession, user_id: str) -> Quota:
        """The same within a transaction; users who are gone have the defaults."""
        row = await db.get(QuotaRow, user_id)
        return self.defaults if row is None else self.defaults.with_limits(row.limits)

    async def stored(self) -> dict[str, dict[str, int | None]]:
        """What was ever set for anybody, by user id."""
        async with self._database.reading() as db:
            return {row.user_id: row.limits for row in await db.scalars(select(QuotaRow))}

    async def counted(self, user_id: str) -> dict[str, int]:
        """How many of what is limited by number somebody has: ``clients`` (machines they let in),
        ``mappings``, ``active_mappings`` and ``sessions``."""
        mine = MappingRow.user_id == user_id
        async with self._database.reading() as db:
            return {
                "clients": await _count(
                    db, Agent, Agent.let_in_by == user_id, Agent.is_deleted.is_(False)
                ),
                "mappings": await _count(db, MappingRow, mine),
                "active_mappings": await _count(db, MappingRow, mine, _ENABLED),
                "sessions": await _count(
                    db, TtySession, TtySession.user_id == user_id, TtySession.status.in_(LIVE)
                ),
            }

    # -- changing ---------------------------------------------------------------------------------

    async def set(self, by: Subject, user_id: str, wanted: Fields[str, Any]) -> Quota:
        """Change the limits that *wanted* names; ``None`` takes one away, a default, too.

        What is there already stays, even where it is more than allowed now.

        Raises:
            InvalidRequest: a limit is wrong; the message names it.
            NotFound: there is no such user.
        """
        limits = checked_limits(wanted)
        for _ in range(ATTEMPTS):
            try:
                async with self._database.session() as db:
                    stored = await self._set(db, by, user_id, limits)
            except DBAPIError as error:
                if not lost_race(error):
                    raise
            else:
                self._bus.publish(TOPIC, {"user_id": user_id, "limits": stored})
                return self.defaults.with_limits(stored)
        raise Unavailable("Too many change this quota.", code="contention", retry_after=1)

    async def _set(
        self, db: AsyncSession, by: Subject, user_id: str, limits: Fields[str, int | None]
    ) -> dict[str, int | None]:
        await _require_user(db, user_id, lock=True)
        row = await db.get(QuotaRow, user_id)
        before = dict(row.limits) if row is not None else {}
        after = before | dict(limits)
        if after == before:
            return after
        if row is None:
            db.add(QuotaRow(user_id=user_id, limits=after, updated_at=self._clock.now()))
        else:
            row.limits, row.updated_at = after, self._clock.now()
        await db.flush()
        old = self.defaults.with_limits(before).to_json()
        new = self.defaults.with_limits(after).to_json()
        changed = {name: [old[name], new[name]] for name in old if old[name] != new[name]}
        await self._events.record(
            "quota.changed", actor=by, object_id=user_id, details={"changed": changed}, db=db
        )
        return after

    async def forget(self) -> None:
        """Delete the limits of users who are gone."""
        async with self._database.session() as db:
            await db.execute(
                delete(QuotaRow)
                .where(QuotaRow.user_id.not_in(select(User.id)))
                .execution_options(synchronize_session=False)
            )


async def _require_user(db: AsyncSession, user_id: str, *, lock: bool = False) -> None:
    query = select(User.id).where(User.id == user_id)
    found = await db.scalar(query.with_for_update() if lock else query) if is_id(user_id) else None
    if found is None:
        raise NotFound("There is no such user.", hint="Check the id.")


async def _count(db: AsyncSession, table: type[Any], *conditions: Any) -> int:
    found = await db.scalar(select(func.count()).select_from(table).where(*conditions))
    return found or 0


_ENABLED: Any = MappingRow.status != "disabled"
