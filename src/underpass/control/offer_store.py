"""Where offers are kept: each change is one conditional write, so that of two at once one wins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from sqlalchemy import CursorResult, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.offer import Offer
from underpass.core.errors import NotFound, TooManyRequests
from underpass.core.ids import hash_secret, is_id
from underpass.store.db.models import Agent, User
from underpass.store.db.offer_models import OfferRow

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["MAX_OPEN", "OfferStore", "no_such_offer"]

MAX_OPEN: Final = 100
"""Offers of one person that are neither over nor revoked."""
_BATCH: Final = 200

_JOINED: Final = select(OfferRow, Agent).join(Agent, Agent.id == OfferRow.agent_id)


class OfferStore:
    """The rows of offers. What takes a session works in the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- reading ------------------------------------------------------------------------------

    async def get(self, offer_id: str) -> Offer:
        """The offer with an id.

        Raises:
            NotFound: there is none.
        """
        if not is_id(offer_id):
            raise no_such_offer()
        found = await self._some(OfferRow.id == offer_id)
        if not found:
            raise no_such_offer()
        return found[0]

    async def by_code(self, code: str) -> Offer | None:
        """The offer with a code (canonical), usable or not."""
        # Looked up by its hash: timing can tell nothing about the code itself.
        found = await self._some(OfferRow.code_hash == hash_secret(code))
        return found[0] if found else None

    async def accepted(self, user_id: str, agent_id: str) -> list[Offer]:
        """What this person accepted of the machine and nobody ended."""
        if not is_id(agent_id):
            return []
        return await self._some(
            OfferRow.accepted_by == user_id,
            OfferRow.agent_id == agent_id,
            OfferRow.ended_at.is_(None),
        )

    async def due(self, now: float) -> list[Offer]:
        """Some of what ran out before *now* and is not marked as ended."""
        return await self._some(OfferRow.ended_at.is_(None), OfferRow.ends_at <= now)

    async def page(
        self, *, of: str | None, running_at: float | None, offset: int, limit: int
    ) -> tuple[list[Offer], int]:
        """Some offers, newest first, and how many there are.

        Args:
            of: only those that this user made or accepted.
            running_at: only those that are not over then.
        """
        conditions: list[Any] = []
        if of is not None:
            conditions.append(or_(OfferRow.user_id == of, OfferRow.accepted_by == of))
        if running_at is not None:
            conditions += _running(running_at)
        query = _JOINED.where(*conditions).order_by(OfferRow.created_at.desc(), OfferRow.id)
        async with self._database.reading() as db:
            total = await db.scalar(select(func.count()).select_from(OfferRow).where(*conditions))
            rows = await db.execute(query.offset(offset).limit(limit))
            return [_offer(row, agent) for row, agent in rows], total or 0

    async def _some(self, *conditions: Any) -> list[Offer]:
        async with self._database.reading() as db:
            rows = await db.execute(_JOINED.where(*conditions).limit(_BATCH))
            return [_offer(row, agent) for row, agent in rows]

    # -- writing ------------------------------------------------------------------------------

    async def add(self, db: AsyncSession, offer: Offer, code: str) -> None:
        """Store a new offer, and its code's hash.

        Raises:
            TooManyRequests: its maker has as many as they may (``too_many_offers``).
        """
        # The maker's row is locked, so that two of theirs at once are counted one after the other.
        await db.execute(select(User.id).where(User.id == offer.user_id).with_for_update())
        mine = [OfferRow.user_id == offer.user_id, *_running(offer.created_at)]
        count = await db.scalar(select(func.count()).select_from(OfferRow).where(*mine))
        if (count or 0) >= MAX_OPEN:
            raise TooManyRequests(
                f"You have {count} offers; {MAX_OPEN} is the limit.",
                code="too_many_offers",
                hint="Revoke one: underpass offers revoke ID",
            )
        db.add(
            OfferRow(
                id=offer.id,
                code_hash=hash_secret(code),
                user_id=offer.user_id,
                username=offer.username,
                agent_id=offer.agent_id,
                target=offer.target,
                access_seconds=offer.access_seconds,
                created_at=offer.created_at,
                ends_at=offer.ends_at,
            )
        )

    async def take(
        self, db: AsyncSession, offer: Offer, *, user_id: str, username: str, now: float,
        until: float,
    ) -> bool:  # fmt: skip
        """Burn the code for this person; False when somebody was faster, or it is over."""
        taken = await db.execute(
            update(OfferRow)
            .where(OfferRow.id == offer.id, OfferRow.accepted_at.is_(None), *_running(now))
            .values(accepted_at=now, accepted_by=user_id, accepted_username=username, ends_at=until)
        )
        return cast("CursorResult[Any]", taken).rowcount == 1

    async def end(
        self, db: AsyncSession, offer: Offer, how: Literal["expired", "revoked"], now: float
    ) -> bool:
        """Mark it as ended; False when it was already."""
        conditions = [OfferRow.id == offer.id, OfferRow.ended_at.is_(None)]
        if how == "expired":  # it may have been accepted since it was looked at
            conditions.append(OfferRow.ends_at == offer.ends_at)
        done = await db.execute(
            update(OfferRow).where(*conditions).values(ended_at=now, ended_how=how)
        )
        return cast("CursorResult[Any]", done).rowcount == 1

    async def forget(self, before: float) -> None:
        """Delete what ended before a time."""
        long_over = OfferRow.ended_at < before
        async with self._database.reading() as db:
            if await db.scalar(select(OfferRow.id).where(long_over).limit(1)) is None:
                return
        async with self._database.session() as db:
            await db.execute(delete(OfferRow).where(long_over))


def _running(now: float) -> Sequence[Any]:
    return [OfferRow.ended_at.is_(None), OfferRow.ends_at > now]


def _offer(row: OfferRow, agent: Agent) -> Offer:
    return Offer(
        id=row.id,
        user_id=row.user_id,
        username=row.username,
        agent_id=row.agent_id,
        machine=agent.name,
        machine_key=agent.key_fingerprint,
        maintenance=agent.status == "maintenance",
        target=row.target,
        access_seconds=row.access_seconds,
        created_at=row.created_at,
        ends_at=row.ends_at,
        accepted_at=row.accepted_at,
        accepted_by=row.accepted_by,
        accepted_username=row.accepted_username,
        ended_at=row.ended_at,
        ended_how=cast("Any", row.ended_how),
    )


def no_such_offer() -> NotFound:
    """One answer for what does not exist and for what is not the asker's."""
    return NotFound("There is no such offer.", hint="See: underpass offers")
