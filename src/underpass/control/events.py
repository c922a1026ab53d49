"""The audit trail: who did what to which thing, allowed or not, and by which rule.

Writing is durable (``record`` returns once the row is committed) and bounded: callers that come
while a commit is under way share the next one (group commit), so a flood of events costs a few
transactions, and whoever floods waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import delete, func, or_, select
from sqlalchemy import event as sa_event
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.live import LiveBus
from underpass.control.subject import Subject
from underpass.core.clock import Clock, rfc3339
from underpass.core.ids import IdMaker, new_id
from underpass.store.db.models import Event

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["EventFilter", "Events", "Outcome", "event_record"]

Outcome = Literal["ok", "denied", "failed"]

MAX_WAITING = 1024
"""Events waiting to be written; the next caller waits for room."""
MAX_TEXT = 2000
"""Characters kept of any text in ``details``."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What to list. Times are Unix seconds, ``since`` inclusive and ``until`` exclusive.

    ``type`` matches whole types, or a whole noun when it ends in a dot or has none
    (``agent`` and ``agent.`` mean every ``agent.*``).
    """

    type: str | None = None
    actor: str | None = None
    agent: str | None = None
    object: str | None = None
    outcome: str | None = None
    since: float | None = None
    until: float | None = None
    text: str | None = None


@dataclass(slots=True)
class _Waiting:
    row: Event
    done: bool = False
    error: Exception | None = field(default=None)


def event_record(row: Event) -> dict[str, Any]:
    """The public fields of an event, as the API, the exports and the live stream show them."""
    return {
        "id": row.id,
        "time": rfc3339(row.time),
        "type": row.type,
        "actor": row.actor,
        "actor_id": row.actor_id,
        "agent_id": row.agent_id,
        "object_id": row.object_id,
        "ip": row.ip,
        "outcome": row.outcome,
        "rule": row.rule,
        "details": row.details or {},
    }


class Events:
    """Writes and reads events.

    Args:
        database: where they are kept.
        clock: where their time comes from.
        bus: told of each event after it is committed (topic ``event``).
        make_id: makes their ids.
    """

    def __init__(
        self, database: Database, clock: Clock, bus: LiveBus, make_id: IdMaker = new_id
    ) -> None:
        self._database = database
        self._clock = clock
        self._bus = bus
        self._make_id = make_id
        self._waiting: list[_Waiting] = []
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._writing = asyncio.Lock()

    async def record(
        self,
        type: str,  # noqa: A002 - the column's name
        *,
        actor: Subject | str | None = None,
        agent_id: str | None = None,
        object_id: str | None = None,
        outcome: Outcome = "ok",
        rule: str | None = None,
        ip: str | None = None,
        details: dict[str, Any] | None = None,
        db: AsyncSession | None = None,
    ) -> str:
        """Write one event and return its id.

        Args:
            type: ``noun.past_participle``, e.g. ``agent.approved``.
            actor: who did it; a plain text for what has no account (a name typed at sign-in).
            agent_id: the machine concerned.
            object_id: the thing concerned, when it is not the machine.
            outcome: ``ok``, ``denied`` (a rule said no) or ``failed``.
            rule: which rule decided.
            ip: where from; default: the subject's address.
            details: JSON-able extras without secrets; long texts are cut.
            db: the caller's transaction; the event is then written and announced with it. Inside
                a transaction it *must* be passed: SQLite has one writer, which would be the caller.
        """
        subject = actor if isinstance(actor, Subject) else None
        name = actor if isinstance(actor, str) else subject.username if subject else None
        row = Event(
            id=self._make_id(),
            time=self._clock.now(),
            type=type[:64],
            actor_id=subject.user_id if subject else None,
            actor=name[:64] if name else None,
            agent_id=agent_id,
            object_id=object_id[:64] if object_id else None,
            ip=ip or (subject.ip if subject else None),
            outcome=outcome,
            rule=rule[:128] if rule else None,
            details=_bounded(details or {}),
        )
        row_id = row.id
        if db is not None:
            db.add(row)
            news = event_record(row)

            def announce(_session: object) -> None:
                self._bus.publish("event", news)

            sa_event.listen(db.sync_session, "after_commit", announce, once=True)
            return row_id
        async with self._room:
            await self._write(_Waiting(row))
        return row_id

    async def _write(self, mine: _Waiting) -> None:
        self._waiting.append(mine)
        async with self._writing:
            if not mine.done:
                batch, self._waiting = self._waiting, []
                try:
                    await self._commit(batch)
                except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
                    for waiting in batch:
                        waiting.done, waiting.error = True, error
                except BaseException:
                    # Cancelled half way: the others' events go back in line, ours is dropped.
                    self._waiting[:0] = [waiting for waiting in batch if waiting is not mine]
                    raise
        if mine.error is not None:
            raise mine.error

    async def _commit(self, batch: list[_Waiting]) -> None:
        news = [event_record(waiting.row) for waiting in batch]
        async with self._database.session() as db:
            db.add_all([_copy(waiting.row) for waiting in batch])
        for waiting, record in zip(batch, news, strict=True):
            waiting.done = True
            self._bus.publish("event", record)

    async def page(
        self, wanted: EventFilter, *, page: int, page_size: int, newest_first: bool = True
    ) -> tuple[list[dict[str, Any]], int]:
        """One page of events and how many match in all."""
        conditions = _conditions(wanted)
        order = (Event.time.desc(), Event.id.desc()) if newest_first else (Event.time, Event.id)
        async with self._database.reading() as db:
            total = await db.scalar(select(func.count()).select_from(Event).where(*conditions))
            rows = await db.scalars(
                select(Event)
                .where(*conditions)
                .order_by(*order)
                .offset((page - 1) * page_size)
                .limit(page_size)
            )
            return [event_record(row) for row in rows], total or 0

    async def export(self, wanted: EventFilter, batch: int = 500) -> AsyncIterator[dict[str, Any]]:
        """Every matching event, oldest first, read in batches so that memory stays flat."""
        conditions = _conditions(wanted)
        last: tuple[float, str] | None = None
        while True:
            after = conditions
            if last is not None:
                later = or_(Event.time > last[0], (Event.time == last[0]) & (Event.id > last[1]))
                after = [*conditions, later]
            async with self._database.reading() as db:
                rows = list(
                    await db.scalars(
                        select(Event).where(*after).order_by(Event.time, Event.id).limit(batch)
                    )
                )
                records = [event_record(row) for row in rows]
                if rows:
                    last = (rows[-1].time, rows[-1].id)
            for record in records:
                yield record
            if len(records) < batch:
                return

    async def prune(self, before: float) -> int:
        """Forget events older than *before* (Unix seconds); how many."""
        async with self._database.session() as db:
            result = await db.execute(delete(Event).where(Event.time < before))
            return int(getattr(result, "rowcount", 0) or 0)


def _copy(row: Event) -> Event:
    """A fresh row for each attempt: one that failed to commit stays tied to its dead session."""
    return Event(
        **{column.key: getattr(row, column.key) for column in Event.__mapper__.column_attrs}
    )


def _conditions(wanted: EventFilter) -> list[Any]:
    conditions: list[Any] = []
    if wanted.type:
        if "." in wanted.type.rstrip("."):
            conditions.append(Event.type == wanted.type)
        else:
            noun = wanted.type.rstrip(".")
            conditions.append(Event.type.startswith(f"{noun}.", autoescape=True))
    if wanted.actor:
        conditions.append(or_(Event.actor == wanted.actor, Event.actor_id == wanted.actor))
    if wanted.agent:
        conditions.append(Event.agent_id == wanted.agent)
    if wanted.object:
        conditions.append(Event.object_id == wanted.object)
    if wanted.outcome:
        conditions.append(Event.outcome == wanted.outcome)
    if wanted.since is not None:
        conditions.append(Event.time >= wanted.since)
    if wanted.until is not None:
        conditions.append(Event.time < wanted.until)
    if wanted.text:
        conditions.append(
            or_(
                Event.type.contains(wanted.text, autoescape=True),
                Event.actor.contains(wanted.text, autoescape=True),
                Event.object_id == wanted.text,
                Event.ip == wanted.text,
            )
        )
    return conditions


def _bounded(details: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value[:MAX_TEXT] if isinstance(value, str) else value for key, value in details.items()
    }
