"""Writes mappings and their port leases, each change in one transaction, whoever asks at once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.mapping import Mapping
from underpass.control.mapping_rows import Seals, columns_of, mapping_of
from underpass.control.port_leases import PortRules, group_port, release, take, take_any
from underpass.control.quota import Quota, over_count
from underpass.core import metrics
from underpass.core.clock import Clock
from underpass.core.errors import Conflict, NotFound, TooManyRequests, Unavailable
from underpass.core.ids import is_id
from underpass.store.db.mapping_models import MappingRow
from underpass.store.db.models import User
from underpass.store.db.races import lost_race

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["MappingStore", "QuotasLike", "no_such_mapping"]

ATTEMPTS: Final = 8
"""Transactions tried when others win the race for a port."""


class QuotasLike(Protocol):
    """What people may use (``control.quotas.Quotas``)."""

    async def of(self, db: AsyncSession, user_id: str) -> Quota: ...


def no_such_mapping() -> NotFound:
    """The one answer for what does not exist and what the asker may not know of."""
    return NotFound("There is no such mapping.", hint="Check the id.")


class MappingStore:
    """The ``mappings`` and ``port_leases`` tables.

    Args:
        seals: encrypts passwords.
        rules: which ports there are to have.
        max_per_user: mappings one person may have, disabled ones included, whose quota does not
            say another number.
        quotas: what people may use; without it nobody has a quota.
    """

    def __init__(
        self, database: Database, clock: Clock, seals: Seals, rules: PortRules, max_per_user: int,
        *, quotas: QuotasLike | None = None,
    ) -> None:  # fmt: skip
        self._database = database
        self._clock = clock
        self._seals = seals
        self._rules = rules
        self._max_per_user = max_per_user
        self._quotas = quotas

    def of(self, row: MappingRow) -> Mapping:
        """The mapping in *row*."""
        return mapping_of(row, self._seals)

    async def find(self, mapping_id: str) -> Mapping | None:
        """The mapping with this id, without asking who wants it."""
        if not is_id(mapping_id):
            return None
        async with self._database.reading() as db:
            row = await db.get(MappingRow, mapping_id)
            return None if row is None else self.of(row)

    async def save(
        self, old: Mapping | None, wanted: Mapping, avoid: Collection[int] = ()
    ) -> Mapping:
        """Store *wanted*, new or in the place of *old*, with the ports it asks for.

        Args:
            avoid: ports not to pick where any will do.

        Returns:
            the mapping with its port, and the version it got.

        Raises:
            Conflict: a port or name belongs to another mapping (``port_leased``, ``group_port``,
                ``name_taken``), or somebody else changed it meanwhile (``changed_meanwhile``).
            TooManyRequests: the owner has as many mappings as they may (``too_many_mappings``,
                ``quota_exceeded``).
            Unavailable: no port is free (``no_free_port``).
        """
        for _ in range(ATTEMPTS):
            try:
                async with self._database.session() as db:
                    return await self._write(db, old, wanted, avoid)
            except DBAPIError as error:
                if not lost_race(error):
                    raise
        raise Unavailable(
            "Too many others are after the same ports.", code="port_contention", retry_after=1
        )

    async def _write(
        self, db: AsyncSession, old: Mapping | None, wanted: Mapping, avoid: Collection[int]
    ) -> Mapping:
        moved = old is None or (old.source, old.group) != (wanted.source, wanted.group)
        await self._check_caps(db, old, wanted)
        await _check_name(db, wanted)
        if old is None:
            db.add(MappingRow(**columns_of(wanted, self._seals), **_NO_USAGE))
            await db.flush()
        else:
            wanted = replace(wanted, version=old.version + 1, updated_at=self._clock.now())
            await self._replace(db, old, wanted)
            if moved:
                await release(db, old)
        if not moved:
            return wanted
        placed = await self._place(db, wanted, avoid)
        if placed.source.port != wanted.source.port:
            await db.execute(
                update(MappingRow)
                .where(MappingRow.id == placed.id)
                .values(source_port=placed.source.port)
                .execution_options(synchronize_session=False)
            )
        return placed

    async def _replace(self, db: AsyncSession, old: Mapping, wanted: Mapping) -> None:
        changed = await db.execute(
            update(MappingRow)
            .where(MappingRow.id == old.id, MappingRow.version == old.version)
            .values(**columns_of(wanted, self._seals))
            .execution_options(synchronize_session=False)
        )
        if cast("CursorResult[Any]", changed).rowcount != 1:
            raise Conflict(
                "Somebody else has just changed or deleted this mapping.",
                code="changed_meanwhile",
                hint="Read it again, and change what is still to be changed.",
            )

    async def _place(self, db: AsyncSession, mapping: Mapping, avoid: Collection[int]) -> Mapping:
        port = await group_port(db, mapping)
        if port is not None:
            mapping = mapping.at_port(port)
        now = self._clock.now()
        if mapping.source.kind == "port" and mapping.source.port == 0:
            return await take_any(db, mapping, self._rules, avoid, now)
        await take(db, mapping, now)
        return mapping

    async def _check_caps(self, db: AsyncSession, old: Mapping | None, wanted: Mapping) -> None:
        starts = wanted.enabled and (old is None or not old.enabled)
        if old is not None and not starts:
            return
        # The owner's row is locked, so that two of theirs at once are counted one after the other.
        user_id = wanted.user_id
        await db.execute(select(User.id).where(User.id == user_id).with_for_update())
        quota = Quota() if self._quotas is None else await self._quotas.of(db, user_id)
        if old is None:
            count = await _count(db, user_id)
            _check("max_mappings", "mappings", quota.max_mappings, count)
            if quota.max_mappings is None:
                self._check_cap(count)
        if starts and quota.max_active_mappings is not None:
            count = await _count(db, user_id, MappingRow.status != "disabled")
            _check("max_active_mappings", "active mappings", quota.max_active_mappings, count)

    def _check_cap(self, count: int) -> None:
        if count >= self._max_per_user:
            raise TooManyRequests(
                f"You have {count} mappings; {self._max_per_user} is the limit.",
                code="too_many_mappings",
                hint="Delete one that is no longer needed.",
                details={"limit": self._max_per_user},
            )

    async def remove(self, db: AsyncSession, mapping: Mapping) -> bool:
        """Delete *mapping* and give its ports back; whether it was still there."""
        await release(db, mapping)
        gone = await db.execute(delete(MappingRow).where(MappingRow.id == mapping.id))
        return bool(cast("CursorResult[Any]", gone).rowcount)


_NO_USAGE: Final[dict[str, Any]] = {
    "total_connections": 0,
    "bytes_sent": 0,
    "bytes_received": 0,
    "last_active_at": None,
}


async def _count(db: AsyncSession, user_id: str, *conditions: Any) -> int:
    mine = select(func.count()).select_from(MappingRow).where(MappingRow.user_id == user_id)
    return await db.scalar(mine.where(*conditions)) or 0


def _check(name: str, what: str, limit: int | None, used: int) -> None:
    if limit is not None and used >= limit:
        metrics.QUOTA_REFUSALS.labels(name).inc()
        raise over_count(name, what, limit, used)


async def _check_name(db: AsyncSession, mapping: Mapping) -> None:
    taken = await db.scalar(
        select(MappingRow.id).where(
            MappingRow.user_id == mapping.user_id,
            MappingRow.declared_by == (mapping.declared_by or ""),
            MappingRow.name == mapping.name,
            MappingRow.id != mapping.id,
        )
    )
    if taken is not None:
        raise Conflict(
            f"name: there is a mapping called {mapping.name} already.",
            code="name_taken",
            hint="Choose another name, or change that mapping.",
            details={"field": "name"},
        )
