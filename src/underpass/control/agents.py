"""Machines as people see them: list, show, change, delete; always by what the asker may see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

import structlog
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.access import Action, AgentView, require
from underpass.control.admission import ensure_name_free
from underpass.control.agent_list import (
    AgentQuery,
    agent_record,
    find_page,
    session_counts,
    view_of,
)
from underpass.control.events import Events
from underpass.control.labels import checked_labels, checked_name
from underpass.control.live import LiveBus
from underpass.control.metric_history import MetricHistory
from underpass.control.presence import Presence
from underpass.control.subject import Subject
from underpass.core.clock import Clock
from underpass.core.errors import Conflict, InvalidRequest, NotFound
from underpass.core.ids import is_id
from underpass.store.db.models import Agent, User

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["Agents"]

_log = structlog.get_logger(__name__)

CUT_DEADLINE = 4.0
"""Seconds links and sessions of a deleted machine get to end; spec 1 allows five in all."""
MAX_ALLOWED_USERS = 1000

DeletedHook = Callable[[str], Awaitable[None]]
RemovedHook = Callable[[str, Collection[str]], Awaitable[None]]


class Agents:
    """The ``assets`` of spec 1.

    Args:
        is_linked: whether a machine has a link now (the registry knows).
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        events: Events,
        bus: LiveBus,
        *,
        presence: Presence,
        history: MetricHistory,
        is_linked: Callable[[str], bool] = lambda _agent_id: False,
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._bus = bus
        self._presence = presence
        self._history = history
        self.is_linked = is_linked
        self._on_deleted: list[DeletedHook] = []
        self._on_access_removed: list[RemovedHook] = []

    def on_deleted(self, hook: DeletedHook) -> None:
        """Call *hook* with the id of a machine that was deleted: end its link and sessions."""
        self._on_deleted.append(hook)

    def on_access_removed(self, hook: RemovedHook) -> None:
        """Call *hook* with a machine's id and the users it no longer lists: end their sessions."""
        self._on_access_removed.append(hook)

    # -- reading ----------------------------------------------------------------------------

    async def page(
        self, subject: Subject, query: AgentQuery, page: int, page_size: int
    ) -> tuple[list[dict[str, Any]], int]:
        """One page of the machines *subject* may see, and how many match."""
        async with self._database.reading() as db:
            rows, total = await find_page(db, subject, query, page, page_size)
            counts = await session_counts(db, [row.id for row in rows])
        return [self._record(row, counts) for row in rows], total

    async def show(self, subject: Subject, agent_id: str) -> dict[str, Any]:
        """A machine as the API shows it.

        Raises:
            NotFound: it does not exist, or *subject* may not know that it does.
        """
        async with self._database.reading() as db:
            row = await self._visible(db, subject, agent_id, "see")
            counts = await session_counts(db, [row.id])
        return self._record(row, counts)

    async def require(self, subject: Subject, agent_id: str, action: Action = "see") -> Agent:
        """The row of a machine on which *subject* may do *action*.

        Raises:
            NotFound: as :meth:`show`.
            Forbidden: they see it, but may not do this.
        """
        async with self._database.reading() as db:
            return await self._visible(db, subject, agent_id, action)

    async def find(self, subject: Subject, id_or_name: str) -> Agent:
        """A machine *subject* may see by its id or, whatever the case, its name.

        Raises:
            NotFound: none of that id or name, for this asker.
            Conflict: several have that name (``ambiguous_name``).
        """
        if is_id(id_or_name):
            return await self.require(subject, id_or_name)
        async with self._database.reading() as db:
            rows = await db.scalars(
                select(Agent).where(
                    # PostgreSQL takes no NUL in a text; no name holds one either.
                    func.lower(Agent.name) == id_or_name.lower().replace("\0", "/"),
                    Agent.is_deleted.is_(False),
                )
            )
            seen = [row for row in rows if _may_see(subject, row)]
        if not seen:
            raise _no_such_machine()
        if len(seen) > 1:
            raise Conflict(
                f"{len(seen)} machines are called {id_or_name}.",
                code="ambiguous_name",
                hint="Use the id, or rename one.",
            )
        return seen[0]

    async def view(self, agent_id: str) -> AgentView | None:
        """What decisions need of a machine; ``None`` when there is none, deleted ones included."""
        if not is_id(agent_id):
            return None
        async with self._database.reading() as db:
            row = await db.get(Agent, agent_id)
        return None if row is None or row.is_deleted else view_of(row)

    async def key_fingerprint(self, agent_id: str) -> str | None:
        """``sha256:…`` of the key a machine enrolled with; ``None`` when there is none such."""
        if not is_id(agent_id):
            return None
        async with self._database.reading() as db:
            row = await db.get(Agent, agent_id)
        return None if row is None or row.is_deleted else row.key_fingerprint

    async def metrics(self, subject: Subject, agent_id: str) -> list[dict[str, Any]]:
        """The points of the last two hours (:class:`MetricHistory`).

        Raises:
            NotFound: as :meth:`show`.
        """
        await self.require(subject, agent_id)
        return self._history.of(agent_id)

    # -- changing ---------------------------------------------------------------------------

    async def update(
        self, actor: Subject, agent_id: str, changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Change ``name``, ``labels``, ``allowed_users``, ``may_declare`` or ``status``; only what
        is given. Who lets a machine declare mappings answers for them, unless somebody who is
        still here does.

        Raises:
            NotFound, Forbidden: the machine is invisible, or the asker is no admin.
            InvalidRequest: a value is malformed, or a user does not exist.
            Conflict: another machine has that name.
        """
        maintenance = _wanted_maintenance(changes)
        removed: set[str] = set()
        async with self._database.session() as db:
            row = await self._visible(db, actor, agent_id, "admin", lock=True)
            if "name" in changes and changes["name"] != row.name:
                name = checked_name(changes["name"])
                await ensure_name_free(db, name, agent_id)
                row.name = name
            if "labels" in changes:
                row.labels = checked_labels(changes["labels"])
            if "allowed_users" in changes:
                allowed = await _checked_users(db, changes["allowed_users"])
                removed = set(row.allowed_users) - set(allowed)
                row.allowed_users = allowed
            if "may_declare" in changes:
                row.may_declare = changes["may_declare"] is True
                if row.may_declare and not await _answers(db, row.let_in_by):
                    row.let_in_by = actor.user_id
            row.updated_at = self._clock.now()
            details = {key: changes[key] for key in sorted(changes)}
            await self._events.record(
                "agent.updated",
                actor=actor,
                agent_id=agent_id,
                rule="role:admin",
                details=details,
                db=db,
            )
        if maintenance is not None:
            await self._presence.set_maintenance(agent_id, maintenance)
        if removed:
            await self._run(*(hook(agent_id, removed) for hook in self._on_access_removed))
        self._announce(agent_id, "updated")
        return await self.show(actor, agent_id)

    async def delete(self, actor: Subject, agent_id: str) -> None:
        """Delete a machine softly: its secret is void at once, its link and sessions end.

        Its record stays for the audit trail; the same key may apply again and then waits for
        approval like a stranger.

        Raises:
            NotFound, Forbidden: the machine is invisible, or the asker is no admin.
        """
        async with self._database.session() as db:
            row = await self._visible(db, actor, agent_id, "admin", lock=True)
            row.is_deleted = True
            row.status = "offline"
            row.agent_secret_key = ""
            row.allowed_users = []
            row.may_declare = False
            row.updated_at = self._clock.now()
            await self._events.record(
                "agent.deleted",
                actor=actor,
                agent_id=agent_id,
                rule="role:admin",
                details={"name": row.name, "hostname": row.hostname},
                db=db,
            )
        self._presence.forget(agent_id)
        self._history.forget(agent_id)
        self._announce(agent_id, "deleted")
        await self._run(*(hook(agent_id) for hook in self._on_deleted))

    # -- inside -----------------------------------------------------------------------------

    async def _visible(
        self,
        db: AsyncSession,
        subject: Subject,
        agent_id: str,
        action: Action,
        *,
        lock: bool = False,
    ) -> Agent:
        if not is_id(agent_id):
            raise _no_such_machine()
        query = select(Agent).where(Agent.id == agent_id, Agent.is_deleted.is_(False))
        row = await db.scalar(query.with_for_update() if lock else query)
        if row is None:
            raise _no_such_machine()
        require(subject, action, view_of(row))
        return row

    def _record(self, row: Agent, counts: Mapping[str, int]) -> dict[str, Any]:
        return agent_record(row, linked=self.is_linked(row.id), sessions=counts.get(row.id, 0))

    async def _run(self, *hooks: Awaitable[None]) -> None:
        """Run all hooks side by side; one that fails or hangs must not keep the others waiting."""
        try:
            async with asyncio.timeout(CUT_DEADLINE):
                results = await asyncio.gather(*hooks, return_exceptions=True)
        except TimeoutError:
            _log.error("agent_hooks_late", seconds=CUT_DEADLINE)
            return
        for result in results:
            if isinstance(result, BaseException):
                _log.error("agent_hook_failed", exc_info=result)

    def _announce(self, agent_id: str, change: str) -> None:
        self._bus.publish("agent", {"id": agent_id, "agent_id": agent_id, "change": change})


def _may_see(subject: Subject, row: Agent) -> bool:
    try:
        require(subject, "see", view_of(row))
    except NotFound:
        return False
    return True


def _no_such_machine() -> NotFound:
    # The very words of control.access: unknown and invisible must not differ.
    return NotFound("There is no such machine.", hint="Check the id or the name.")


async def _answers(db: AsyncSession, user_id: str | None) -> bool:
    """Whether there is such a person still."""
    user = None if user_id is None else await db.get(User, user_id)
    return user is not None and not user.disabled


def _wanted_maintenance(changes: Mapping[str, Any]) -> bool | None:
    if "status" not in changes:
        return None
    if changes["status"] not in {"maintenance", "online"}:
        raise InvalidRequest(
            "status can be set to maintenance, or to online to lift it.", code="bad_status"
        )
    return changes["status"] == "maintenance"


async def _checked_users(db: AsyncSession, value: object) -> list[str]:
    users = cast("list[object]", value) if isinstance(value, list) else None
    if users is None or len(users) > MAX_ALLOWED_USERS:
        raise InvalidRequest(
            f"allowed_users must be a list of at most {MAX_ALLOWED_USERS} user ids.",
            code="bad_allowed_users",
        )
    ids = sorted({user for user in users if isinstance(user, str) and is_id(user)})
    known = set(await db.scalars(select(User.id).where(User.id.in_(ids)))) if ids else set[str]()
    for user in users:
        if user not in known:
            raise InvalidRequest(
                f"There is no user with the id {str(user)[:40]!r}.", code="bad_allowed_users"
            )
    return ids
