"""Recordings as records: their rows, who may see them, and which are old enough to go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, or_, select, update

from underpass.control.access import authorise
from underpass.control.subject import Subject
from underpass.core.clock import Clock, rfc3339
from underpass.core.errors import NotFound
from underpass.core.ids import is_id
from underpass.store.db.models import RecordingRow

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["SORTABLE", "RecordingFilter", "Recordings", "recording_record"]

SORTABLE: Final = frozenset({"started_at", "duration", "size", "username"})
_STEP: Final = 200


@dataclass(frozen=True, slots=True)
class RecordingFilter:
    """What to list; times are Unix seconds, *since* inclusive and *until* exclusive."""

    asset_id: str | None = None
    user: str | None = None
    session_id: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None
    title: str | None = None


def recording_record(row: RecordingRow) -> dict[str, Any]:
    """The public fields of a recording (spec 7)."""
    return {
        "id": row.id,
        "session_id": row.session_id,
        "asset_id": row.asset_id,
        "user_id": row.user_id,
        "username": row.username,
        "title": row.title,
        "status": row.status,
        "started_at": rfc3339(row.started_at),
        "duration": round(row.duration, 6),
        "size": row.size,
        "sha256": row.sha256,
        "width": row.width,
        "height": row.height,
    }


class Recordings:
    """Reads and writes ``recordings``; the files are ``store.files``'.

    Args:
        database: where the rows are.
        clock: where the times come from.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, row: RecordingRow) -> None:
        """Store a new recording."""
        async with self._database.session() as db:
            db.add(row)

    async def change(self, recording_id: str, **fields: Any) -> None:
        """Set columns of a recording."""
        async with self._database.session() as db:
            await db.execute(
                update(RecordingRow).where(RecordingRow.id == recording_id).values(**fields)
            )

    async def get(self, recording_id: str) -> RecordingRow | None:
        """The row, without asking who wants it."""
        if not is_id(recording_id):
            return None
        async with self._database.reading() as db:
            return await db.get(RecordingRow, recording_id)

    async def visible(self, subject: Subject, recording_id: str) -> RecordingRow:
        """The row, for someone who may see it: whose session it was, an admin, an auditor.

        Raises:
            NotFound: there is none, or not for *subject* (one body for both).
        """
        row = await self.get(recording_id)
        if row is None or not authorise(subject, "record-view", None, owner_id=row.user_id).allowed:
            raise NotFound("There is no such recording.", hint="Check the id.")
        return row

    async def page(
        self,
        subject: Subject,
        wanted: RecordingFilter,
        *,
        offset: int,
        limit: int,
        order: tuple[str, bool] = ("started_at", True),
    ) -> tuple[list[RecordingRow], int]:
        """One page of the recordings *subject* may see, and how many match in all."""
        conditions = _conditions(subject, wanted)
        column = getattr(RecordingRow, order[0] if order[0] in SORTABLE else "started_at")
        by = column.desc() if order[1] else column.asc()
        async with self._database.reading() as db:
            total = await db.scalar(
                select(func.count()).select_from(RecordingRow).where(*conditions)
            )
            rows = await db.scalars(
                select(RecordingRow)
                .where(*conditions)
                .order_by(by, RecordingRow.id)
                .offset(offset)
                .limit(limit)
            )
            return list(rows), total or 0

    async def unfinished(self) -> list[RecordingRow]:
        """All recordings that say they are being written."""
        async with self._database.reading() as db:
            return list(
                await db.scalars(select(RecordingRow).where(RecordingRow.status == "recording"))
            )

    async def expired(self, *, older_than: float, keep_bytes: int) -> list[RecordingRow]:
        """What retention lets go of, oldest first; never one that is being written.

        Args:
            older_than: age in seconds; 0 = no limit.
            keep_bytes: size of all recordings together; 0 = no limit.
        """
        going: list[RecordingRow] = []
        over = RecordingRow.status != "recording"
        async with self._database.reading() as db:
            surplus = 0
            if keep_bytes:
                total = await db.scalar(select(func.sum(RecordingRow.size)))
                surplus = int(total or 0) - keep_bytes
            rows = await db.scalars(
                select(RecordingRow).where(over).order_by(RecordingRow.started_at).limit(_STEP)
            )
            before = self._clock.now() - older_than
            for row in rows:
                if (older_than and row.started_at + row.duration < before) or surplus > 0:
                    going.append(row)
                    surplus -= row.size
                elif not older_than or row.started_at >= before:
                    break
        return going

    async def delete(self, recording_id: str) -> None:
        """Forget the row."""
        async with self._database.session() as db:
            await db.execute(delete(RecordingRow).where(RecordingRow.id == recording_id))


def _conditions(subject: Subject, wanted: RecordingFilter) -> list[Any]:
    conditions: list[Any] = []
    if subject.role not in ("admin", "auditor"):
        conditions.append(RecordingRow.user_id == subject.user_id)
    if wanted.asset_id:
        conditions.append(RecordingRow.asset_id == wanted.asset_id)
    if wanted.user:
        conditions.append(
            or_(RecordingRow.user_id == wanted.user, RecordingRow.username == wanted.user)
        )
    if wanted.session_id:
        conditions.append(RecordingRow.session_id == wanted.session_id)
    if wanted.status:
        conditions.append(RecordingRow.status == wanted.status)
    if wanted.since is not None:
        conditions.append(RecordingRow.started_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(RecordingRow.started_at < wanted.until)
    if wanted.title:
        conditions.append(
            or_(
                RecordingRow.title.contains(wanted.title, autoescape=True),
                RecordingRow.username.contains(wanted.title, autoescape=True),
                RecordingRow.id == wanted.title,
            )
        )
    return conditions
