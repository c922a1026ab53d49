"""Decisions on applications: approve, reject, and answer an approval again (spec 1, steps 6–7)."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import CursorResult, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.admission import Admission, Admitted, QuotasLike
from underpass.control.agent_secrets import AgentSecrets
from underpass.control.events import Events
from underpass.control.live import LiveBus
from underpass.control.subject import Subject
from underpass.core.clock import Clock
from underpass.core.errors import Conflict, Gone, NotFound
from underpass.core.ids import is_id
from underpass.store.db.models import Agent, EnrolmentApplication, JoinToken
from underpass.wire.applications import encrypt_secret, load_public_key

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["Approvals", "ReissuedHook", "unknown_application"]

ReissuedHook = Callable[[str], Awaitable[None]]


class Approvals:
    """Decides applications and hands out secrets, always encrypted for the applicant's key.

    Args:
        gateway_key: raw Ed25519 public key of this gateway; agents pin it for their links.
        quotas: how many machines each may let in.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        events: Events,
        bus: LiveBus,
        *,
        secrets: AgentSecrets,
        gateway_key: bytes,
        quotas: QuotasLike | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._bus = bus
        self._secrets = secrets
        self._admission = Admission(secrets, clock, quotas)
        self._gateway_key = base64.b64encode(gateway_key).decode()
        self.on_reissued: list[ReissuedHook] = []

    async def approve(
        self, actor: Subject, apply_id: str, *, labels: object = None, name: str | None = None
    ) -> dict[str, Any]:
        """Let an applicant in; approving it again answers the same machine.

        Raises:
            NotFound: no such application.
            Conflict: it was rejected (``already_rejected``), or the name is taken.
            Gone: approved before, but superseded since.
            InvalidRequest: labels or name are malformed.
            TooManyRequests: the actor's quota of machines is used up (``quota_exceeded``).
        """
        try:
            return await self._approve(actor, apply_id, labels, name)
        except IntegrityError:
            # Two applications of one client id were approved at once, and both inserted the
            # machine; the second time it is there, and is updated.
            return await self._approve(actor, apply_id, labels, name)

    async def _approve(
        self, actor: Subject, apply_id: str, labels: object, name: str | None
    ) -> dict[str, Any]:
        async with self._database.session() as db:
            row = await self._load(db, apply_id)
            if not await self._decide(db, row.id, "approved", actor.username):
                await db.refresh(row)
                if row.apply_status == "rejected":
                    raise Conflict(
                        "The application has been rejected.",
                        code="already_rejected",
                        hint="Let the agent apply again.",
                    )
                return await self.again(db, row)
            admitted = await self._admission.admit(
                db, row, labels=labels, name=name, by=actor.user_id
            )
            await self._record(db, actor, row, admitted, rule="role:admin")
        await self.announce_approval(row, admitted)
        return self.answer(row, admitted.secret)

    async def reject(self, actor: Subject, apply_id: str) -> dict[str, Any]:
        """Turn an applicant down; rejecting it again changes nothing.

        Raises:
            NotFound: no such application.
            Conflict: it was approved (``already_approved``).
        """
        async with self._database.session() as db:
            row = await self._load(db, apply_id)
            decided = await self._decide(db, row.id, "rejected", actor.username)
            await db.refresh(row)
            if row.apply_status == "approved":
                raise Conflict(
                    "The application has been approved.",
                    code="already_approved",
                    hint="Delete the machine instead.",
                )
            if decided:
                await self._events.record(
                    "agent.rejected",
                    actor=actor,
                    agent_id=row.client_id,
                    object_id=row.id,
                    details={"hostname": row.hostname},
                    db=db,
                )
        if decided:
            self.announce(row)
        return {"status": "rejected", "apply_id": row.id}

    async def by_token(
        self,
        db: AsyncSession,
        row: EnrolmentApplication,
        token: JoinToken,
        labels: dict[str, str],
    ) -> Admitted:
        """Approve a pending application in the caller's transaction, because of a join token."""
        row.join_token_id = token.id
        await db.flush()
        await self._decide(db, row.id, "approved", f"join token {token.id}")
        admitted = await self._admission.admit(
            db,
            row,
            labels=labels or None,
            by=token.created_by_id,
            may_declare=token.may_declare,
        )
        await self._record(db, None, row, admitted, rule="join_token")
        return admitted

    async def _load(self, db: AsyncSession, apply_id: str) -> EnrolmentApplication:
        row = await db.get(EnrolmentApplication, apply_id) if is_id(apply_id) else None
        if row is None:
            raise unknown_application()
        return row

    async def _decide(self, db: AsyncSession, apply_id: str, status: str, by: str) -> bool:
        """Move a pending application to *status*; of two who try at once, one does."""
        moved = await db.execute(
            update(EnrolmentApplication)
            .where(
                EnrolmentApplication.id == apply_id,
                EnrolmentApplication.apply_status == "pending",
            )
            .values(
                apply_status=status,
                pending_key=None,
                decided_at=self._clock.now(),
                decided_by=by[:64],
            )
        )
        return cast("CursorResult[Any]", moved).rowcount == 1

    async def again(self, db: AsyncSession, row: EnrolmentApplication) -> dict[str, Any]:
        """The approved answer once more, with the machine's present secret."""
        agent = await db.get(Agent, row.client_id)
        if agent is None or agent.is_deleted or agent.key_fingerprint != row.key_fingerprint:
            raise Gone(
                "The approval no longer holds: the machine was deleted or has another key.",
                code="application_superseded",
                hint="Apply again.",
            )
        return self.answer(row, self._secrets.unseal(agent.id, agent.agent_secret_key))

    def answer(self, row: EnrolmentApplication, secret: bytes) -> dict[str, Any]:
        key = load_public_key(row.client_public_key)
        return {
            "status": "approved",
            "apply_id": row.id,
            "agent_id": row.client_id,
            "encrypted_secret": encrypt_secret(key, secret),
            "gateway_key": self._gateway_key,
        }

    async def _record(
        self,
        db: AsyncSession,
        actor: Subject | None,
        row: EnrolmentApplication,
        admitted: Admitted,
        *,
        rule: str,
    ) -> None:
        await self._events.record(
            "agent.approved",
            actor=actor,
            agent_id=admitted.agent_id,
            object_id=row.id,
            rule=rule,
            ip=None if actor else row.address,
            details={
                "name": admitted.name,
                "key_fingerprint": row.key_fingerprint,
                "reissued": admitted.reissued,
                "key_changed": admitted.key_changed,
                "join_token_id": row.join_token_id,
            },
            db=db,
        )

    async def announce_approval(self, row: EnrolmentApplication, admitted: Admitted) -> None:
        self.announce(row, status="approved")
        self._bus.publish(
            "agent",
            {"id": admitted.agent_id, "agent_id": admitted.agent_id, "change": "approved"},
        )
        if admitted.reissued:
            for hook in self.on_reissued:
                await hook(admitted.agent_id)

    def announce(self, row: EnrolmentApplication, status: str | None = None) -> None:
        self._bus.publish(
            "enrolment",
            {
                "id": row.id,
                "agent_id": row.client_id,
                "client_id": row.client_id,
                "hostname": row.hostname,
                "status": status or row.apply_status,
            },
        )


def unknown_application() -> NotFound:
    """What a poll or a decision about an unknown id gets."""
    return NotFound("There is no such application.", code="unknown_application")
