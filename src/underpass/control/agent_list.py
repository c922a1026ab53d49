"""Lists of machines: filters, order and pages in SQL, the same on every database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Text, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.access import AgentView, authorise
from underpass.control.subject import Subject
from underpass.core.clock import rfc3339
from underpass.core.errors import InvalidRequest
from underpass.store.db.models import Agent, TtySession

__all__ = ["AgentQuery", "agent_record", "find_page", "session_counts", "view_of"]

LIVE_SESSIONS = ("connecting", "active", "detached")

SORTS: Mapping[str, Any] = {
    "name": func.lower(Agent.name),
    "hostname": func.lower(Agent.hostname),
    "status": Agent.status,
    "version": Agent.version,
    "created_at": Agent.created_at,
    "updated_at": Agent.updated_at,
    "last_seen_at": Agent.last_seen_at,
}


@dataclass(frozen=True, slots=True)
class AgentQuery:
    """What to list.

    Attributes:
        q: text to find in name, host name, id, address or labels.
        labels: all of these must match; ``None`` as value: the label only has to be there.
        status: one of the four, or all.
        sort: a key of :data:`SORTS`, with ``-`` for descending.
    """

    q: str | None = None
    labels: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    status: str | None = None
    sort: str = "name"


async def find_page(
    db: AsyncSession, subject: Subject, query: AgentQuery, page: int, page_size: int
) -> tuple[Sequence[Agent], int]:
    """The rows of one page that *subject* may see, and how many match in all.

    Raises:
        InvalidRequest: an unknown column to sort by (``bad_sort``).
    """
    conditions = [Agent.is_deleted.is_(False), *_conditions(query), *_visible(subject)]
    name = query.sort.lstrip("+-")
    if name not in SORTS:
        raise InvalidRequest(f"Machines are sorted by {', '.join(SORTS)}.", code="bad_sort")
    column = SORTS[name]
    descending = query.sort.startswith("-")
    # Machines never seen come last either way; databases disagree about where NULL belongs.
    order = [column.is_(None), column.desc() if descending else column.asc(), Agent.id]
    total = await db.scalar(select(func.count()).select_from(Agent).where(*conditions))
    rows = await db.scalars(
        select(Agent)
        .where(*conditions)
        .order_by(*order)
        .offset((page - 1) * page_size)
        .limit(page_size)
    )
    # The SQL above narrows; who may see is decided in one place only.
    seen = [row for row in rows if authorise(subject, "see", view_of(row)).allowed]
    return seen, total or 0


async def session_counts(db: AsyncSession, agent_ids: Sequence[str]) -> dict[str, int]:
    """How many live terminal sessions each of these machines has."""
    if not agent_ids:
        return {}
    rows = await db.execute(
        select(TtySession.asset_id, func.count())
        .where(TtySession.asset_id.in_(agent_ids), TtySession.status.in_(LIVE_SESSIONS))
        .group_by(TtySession.asset_id)
    )
    return {str(row[0]): int(row[1]) for row in rows}


def agent_record(row: Agent, *, linked: bool, sessions: int) -> dict[str, Any]:
    """The public fields of a machine, by allow-list: never the key's PEM, never the secret."""
    return {
        "id": row.id,
        "name": row.name,
        "hostname": row.hostname,
        "labels": row.labels,
        "allowed_users": row.allowed_users,
        "may_declare": row.may_declare,
        "status": row.status,
        "linked": linked,
        "key_fingerprint": row.key_fingerprint,
        "version": row.version,
        "address": row.address,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
        "last_seen_at": None if row.last_seen_at is None else rfc3339(row.last_seen_at),
        "static_info": row.static_info,
        "dynamic_info": row.dynamic_info,
        "sessions": sessions,
    }


def view_of(row: Agent) -> AgentView:
    """What decisions need to know of a row."""
    return AgentView(row.id, row.name, frozenset(row.allowed_users), row.is_deleted)


def _conditions(query: AgentQuery) -> list[Any]:
    conditions: list[Any] = []
    if query.q:
        # PostgreSQL takes no NUL in a text; nothing of ours holds one either.
        text = query.q.lower().replace("\0", "")
        columns = (Agent.name, Agent.hostname, Agent.id, Agent.address, cast(Agent.labels, Text))
        conditions.append(or_(*(func.lower(c).contains(text, autoescape=True) for c in columns)))
    for key, value in query.labels.items():
        label = Agent.labels[key].as_string()
        conditions.append(label.is_not(None) if value is None else label == value)
    if query.status:
        conditions.append(Agent.status == query.status)
    return conditions


def _visible(subject: Subject) -> list[Any]:
    if subject.role in {"admin", "auditor"}:
        return []
    # Ids are UUIDs, so the quoted id can be nothing else in a JSON list of ids.
    return [cast(Agent.allowed_users, Text).contains(f'"{subject.user_id}"', autoescape=True)]
