"""Mappings as people and entry points use them: made, changed, looked at and removed.

What is stored and what listens are kept equal: a change that cannot be put to work is taken back,
ports included. The listening itself is done by ``EntryPoints`` (``gateway/tunnels.py``); nothing
here touches the network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping as Fields
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import case, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from underpass.control.access import Action, authorise
from underpass.control.entry_points import NoEntryPoints, close_entry, open_entry, put_to_work
from underpass.control.events import Events
from underpass.control.live import LiveBus
from underpass.control.mapping import EntryPoints, Mapping
from underpass.control.mapping_list import MappingFilter, find_mappings
from underpass.control.mapping_news import MappingNews
from underpass.control.mapping_requests import changed_mapping, check_login, new_mapping
from underpass.control.mapping_rows import Seals
from underpass.control.mapping_store import MappingStore, QuotasLike, no_such_mapping
from underpass.control.port_leases import PortRules
from underpass.control.subject import Subject
from underpass.core.clock import Clock
from underpass.core.errors import Conflict, Forbidden, UnderpassError
from underpass.core.ids import IdMaker, new_id
from underpass.store.db.mapping_models import MappingRow
from underpass.store.db.models import Agent

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["Mappings"]

_log = structlog.get_logger(__name__)

MAX_PER_USER: Final = 100
PORTS_TRIED: Final = 16
"""Ports tried where any will do and other programs turn out to have them."""


class AgentsLike(Protocol):
    """Where machines are found, for somebody (``control.agents.Agents``)."""

    async def require(self, subject: Subject, agent_id: str, action: Action = "see") -> Agent: ...


class Mappings:
    """The mappings of everybody.

    Attributes:
        entry_points: what listens; may be set after construction.

    Args:
        agents: decides who may have what forwarded.
        seals: encrypts passwords in the database.
        rules: which ports there are to have.
        max_per_user: mappings one person may have, disabled ones included, whose quota does not
            say another number.
        quotas: what people may use; without it nobody has a quota.
        default_bind: the address the gateway listens on.
        make_id: makes ids.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        events: Events,
        bus: LiveBus,
        agents: AgentsLike,
        seals: Seals,
        entry_points: EntryPoints | None = None,
        rules: PortRules | None = None,
        max_per_user: int = MAX_PER_USER,
        quotas: QuotasLike | None = None,
        default_bind: str = "0.0.0.0",
        make_id: IdMaker = new_id,
    ) -> None:
        self._database = database
        self._clock = clock
        self._agents = agents
        self.entry_points: EntryPoints = entry_points or NoEntryPoints()
        self._rules = rules or PortRules()
        self._store = MappingStore(database, clock, seals, self._rules, max_per_user, quotas=quotas)
        self._news = MappingNews(events, bus)
        self._default_bind = default_bind
        self._make_id = make_id
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # -- reading ----------------------------------------------------------------------------------

    async def page(
        self,
        subject: Subject,
        wanted: MappingFilter,
        *,
        offset: int = 0,
        limit: int = 50,
        order: tuple[str, bool] = ("created_at", True),
    ) -> tuple[list[Mapping], int]:
        """One page of the mappings *subject* may see, and how many match in all."""
        async with self._database.reading() as db:
            rows, total = await find_mappings(
                db, subject, wanted, offset=offset, limit=limit, order=order
            )
            return [self._store.of(row) for row in rows], total

    async def get(self, subject: Subject, mapping_id: str) -> Mapping:
        """A mapping, for its owner, admins and auditors.

        Raises:
            NotFound: there is none, or not for *subject* (one body for both).
        """
        mapping = await self._store.find(mapping_id)
        owner = None if mapping is None else mapping.user_id
        if mapping is None or not authorise(subject, "see", None, owner_id=owner).allowed:
            raise no_such_mapping()
        return mapping

    async def active(self) -> list[Mapping]:
        """Everybody's mappings that should carry traffic, those that failed included."""
        return await self._enabled()

    async def listening_at(self, agent_id: str) -> list[Mapping]:
        """The mappings for which this agent should listen."""
        return await self._enabled(MappingRow.source_agent_id == agent_id)

    async def declared_by(self, agent_id: str) -> list[Mapping]:
        """The mappings this agent's ``underpass.yaml`` asks for, disabled ones included."""
        query = select(MappingRow).where(MappingRow.declared_by == agent_id)
        async with self._database.reading() as db:
            rows = await db.scalars(query.order_by(MappingRow.created_at, MappingRow.id))
            return [self._store.of(row) for row in rows]

    async def _enabled(self, *conditions: Any) -> list[Mapping]:
        query = select(MappingRow).where(MappingRow.status != "disabled", *conditions)
        async with self._database.reading() as db:
            rows = await db.scalars(query.order_by(MappingRow.created_at, MappingRow.id))
            return [self._store.of(row) for row in rows]

    # -- changing ---------------------------------------------------------------------------------

    async def create(
        self, subject: Subject, wanted: Fields[str, Any], *, declared_by: str | None = None
    ) -> Mapping:
        """Make a mapping of *subject*'s, and open it unless ``status`` says ``disabled``.

        Args:
            wanted: as the API takes it (spec 7); an owner named in it counts for nothing.
            declared_by: the machine whose file asks for it.

        Raises:
            InvalidRequest: a field is wrong; the message names it.
            NotFound, Forbidden: *subject* does not see a machine, or may not forward to it.
            Conflict: a port or name is taken (``port_leased``, ``port_in_use``, ``name_taken``).
            TooManyRequests: the cap or a quota is reached (``too_many_mappings``,
                ``quota_exceeded``); nothing is made.
            Unavailable: no port is free, or it could not be opened.
        """
        now = self._clock.now()
        mapping = new_mapping(wanted, id=self._make_id(), user_id=subject.user_id, now=now)
        mapping = replace(mapping, declared_by=declared_by)
        self._rules.check(mapping)
        mapping = check_login(mapping, self._default_bind)
        try:
            await self._require(subject, mapping)
        except Forbidden as error:
            await self._news.denied(subject, mapping, error)
            raise
        async with self._turn(mapping.id):
            return await self._settle(subject, None, mapping)

    async def update(
        self,
        subject: Subject,
        mapping_id: str,
        wanted: Fields[str, Any],
        *,
        declared_by: str | None = None,
    ) -> Mapping:
        """Change what *wanted* names. Connections that are not concerned stay.

        Args:
            declared_by: the machine whose file wants it so.

        Raises:
            NotFound, Forbidden: the mapping is invisible, or somebody else's.
            Conflict: more than ``status`` would change, and a machine's file has the rest
                (``declared``).
            UnderpassError: as :meth:`create`; the mapping is then as it was.
        """
        async with self._turn(mapping_id):
            old = await self._owned(subject, mapping_id)
            mapping = changed_mapping(old, wanted)
            if mapping == old:
                return old
            if replace(old, status=mapping.status, error=mapping.error) != mapping:
                _check_declared(old, declared_by)
            if mapping.source != old.source:
                self._rules.check(mapping)
            mapping = check_login(mapping, self._default_bind)
            if mapping.enabled:
                await self._require(subject, mapping)
            return await self._settle(subject, old, mapping)

    async def delete(self, subject: Subject, mapping_id: str) -> None:
        """Remove a mapping: its connections end, its port is free again.

        Raises:
            NotFound, Forbidden: the mapping is invisible, or somebody else's.
            Conflict: it belongs to a machine's file (``declared``).
        """
        async with self._turn(mapping_id):
            mapping = await self._owned(subject, mapping_id)
            _check_declared(mapping, None)
            await self._remove(mapping, subject, "The mapping was deleted.")

    async def remove(self, mapping_id: str, reason: str) -> bool:
        """Remove a mapping without anybody asking; whether it was there."""
        async with self._turn(mapping_id):
            mapping = await self._store.find(mapping_id)
            return mapping is not None and await self._remove(mapping, None, reason)

    async def _settle(self, subject: Subject, old: Mapping | None, wanted: Mapping) -> Mapping:
        """Store *wanted*, put it to work, write the event; or take everything back."""
        avoid: set[int] = set()
        # What did not work may be changed though it still does not, unless told to move or start.
        forgiving = wanted.status == "error" and old is not None and old.source == wanted.source
        if wanted.status == "error":
            wanted = replace(wanted, status="active", error=None)
        while True:
            stored = await self._store.save(old, wanted, avoid)
            try:
                return await self._work(subject, old, stored, forgiving)
            except BaseException as error:
                old = await self._take_back(subject, old, stored, error)
                busy = isinstance(error, UnderpassError) and error.code == "port_in_use"
                if not busy or wanted.source.port != 0 or len(avoid) >= PORTS_TRIED:
                    raise
                avoid.add(stored.source.port)

    async def _work(
        self, subject: Subject, old: Mapping | None, stored: Mapping, forgiving: bool
    ) -> Mapping:
        opened = await put_to_work(self.entry_points, old, stored, forgiving=forgiving)
        if opened != stored:  # an agent has picked a port, or it still does not work
            stored = await self._store.save(
                stored,
                replace(stored, source=opened.source, status=opened.status, error=opened.error),
            )
        async with self._database.session() as db:
            await self._news.settled(subject, old, stored, db)
        self._news.announce(stored, "created" if old is None else "updated")
        return stored

    async def _take_back(
        self, subject: Subject, old: Mapping | None, stored: Mapping, error: BaseException
    ) -> Mapping | None:
        """Undo what :meth:`_work` began; gives the mapping as it is then, to try once more."""
        try:
            await close_entry(self.entry_points, stored.id, "The mapping could not be opened.")
            if old is None:
                async with self._database.session() as db:
                    await self._store.remove(db, stored)
            else:
                old = await self._store.save(stored, old)
                if old.enabled:
                    await self._reopen(old)
            await self._news.failed(subject, stored, error)
        except (UnderpassError, SQLAlchemyError, OSError) as second:
            # What was wrong first is what the person should hear.
            _log.error("mapping_not_taken_back", mapping=stored.id, error=str(second)[:300])
        return old

    async def _reopen(self, mapping: Mapping) -> None:
        try:
            await open_entry(self.entry_points, mapping)
        except UnderpassError as error:
            await self.set_status(mapping.id, "error", error.message)

    async def _remove(self, mapping: Mapping, by: Subject | None, reason: str) -> bool:
        async with self._database.session() as db:
            if not await self._store.remove(db, mapping):
                return False
            await self._news.deleted(by, mapping, reason, db)
        try:
            await close_entry(self.entry_points, mapping.id, reason)
        except UnderpassError as error:
            # It is gone for good either way; what still listens leads nowhere.
            _log.error("mapping_not_closed", mapping=mapping.id, error=error.message)
        self._news.announce(mapping, "deleted")
        return True

    # -- what entry points tell -------------------------------------------------------------------

    async def set_status(
        self, mapping_id: str, status: Literal["active", "error"], error: str | None = None
    ) -> bool:
        """Note whether an enabled mapping works; whether that was news."""
        text = None if status == "active" else (error or "It could not be opened.")[:2000]
        async with self._database.session() as db:
            row = await db.get(MappingRow, mapping_id, with_for_update=True)
            if row is None or row.status == "disabled" or (row.status, row.error) == (status, text):
                return False
            failed_now = status == "error" and row.status != "error"
            row.status, row.error = status, text
            mapping = self._store.of(row)
            if failed_now:
                await self._news.failed(None, mapping, text or "", db)
        self._news.announce(mapping, "status")
        return True

    async def add_usage(
        self,
        mapping_id: str,
        *,
        connections: int = 0,
        sent: int = 0,
        received: int = 0,
        last_active_at: float | None = None,
    ) -> None:
        """Add to a mapping's totals; nobody's version changes.

        Args:
            sent, received: bytes towards the target, and back from it.
            last_active_at: Unix seconds.
        """
        seen = MappingRow.last_active_at
        values: dict[Any, Any] = {
            MappingRow.total_connections: MappingRow.total_connections + connections,
            MappingRow.bytes_sent: MappingRow.bytes_sent + sent,
            MappingRow.bytes_received: MappingRow.bytes_received + received,
        }
        if last_active_at is not None:
            later = or_(seen.is_(None), seen < last_active_at)
            values[seen] = case((later, last_active_at), else_=seen)
        async with self._database.session() as db:
            await db.execute(
                update(MappingRow)
                .where(MappingRow.id == mapping_id)
                .values(values)
                .execution_options(synchronize_session=False)
            )

    # -- inside -----------------------------------------------------------------------------------

    def _turn(self, mapping_id: str) -> asyncio.Lock:
        """Changes of one mapping go one after the other, so that entry points see them in order."""
        turn = self._turns.get(mapping_id)
        if turn is None:
            turn = self._turns[mapping_id] = asyncio.Lock()
        return turn

    async def _require(self, subject: Subject, mapping: Mapping) -> None:
        await self._agents.require(subject, mapping.target_agent_id, "forward")
        if mapping.source.agent_id is not None:
            await self._agents.require(subject, mapping.source.agent_id, "forward")

    async def _owned(self, subject: Subject, mapping_id: str) -> Mapping:
        mapping = await self.get(subject, mapping_id)
        if not subject.is_admin and subject.user_id != mapping.user_id:
            raise Forbidden("Only its owner and admins may change this mapping.")
        return mapping


def _check_declared(mapping: Mapping, by: str | None) -> None:
    if mapping.declared_by not in {None, by}:
        raise Conflict(
            f"{mapping.name} is declared in its machine's underpass.yaml.",
            code="declared",
            hint="Change that file, and the mapping follows within seconds; here it can only be"
            " disabled and enabled.",
        )
