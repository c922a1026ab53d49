"""Lists of mappings: who sees which; filters, order and pages in SQL, alike on every database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.subject import Subject
from underpass.store.db.mapping_models import MappingRow

__all__ = ["SORTABLE", "MappingFilter", "find_mappings"]

SORTABLE: Final = frozenset({
    "name", "protocol", "status", "source_port", "created_at", "updated_at", "last_active_at",
    "total_connections", "bytes_sent", "bytes_received",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class MappingFilter:
    """What to list; ``None`` does not narrow.

    Attributes:
        agent_id: its target, or the agent that listens.
        user_id: of this owner.
        text: to find in the name or the target, or the whole id.
    """

    protocol: str | None = None
    status: str | None = None
    agent_id: str | None = None
    user_id: str | None = None
    group: str | None = None
    text: str | None = None


async def find_mappings(
    db: AsyncSession,
    subject: Subject,
    wanted: MappingFilter,
    *,
    offset: int,
    limit: int,
    order: tuple[str, bool],
) -> tuple[Sequence[MappingRow], int]:
    """One page of the mappings *subject* may see, and how many match in all.

    Args:
        order: column (one of :data:`SORTABLE`) and whether descending.
    """
    conditions = _conditions(subject, wanted)
    column = getattr(MappingRow, order[0] if order[0] in SORTABLE else "created_at")
    # Those never used come last either way; databases disagree about where NULL belongs.
    by = [column.is_(None), column.desc() if order[1] else column.asc(), MappingRow.id]
    total = await db.scalar(select(func.count()).select_from(MappingRow).where(*conditions))
    rows = await db.scalars(
        select(MappingRow).where(*conditions).order_by(*by).offset(offset).limit(limit)
    )
    return rows.all(), total or 0


def _conditions(subject: Subject, wanted: MappingFilter) -> list[Any]:
    conditions: list[Any] = []
    if subject.role not in {"admin", "auditor"}:
        conditions.append(MappingRow.user_id == subject.user_id)
    for column, value in (
        (MappingRow.protocol, wanted.protocol),
        (MappingRow.status, wanted.status),
        (MappingRow.user_id, wanted.user_id),
        (MappingRow.group_name, wanted.group),
    ):
        if value is not None:
            conditions.append(column == value.replace("\0", ""))
    if wanted.agent_id is not None:
        agent_id = wanted.agent_id.replace("\0", "")
        columns = (MappingRow.target_agent_id, MappingRow.source_agent_id)
        conditions.append(or_(*(column == agent_id for column in columns)))
    if wanted.text:
        # PostgreSQL takes no NUL in a text; nothing of ours holds one either.
        text = wanted.text.lower().replace("\0", "")
        found = [
            func.lower(column).contains(text, autoescape=True)
            for column in (MappingRow.name, MappingRow.target_host, MappingRow.target_path)
        ]
        conditions.append(or_(*found, MappingRow.id == text))
    return conditions
