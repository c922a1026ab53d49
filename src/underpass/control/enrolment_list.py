"""How applications are shown to admins, and the warnings they must see before approving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.core.clock import rfc3339
from underpass.store.db.models import Agent, EnrolmentApplication

__all__ = ["WARNINGS", "application_record", "list_applications", "warnings_of"]

WARNINGS = {
    "key_changed": (
        "A machine with this client id is enrolled under another key; "
        "approving hands that machine's place to this key."
    ),
    "rival_key": (
        "Another key is applying for the same client id; compare the fingerprints on the machine."
    ),
}


async def warnings_of(db: AsyncSession, rows: Sequence[EnrolmentApplication]) -> dict[str, str]:
    """The warning (a key of :data:`WARNINGS`) of each pending row that needs one, by its id."""
    pending = [row for row in rows if row.apply_status == "pending"]
    clients = {row.client_id for row in pending}
    if not clients:
        return {}
    enrolled = await db.execute(
        select(Agent.id, Agent.key_fingerprint).where(Agent.id.in_(clients))
    )
    holders = {row.id: row.key_fingerprint for row in enrolled}
    waiting = await db.execute(
        select(EnrolmentApplication.client_id, EnrolmentApplication.key_fingerprint).where(
            EnrolmentApplication.client_id.in_(clients),
            EnrolmentApplication.apply_status == "pending",
        )
    )
    rivals: dict[str, set[str]] = {}
    for client_id, fingerprint in waiting:
        rivals.setdefault(client_id, set()).add(fingerprint)
    warnings: dict[str, str] = {}
    for row in pending:
        if holders.get(row.client_id, row.key_fingerprint) != row.key_fingerprint:
            warnings[row.id] = "key_changed"
        elif len(rivals[row.client_id]) > 1:
            warnings[row.id] = "rival_key"
    return warnings


def application_record(row: EnrolmentApplication, warning: str | None = None) -> dict[str, Any]:
    """The public fields of an application (spec 7, Enrolments)."""
    return {
        "id": row.id,
        "client_id": row.client_id,
        "hostname": row.hostname,
        "key_fingerprint": row.key_fingerprint,
        "apply_status": row.apply_status,
        "created_at": rfc3339(row.created_at),
        "address": row.address,
        "decided_at": None if row.decided_at is None else rfc3339(row.decided_at),
        "decided_by": row.decided_by,
        "warning": warning,
        "warning_text": WARNINGS[warning] if warning else None,
    }


async def list_applications(
    db: AsyncSession, status: str | None, page: int, page_size: int, *, q: str | None = None
) -> tuple[list[dict[str, Any]], int]:
    """One page of applications, newest first, with their warnings; and how many match."""
    conditions: list[Any] = []
    if status:
        conditions.append(EnrolmentApplication.apply_status == status)
    if q:
        columns = (
            EnrolmentApplication.hostname,
            EnrolmentApplication.client_id,
            EnrolmentApplication.key_fingerprint,
            EnrolmentApplication.address,
        )
        conditions.append(
            or_(*(func.lower(c).contains(q.lower(), autoescape=True) for c in columns))
        )
    total = await db.scalar(
        select(func.count()).select_from(EnrolmentApplication).where(*conditions)
    )
    rows = list(
        await db.scalars(
            select(EnrolmentApplication)
            .where(*conditions)
            .order_by(EnrolmentApplication.created_at.desc(), EnrolmentApplication.id)
            .offset((page - 1) * page_size)
            .limit(page_size)
        )
    )
    warnings = await warnings_of(db, rows)
    return [application_record(row, warnings.get(row.id)) for row in rows], total or 0
