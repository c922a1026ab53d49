"""Enrolment: agents apply with a signed key, an admin or a join token lets them in (spec 1)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import structlog
from sqlalchemy import CursorResult, delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.admission import QuotasLike
from underpass.control.agent_secrets import AgentSecrets
from underpass.control.approvals import Approvals, ReissuedHook, unknown_application
from underpass.control.enrolment_list import list_applications, warnings_of
from underpass.control.events import Events
from underpass.control.join_tokens import JoinTokens
from underpass.control.live import LiveBus
from underpass.control.nonces import Nonces
from underpass.control.rate_limits import RateLimits, address_key
from underpass.control.signed_requests import check_clock
from underpass.control.subject import Subject
from underpass.core.clock import Clock
from underpass.core.errors import Conflict, TooManyRequests
from underpass.core.ids import IdMaker, is_id, new_id
from underpass.store.db.models import Agent, EnrolmentApplication, JoinToken
from underpass.wire.applications import (
    Application,
    key_fingerprint,
    parse_application,
    verify_application,
)

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["EnrolmentLimits", "Enrolments"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EnrolmentLimits:
    """Caps on what strangers can make us keep or compute.

    Attributes:
        pending: applications waiting at once.
        pending_per_address: of them, from one address.
        registers_per_minute: per address; a rack behind one NAT address restarts together.
        polls_per_minute: per address.
        stale_after: seconds; when the cap is reached, older pending applications give way, and
            their agents apply again.
    """

    pending: int = 2000
    pending_per_address: int = 200
    registers_per_minute: int = 300
    polls_per_minute: int = 3000
    stale_after: float = 24 * 3600.0


class Enrolments:
    """Takes applications, answers their polls, decides them.

    Args:
        gateway_key: raw Ed25519 public key of this gateway; agents pin it for their links.
        limits: caps; tests lower them.
        quotas: how many machines each may let in; without it as many as they like.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        events: Events,
        bus: LiveBus,
        *,
        rate_limits: RateLimits,
        nonces: Nonces,
        secrets: AgentSecrets,
        join_tokens: JoinTokens,
        gateway_key: bytes,
        limits: EnrolmentLimits | None = None,
        make_id: IdMaker = new_id,
        quotas: QuotasLike | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._rates = rate_limits
        self._nonces = nonces
        self._tokens = join_tokens
        self._limits = limits or EnrolmentLimits()
        self._make_id = make_id
        self._approvals = Approvals(
            database, clock, events, bus, secrets=secrets, gateway_key=gateway_key, quotas=quotas
        )

    def on_reissued(self, hook: ReissuedHook) -> None:
        """Call *hook* with a machine's id when its secret was replaced: its old link must end."""
        self._approvals.on_reissued.append(hook)

    # -- what agents ask --------------------------------------------------------------------

    async def register(self, body: bytes, ip: str | None) -> dict[str, Any]:
        """Take an application.

        Returns:
            ``{"status": "pending", "apply_id"}``, or the approved answer when a join token is good.

        Raises:
            TooManyRequests: rate or cap (``too_many_requests``, ``too_many_pending``); whoever
                made the join token has as many machines as their quota allows
                (``quota_exceeded``).
            TooLarge, InvalidRequest: the body (``body_too_large``, ``bad_body``, ``bad_field``) or
                its key (``bad_key``, ``not_rsa``, ``weak_key``).
            Unauthenticated: ``clock_skew`` with ``server_time``; ``bad_signature``;
                ``join_token_unknown``.
            Conflict: ``replayed``.
            Forbidden: ``join_token_revoked|expired|used_up``.
        """
        limit = self._limits.registers_per_minute
        await self._rates.hit("register", address_key(ip), limit, 60)
        application = parse_application(body)
        check_clock(application.timestamp, self._clock.now())
        fingerprint = key_fingerprint(verify_application(application))
        await self._nonces.burn("register", application.client_id, application.nonce)
        if application.join_token is not None:
            return await self._join(application, fingerprint, application.join_token, ip)
        return await self._apply(application, fingerprint, ip)

    async def status(self, apply_id: str, ip: str | None) -> dict[str, Any]:
        """What became of an application.

        Raises:
            NotFound: there is none with this id (``unknown_application``).
            Gone: it was approved, but its machine was deleted or taken over by another key since
                (``application_superseded``); the agent should apply again.
            TooManyRequests: the address polls too often.
        """
        await self._rates.hit("register-status", address_key(ip), self._limits.polls_per_minute, 60)
        async with self._database.reading() as db:
            row = await db.get(EnrolmentApplication, apply_id) if is_id(apply_id) else None
            if row is None:
                raise unknown_application()
            if row.apply_status != "approved":
                return {"status": row.apply_status, "apply_id": row.id}
            return await self._approvals.again(db, row)

    async def _apply(
        self, application: Application, fingerprint: str, ip: str | None
    ) -> dict[str, Any]:
        try:
            async with self._database.session() as db:
                row, made = await self._pending_row(db, application, fingerprint, ip)
                warnings = await warnings_of(db, [row]) if made else {}
        except IntegrityError:
            # Lost a race against the same applicant, or the nonce was seen before our memory.
            async with self._database.reading() as db:
                row = await _find_pending(db, _pending_key(application.client_id, fingerprint))
                if row is None:
                    raise Conflict("This request has been seen before.", code="replayed") from None
            return {"status": "pending", "apply_id": row.id}
        if made:
            if row.id in warnings:
                _log.warning("enrolment_suspicious", client_id=row.client_id, why=warnings[row.id])
            self._approvals.announce(row)
        return {"status": "pending", "apply_id": row.id}

    async def _pending_row(
        self,
        db: AsyncSession,
        application: Application,
        fingerprint: str,
        ip: str | None,
        *,
        capped: bool = True,
    ) -> tuple[EnrolmentApplication, bool]:
        """The pending row of this applicant, and whether it was just made."""
        pending_key = _pending_key(application.client_id, fingerprint)
        row = await _find_pending(db, pending_key)
        if row is not None:
            return row, False
        if capped:
            await self._check_caps(db, ip)
        row = EnrolmentApplication(
            id=self._make_id(),
            client_id=application.client_id,
            nonce=application.nonce,
            hostname=application.hostname,
            client_public_key=application.public_key,
            key_fingerprint=fingerprint,
            apply_status="pending",
            pending_key=pending_key,
            address=ip,
            created_at=self._clock.now(),
        )
        db.add(row)
        await db.flush()
        await self._events.record(
            "enrolment.applied",
            agent_id=row.client_id,
            object_id=row.id,
            ip=ip,
            details={"hostname": row.hostname, "key_fingerprint": fingerprint},
            db=db,
        )
        return row, True

    async def _check_caps(self, db: AsyncSession, ip: str | None) -> None:
        pending = EnrolmentApplication.apply_status == "pending"
        count = select(func.count()).select_from(EnrolmentApplication)
        if (await db.scalar(count.where(pending)) or 0) >= self._limits.pending:
            before = self._clock.now() - self._limits.stale_after
            freed = await db.execute(
                delete(EnrolmentApplication).where(
                    pending, EnrolmentApplication.created_at < before
                )
            )
            if cast("CursorResult[Any]", freed).rowcount == 0:
                raise _too_many_pending()
        here = await db.scalar(count.where(pending, EnrolmentApplication.address == ip))
        if (here or 0) >= self._limits.pending_per_address:
            raise _too_many_pending()

    async def _join(
        self, application: Application, fingerprint: str, token: str, ip: str | None
    ) -> dict[str, Any]:
        """Let an applicant with a join token in at once, or refuse it."""
        try:
            return await self._join_once(application, fingerprint, token, ip)
        except IntegrityError:
            # The same applicant came twice at once; now the other's result is there to be seen.
            return await self._join_once(application, fingerprint, token, ip)

    async def _join_once(
        self, application: Application, fingerprint: str, token: str, ip: str | None
    ) -> dict[str, Any]:
        async with self._database.session() as db:
            token_row = await self._tokens.find(db, token)
            earlier = await _joined_before(db, application.client_id, fingerprint, token_row)
            if earlier is not None:
                # The answer was lost on the way: give it again without another use.
                return await self._approvals.again(db, earlier)
            known = await db.get(Agent, application.client_id)
            # A deleted machine's updated_at is when that was. Whoever made the token later may
            # have meant it; who made it before did not know.
            removed = (
                known is not None and known.is_deleted and token_row.created_at <= known.updated_at
            )
            if known is None or (known.key_fingerprint == fingerprint and not removed):
                labels = await self._tokens.spend(db, token_row)
                row, _ = await self._pending_row(db, application, fingerprint, ip, capped=False)
                admitted = await self._approvals.by_token(db, row, token_row, labels)
            else:
                row = admitted = None
        if row is None or admitted is None:
            # A token lets machines in; it must not let one become another, or one come back.
            return await self._apply(application, fingerprint, ip)
        await self._approvals.announce_approval(row, admitted)
        return self._approvals.answer(row, admitted.secret)

    # -- what admins do ---------------------------------------------------------------------

    async def page(
        self, status: str | None, page: int, page_size: int, *, q: str | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """One page of applications, newest first, with their warnings; and how many match."""
        async with self._database.reading() as db:
            return await list_applications(db, status, page, page_size, q=q)

    async def approve(
        self, actor: Subject, apply_id: str, *, labels: object = None, name: str | None = None
    ) -> dict[str, Any]:
        """See :meth:`Approvals.approve`."""
        return await self._approvals.approve(actor, apply_id, labels=labels, name=name)

    async def reject(self, actor: Subject, apply_id: str) -> dict[str, Any]:
        """See :meth:`Approvals.reject`."""
        return await self._approvals.reject(actor, apply_id)


def _pending_key(client_id: str, fingerprint: str) -> str:
    return hashlib.sha256(f"{client_id}\n{fingerprint}".encode()).hexdigest()


async def _find_pending(db: AsyncSession, pending_key: str) -> EnrolmentApplication | None:
    return await db.scalar(
        select(EnrolmentApplication).where(EnrolmentApplication.pending_key == pending_key)
    )


async def _joined_before(
    db: AsyncSession, client_id: str, fingerprint: str, token: JoinToken
) -> EnrolmentApplication | None:
    """The approval this very token gave this very key, if its machine is still there."""
    return await db.scalar(
        select(EnrolmentApplication)
        .join(Agent, Agent.id == EnrolmentApplication.client_id)
        .where(
            EnrolmentApplication.client_id == client_id,
            EnrolmentApplication.key_fingerprint == fingerprint,
            EnrolmentApplication.join_token_id == token.id,
            EnrolmentApplication.apply_status == "approved",
            Agent.is_deleted.is_(False),
            Agent.key_fingerprint == fingerprint,
        )
        .limit(1)
    )


def _too_many_pending() -> TooManyRequests:
    return TooManyRequests(
        "Too many applications are waiting for a decision.",
        code="too_many_pending",
        hint="An admin should approve or reject some first.",
        retry_after=60,
    )
