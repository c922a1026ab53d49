"""Turns an approved application into a machine: the row in ``assets``, its name, its secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.agent_secrets import AgentSecrets
from underpass.control.labels import checked_labels, checked_name, name_from_hostname
from underpass.control.quota import Quota, over_count
from underpass.core import metrics
from underpass.core.clock import Clock
from underpass.core.errors import Conflict
from underpass.store.db.models import Agent, EnrolmentApplication, User

__all__ = ["Admission", "Admitted", "QuotasLike", "ensure_name_free"]


class QuotasLike(Protocol):
    """What people may use (``control.quotas.Quotas``)."""

    async def of(self, db: AsyncSession, user_id: str) -> Quota: ...


@dataclass(frozen=True, slots=True)
class Admitted:
    """What came of it.

    Attributes:
        secret: the machine's new secret, raw.
        reissued: the machine was there before; whoever holds its old secret must go.
        key_changed: it was there before under another key.
    """

    agent_id: str
    name: str
    secret: bytes
    reissued: bool = False
    key_changed: bool = False


class Admission:
    """Upserts machines keyed by client id (spec 1, Enrolment, step 6).

    Args:
        quotas: how many machines each may let in; without it as many as they like.
    """

    def __init__(
        self, secrets: AgentSecrets, clock: Clock, quotas: QuotasLike | None = None
    ) -> None:
        self._secrets = secrets
        self._clock = clock
        self._quotas = quotas

    async def admit(
        self,
        db: AsyncSession,
        application: EnrolmentApplication,
        *,
        labels: object = None,
        name: str | None = None,
        by: str | None = None,
        may_declare: bool = False,
    ) -> Admitted:
        """Make or renew the machine of *application* in the caller's transaction.

        A machine that is known keeps its name, labels and users unless told otherwise; one that
        was deleted starts afresh, so that nobody gets back what deletion took away.

        Args:
            labels: ``None`` keeps what is there.
            name: ``None`` keeps what is there, or makes one of the host name.
            by: the user who lets it in.
            may_declare: whether it may declare mappings, which are then *by*'s; ``False`` keeps
                what is there.

        Raises:
            InvalidRequest: labels or name are malformed.
            Conflict: another machine has that name (``name_taken``).
            TooManyRequests: *by* has as many machines as their quota allows
                (``quota_exceeded``).
        """
        now = self._clock.now()
        agent_id = application.client_id
        given = None if labels is None else checked_labels(labels)
        if name is not None:
            await ensure_name_free(db, checked_name(name), agent_id)
        row = await db.scalar(select(Agent).where(Agent.id == agent_id).with_for_update())
        fresh = row is None or row.is_deleted
        if by is not None and (row is None or row.is_deleted or row.let_in_by is None):
            await self._check_room(db, by)
        # Queries come before the row is touched: they flush, and half a row is none.
        free_name = await _free_name(db, application.hostname) if fresh and not name else ""
        if row is None:
            row = Agent(id=agent_id, last_seen_at=None, address=None, version=None)
            db.add(row)
        key_changed = not fresh and row.key_fingerprint != application.key_fingerprint
        if fresh:
            row.name = name or free_name
            row.labels = given or {}
            row.allowed_users = []
            row.status = "offline"
            row.created_at = now
            row.is_deleted = False
            row.static_info = {}
            row.dynamic_info = {}
            row.last_seen_at = None
            row.may_declare = may_declare
            row.let_in_by = by
        else:
            row.name = name or row.name
            row.labels = row.labels if given is None else given
            if may_declare or row.let_in_by is None:
                row.let_in_by = by
            row.may_declare = row.may_declare or may_declare
        secret = self._secrets.make()
        row.client_public_key = application.client_public_key
        row.key_fingerprint = application.key_fingerprint
        row.hostname = application.hostname
        row.address = application.address
        row.agent_secret_key = self._secrets.seal(agent_id, secret)
        # Under the new secret nothing has been signed yet, and the old one's replays fail anyway.
        row.last_heartbeat_timestamp = None
        row.updated_at = now
        await db.flush()
        return Admitted(agent_id, row.name, secret, not fresh, key_changed)

    async def _check_room(self, db: AsyncSession, user_id: str) -> None:
        if self._quotas is None:
            return
        # Their row is locked, so that two of theirs at once are counted one after the other.
        await db.execute(select(User.id).where(User.id == user_id).with_for_update())
        limit = (await self._quotas.of(db, user_id)).max_clients
        if limit is None:
            return
        mine = (Agent.let_in_by == user_id, Agent.is_deleted.is_(False))
        used = await db.scalar(select(func.count()).select_from(Agent).where(*mine)) or 0
        if used >= limit:
            metrics.QUOTA_REFUSALS.labels("max_clients").inc()
            raise over_count("max_clients", "machines", limit, used, undo="Delete")


async def ensure_name_free(db: AsyncSession, name: str, agent_id: str) -> None:
    """Refuse a name that another machine has, whatever its case.

    Raises:
        Conflict: ``name_taken``.
    """
    other = await db.scalar(
        select(Agent.id)
        .where(
            func.lower(Agent.name) == name.lower(),
            Agent.id != agent_id,
            Agent.is_deleted.is_(False),
        )
        .limit(1)
    )
    if other is not None:
        raise Conflict(
            f"Another machine is already called {name}.",
            code="name_taken",
            hint="Give another name.",
        )


async def _free_name(db: AsyncSession, hostname: str) -> str:
    base = name_from_hostname(hostname, frozenset())
    # Only names that could collide: the base itself and its numbered forms.
    similar = func.lower(Agent.name).startswith(base.lower()[:48], autoescape=True)
    taken = await db.scalars(
        select(func.lower(Agent.name)).where(similar, Agent.is_deleted.is_(False))
    )
    return name_from_hostname(hostname, frozenset(taken))
