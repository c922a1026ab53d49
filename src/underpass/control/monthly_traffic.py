"""How much people's tunnels have carried, by calendar month: added to by every node at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.exc import DBAPIError

from underpass.control.events import Events
from underpass.control.quota import month_of
from underpass.core.clock import Clock
from underpass.core.errors import Unavailable
from underpass.store.db.quota_models import TrafficRow
from underpass.store.db.races import lost_race

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["MonthlyTraffic"]

ATTEMPTS: Final = 8
KEEP: Final = 400 * 86400.0
"""Seconds after which a month is forgotten: a year can be looked back on."""


class MonthlyTraffic:
    """The ``monthly_traffic`` table.

    Args:
        events: told, once a month each, that most or all of somebody's traffic is used
            (``quota.warned``, ``quota.exceeded``).
    """

    def __init__(self, database: Database, clock: Clock, events: Events) -> None:
        self._database = database
        self._clock = clock
        self._events = events

    async def used(self, user_id: str, month: str) -> int:
        """Bytes that are accounted for."""
        async with self._database.reading() as db:
            row = await db.get(TrafficRow, (user_id, month))
            return 0 if row is None else row.used

    async def add(self, user_id: str, month: str, count: int) -> int:
        """Account for *count* bytes more; gives the sum, of all nodes.

        Raises:
            Unavailable: others were faster again and again (code ``contention``).
        """
        for _ in range(ATTEMPTS):
            try:
                return await self._add(user_id, month, count)
            except DBAPIError as error:
                if not lost_race(error):
                    raise
        raise Unavailable("Too many account at once.", code="contention", retry_after=1)

    async def _add(self, user_id: str, month: str, count: int) -> int:
        mine = (TrafficRow.user_id == user_id, TrafficRow.month == month)
        async with self._database.session() as db:
            added = await db.execute(
                update(TrafficRow)
                .where(*mine)
                .values(used=TrafficRow.used + count)
                .execution_options(synchronize_session=False)
            )
            if not cast("CursorResult[Any]", added).rowcount:
                # Two who are the first may both get here; the primary key lets one in.
                db.add(TrafficRow(user_id=user_id, month=month, used=count, told=0))
                await db.flush()
                return count
            return await db.scalar(select(TrafficRow.used).where(*mine)) or 0

    async def tell(self, user_id: str, month: str, percent: int, details: dict[str, Any]) -> bool:
        """Write the event that *percent* (80 or 100) of the quota are used, unless that or more
        was told for this month, by whichever node; whether it was news."""
        async with self._database.session() as db:
            told = await db.execute(
                update(TrafficRow)
                .where(
                    TrafficRow.user_id == user_id,
                    TrafficRow.month == month,
                    TrafficRow.told < percent,
                )
                .values(told=percent)
                .execution_options(synchronize_session=False)
            )
            if not cast("CursorResult[Any]", told).rowcount:
                return False
            await self._events.record(
                "quota.exceeded" if percent >= 100 else "quota.warned", object_id=user_id,
                outcome="denied" if percent >= 100 else "ok",
                details={"month": month, "percent": percent, **details}, db=db,
            )  # fmt: skip
            return True

    async def forget(self) -> None:
        """Delete what is older than a year and a bit."""
        oldest = month_of(self._clock.now() - KEEP)
        async with self._database.session() as db:
            await db.execute(delete(TrafficRow).where(TrafficRow.month < oldest))
