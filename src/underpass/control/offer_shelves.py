"""All offers, wherever they are kept: people's in the database, guests' in memory."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.guest import is_guest
from underpass.control.guest_offers import GuestOffers
from underpass.control.offer import Offer
from underpass.control.offer_store import OfferStore

__all__ = ["OfferShelves"]


class OfferShelves:
    """Reads and changes either kind; see :class:`OfferStore` for what each does."""

    def __init__(self, rows: OfferStore, guests: GuestOffers) -> None:
        self._rows = rows
        self._guests = guests

    async def get(self, offer_id: str) -> Offer:
        """Raises:
        NotFound: there is none.
        """
        return self._guests.get(offer_id) or await self._rows.get(offer_id)

    async def by_code(self, code: str) -> Offer | None:
        return self._guests.by_code(code) or await self._rows.by_code(code)

    async def accepted(self, user_id: str, agent_id: str) -> list[Offer]:
        if is_guest(agent_id):
            return self._guests.accepted(user_id, agent_id)
        return await self._rows.accepted(user_id, agent_id)

    async def due(self, now: float) -> list[Offer]:
        return self._guests.due(now) + await self._rows.due(now)

    async def page(
        self, *, of: str | None, running_at: float | None, offset: int, limit: int
    ) -> tuple[list[Offer], int]:
        """Guests' offers stand first, each kind newest first."""
        ours = self._guests.listed(of=of, running_at=running_at)
        some = ours[offset : offset + limit]
        rows, total = await self._rows.page(
            of=of, running_at=running_at, offset=max(0, offset - len(ours)),
            limit=limit - len(some),
        )  # fmt: skip
        return some + rows, total + len(ours)

    async def take(self, db: AsyncSession, offer: Offer, **by: Any) -> bool:
        if is_guest(offer.agent_id):
            return self._guests.take(offer, **by)
        return await self._rows.take(db, offer, **by)

    async def end(
        self, db: AsyncSession, offer: Offer, how: Literal["expired", "revoked"], now: float
    ) -> bool:
        if is_guest(offer.agent_id):
            return self._guests.end(offer, how, now)
        return await self._rows.end(db, offer, how, now)

    async def forget(self, now: float, keep: float) -> None:
        """Drop what ended *keep* seconds ago; guests' sooner."""
        self._guests.forget(now)
        await self._rows.forget(now - keep)
