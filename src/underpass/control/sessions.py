"""Terminal sessions as records: who opened what, when, how it ended, and who may see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.access import AgentView, authorise
from underpass.control.quota import Quota, over_count
from underpass.control.subject import Role, Subject
from underpass.core import metrics
from underpass.core.clock import Clock, rfc3339
from underpass.core.errors import NotFound, TooManyRequests
from underpass.core.ids import is_id
from underpass.store.db.models import Agent, TtySession, User

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = [
    "LIVE",
    "SORTABLE",
    "AgentStanding",
    "Person",
    "SessionFilter",
    "Sessions",
    "session_record",
]

LIVE: Final = ("connecting", "active", "detached")
"""The states of a session that is not over."""
SORTABLE: Final = frozenset({"created_at", "started_at", "ended_at", "username", "status"})


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """What to list; times are Unix seconds, *since* inclusive and *until* exclusive."""

    status: str | None = None
    asset_id: str | None = None
    user: str | None = None
    """A user's id or name."""
    kind: str | None = None
    since: float | None = None
    until: float | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class AgentStanding:
    """A machine as far as terminals care."""

    view: AgentView
    status: str
    hostname: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Person:
    """A user as they are now, not as they were when a ticket was made."""

    user_id: str
    username: str
    role: Role
    disabled: bool

    def subject(self, ip: str | None = None) -> Subject:
        return Subject(self.user_id, self.username, self.role, via="token", ip=ip)


def session_record(row: TtySession, observers: int = 0) -> dict[str, Any]:
    """The public fields of a session (spec 7); never the ticket's hash."""
    return {
        "id": row.id,
        "asset_id": row.asset_id,
        "user_id": row.user_id,
        "username": row.username,
        "kind": row.kind,
        "status": row.status,
        "command": row.command,
        "login": row.login,
        "cols": row.cols,
        "rows": row.rows,
        "created_at": rfc3339(row.created_at),
        "started_at": None if row.started_at is None else rfc3339(row.started_at),
        "ended_at": None if row.ended_at is None else rfc3339(row.ended_at),
        "exit_code": row.exit_code,
        "signal": row.signal,
        "browser_ip": row.browser_ip,
        "agent_ip": row.agent_ip,
        "recording": row.recording,
        "observers": observers,
        "error_message": row.error_message,
    }


class QuotasLike(Protocol):
    """What people may use (``control.quotas.Quotas``)."""

    async def of(self, db: AsyncSession, user_id: str) -> Quota: ...


class Sessions:
    """Reads and writes ``tty_sessions``.

    Args:
        database: where the rows are.
        clock: where the times come from.
        per_user, per_agent: most live sessions (connecting, active, detached) at once.
        quotas: what people may use besides; without it nobody has a quota.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        per_user: int = 20,
        per_agent: int = 50,
        quotas: QuotasLike | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._per_user = per_user
        self._per_agent = per_agent
        self._quotas = quotas

    # -- who and where ----------------------------------------------------------------------------

    async def standing(self, agent_id: str) -> AgentStanding | None:
        """The machine's standing, or None when there is none by that id (or it was deleted)."""
        if not is_id(agent_id):
            return None
        async with self._database.reading() as db:
            row = await db.get(Agent, agent_id)
        if row is None or row.is_deleted:
            return None
        return AgentStanding(_view(row), row.status, row.hostname, row.address)

    async def people(self, user_ids: Iterable[str]) -> dict[str, Person]:
        """The users among *user_ids* that exist, by id."""
        wanted = list(set(user_ids))
        if not wanted:
            return {}
        async with self._database.reading() as db:
            rows = await db.scalars(select(User).where(User.id.in_(wanted)))
            return {
                row.id: Person(row.id, row.username, _role(row.role), row.disabled) for row in rows
            }

    async def machines(self, agent_ids: Iterable[str]) -> dict[str, AgentView]:
        """The machines among *agent_ids* that exist and are not deleted, by id."""
        wanted = list(set(agent_ids))
        if not wanted:
            return {}
        async with self._database.reading() as db:
            rows = await db.scalars(
                select(Agent).where(Agent.id.in_(wanted), Agent.is_deleted.is_(False))
            )
            return {row.id: _view(row) for row in rows}

    # -- caps -------------------------------------------------------------------------------------

    async def check_caps(self, user_id: str, agent_id: str) -> None:
        """See whether one more session fits.

        Raises:
            TooManyRequests: code ``too_many_sessions`` or ``quota_exceeded``; the details name
                the cap.
        """
        async with self._database.reading() as db:
            await self._check_caps(db, user_id, agent_id)

    async def _check_caps(self, db: AsyncSession, user_id: str, agent_id: str) -> None:
        limit = None
        if self._quotas is not None:
            limit = (await self._quotas.of(db, user_id)).max_sessions
        if limit is not None:
            used = await _live_ones(db, TtySession.user_id == user_id)
            if used >= limit:
                metrics.QUOTA_REFUSALS.labels("max_sessions").inc()
                raise over_count("max_sessions", "open sessions", limit, used, undo="End")
        for column, value, cap, whose in (
            (TtySession.user_id, user_id, self._per_user, "You have"),
            (TtySession.asset_id, agent_id, self._per_agent, "This machine has"),
        ):
            count = await _live_ones(db, column == value)
            if count >= cap:
                raise TooManyRequests(
                    f"{whose} {count} open sessions; {cap} is the limit.",
                    code="too_many_sessions",
                    hint="End one that is no longer needed.",
                    details={"limit": cap},
                )

    # -- writing ----------------------------------------------------------------------------------

    async def create(self, row: TtySession, *, capped: bool = True) -> None:
        """Store a new session; the caps are checked in the same transaction.

        Raises:
            TooManyRequests: a cap is reached.
        """
        row.created_at = self._clock.now()
        async with self._database.session() as db:
            if capped:
                # So that those who begin at once are counted one after the other.
                user = select(User.id).where(User.id == row.user_id)
                await db.execute(user.with_for_update())
                await self._check_caps(db, row.user_id, row.asset_id)
            db.add(row)

    async def change(self, session_id: str, **fields: Any) -> bool:
        """Set columns of a session that is not over; whether there was one."""
        async with self._database.session() as db:
            result = await db.execute(
                update(TtySession)
                .where(TtySession.id == session_id, TtySession.status.in_(LIVE))
                .values(**fields)
            )
            return bool(getattr(result, "rowcount", 0))

    async def end(
        self,
        session_id: str,
        *,
        status: str,
        exit_code: int | None = None,
        signal: str | None = None,
        error_message: str | None = None,
        **fields: Any,
    ) -> bool:
        """Close a session for good (``closed`` or ``error``); False when it was over already.

        Args:
            fields: other columns to set with it.
        """
        return await self.change(
            session_id,
            **fields,
            status=status,
            ended_at=self._clock.now(),
            exit_code=exit_code,
            signal=None if signal is None else signal[:16],
            error_message=None if error_message is None else error_message[:2000],
        )

    # -- reading ----------------------------------------------------------------------------------

    async def get(self, session_id: str) -> TtySession | None:
        """The row, without asking who wants it."""
        if not is_id(session_id):
            return None
        async with self._database.reading() as db:
            return await db.get(TtySession, session_id)

    async def visible(self, subject: Subject, session_id: str) -> TtySession:
        """The row, for someone who may see it: its owner, an admin, an auditor.

        Raises:
            NotFound: there is none, or not for *subject* (one body for both).
        """
        row = await self.get(session_id)
        if row is None or not authorise(subject, "see", None, owner_id=row.user_id).allowed:
            raise NotFound("There is no such session.", hint="Check the id.")
        return row

    async def page(
        self,
        subject: Subject,
        wanted: SessionFilter,
        *,
        offset: int,
        limit: int,
        order: tuple[str, bool] = ("created_at", True),
    ) -> tuple[list[TtySession], int]:
        """One page of the sessions *subject* may see, and how many match in all.

        Args:
            order: column (one of :data:`SORTABLE`) and whether descending.
        """
        conditions = _conditions(subject, wanted)
        column = getattr(TtySession, order[0] if order[0] in SORTABLE else "created_at")
        by = column.desc() if order[1] else column.asc()
        async with self._database.reading() as db:
            total = await db.scalar(select(func.count()).select_from(TtySession).where(*conditions))
            rows = await db.scalars(
                select(TtySession)
                .where(*conditions)
                .order_by(by, TtySession.id)
                .offset(offset)
                .limit(limit)
            )
            return list(rows), total or 0

    async def live(self, agent_id: str | None = None) -> list[TtySession]:
        """All sessions that are not over, of one machine or of all."""
        query = select(TtySession).where(TtySession.status.in_(LIVE))
        if agent_id is not None:
            query = query.where(TtySession.asset_id == agent_id)
        async with self._database.reading() as db:
            return list(await db.scalars(query))


async def _live_ones(db: AsyncSession, condition: Any) -> int:
    live = select(func.count()).select_from(TtySession).where(TtySession.status.in_(LIVE))
    return await db.scalar(live.where(condition)) or 0


def _view(row: Agent) -> AgentView:
    return AgentView(row.id, row.name, frozenset(row.allowed_users), row.is_deleted)


def _role(text: str) -> Role:
    return text if text in ("admin", "auditor") else "user"


def _conditions(subject: Subject, wanted: SessionFilter) -> list[Any]:
    conditions: list[Any] = []
    if subject.role not in ("admin", "auditor"):
        conditions.append(TtySession.user_id == subject.user_id)
    if wanted.status == "live":
        conditions.append(TtySession.status.in_(LIVE))
    elif wanted.status:
        conditions.append(TtySession.status.in_(wanted.status.split(",")[:8]))
    if wanted.asset_id:
        conditions.append(TtySession.asset_id == wanted.asset_id)
    if wanted.user:
        conditions.append(
            or_(TtySession.user_id == wanted.user, TtySession.username == wanted.user)
        )
    if wanted.kind:
        conditions.append(TtySession.kind == wanted.kind)
    if wanted.since is not None:
        conditions.append(TtySession.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(TtySession.created_at < wanted.until)
    if wanted.text:
        conditions.append(
            or_(
                TtySession.username.contains(wanted.text, autoescape=True),
                TtySession.command.contains(wanted.text, autoescape=True),
                TtySession.id == wanted.text,
            )
        )
    return conditions
