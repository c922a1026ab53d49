"""Writes mappings and their port leases, each change in one transaction, whoever asks at once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.mapping import Mapping
from underpass.control.mapping_rows import Seals, columns_of, mapping_of
from underpass.control.port_leases import PortRules, group_port, release, take, take_any
from underpass.core.clock import Clock
from underpass.core.errors import Conflict, NotFound, TooManyRequests, Unavailable
from underpass.core.ids import is_id
from underpass.store.db.mapping_models import MappingRow
from underpass.store.db.models import User

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["MappingStore", "no_such_mapping"]

ATTEMPTS: Final = 8
"""Transactions tried when others win the race for a port."""
_DEADLOCKS: Final = frozenset({"1205", "1213", "40001", "40P01"})
"""Lock wait timeout and deadlock of MariaDB, serialization failure and deadlock of PostgreSQL."""


def no_such_mapping() -> NotFound:
    """The one answer for what does not exist and what the asker may not know of."""
    return NotFound("There is no such mapping.", hint="Check the id.")


class MappingStore:
    """The ``mappings`` and ``port_leases`` tables.

    Args:
        seals: encrypts passwords.
        rules: which ports there are to have.
        max_per_user: mappings one person may have, disabled ones included.
    """

    def __init__(
        self, database: Database, clock: Clock, seals: Seals, rules: PortRules, max_per_user: int
    ) -> None:
        self._database = database
        self._clock = clock
        self._seals = seals
        self._rules = rules
        self._max_per_user = max_per_user

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
            TooManyRequests: the owner has as many mappings as they may (``too_many_mappings``).
            Unavailable: no port is free (``no_free_port``).
        """
        for _ in range(ATTEMPTS):
            try:
                async with self._database.session() as db:
                    return await self._write(db, old, wanted, avoid)
            except DBAPIError as error:
                if not _lost_race(error):
                    raise
        raise Unavailable(
            "Too many others are after the same ports.", code="port_contention", retry_after=1
        )

    async def _write(
        self, db: AsyncSession, old: Mapping | None, wanted: Mapping, avoid: Collection[int]
    ) -> Mapping:
        moved = old is None or (old.source, old.group) != (wanted.source, wanted.group)
        if old is None:
            await self._check_cap(db, wanted.user_id)
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

    async def _check_cap(self, db: AsyncSession, user_id: str) -> None:
        # The owner's row is locked, so that two of theirs at once are counted one after the other.
        await db.execute(select(User.id).where(User.id == user_id).with_for_update())
        count = await db.scalar(
            select(func.count()).select_from(MappingRow).where(MappingRow.user_id == user_id)
        )
        if (count or 0) >= self._max_per_user:
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


async def _check_name(db: AsyncSession, mapping: Mapping) -> None:
    taken = await db.scalar(
        select(MappingRow.id).where(
            MappingRow.user_id == mapping.user_id,
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


def _lost_race(error: DBAPIError) -> bool:
    """Whether trying again makes sense: it then works, or says what stands in the way."""
    if isinstance(error, IntegrityError):
        return True
    original: Any = error.orig
    code = getattr(original, "sqlstate", None) or next(iter(getattr(original, "args", ())), "")
    return str(code) in _DEADLOCKS
