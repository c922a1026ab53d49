"""What guests offer: kept in memory, since each lives only as long as the command that made it.

The same interface as ``offer_store.OfferStore``, without a database behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from underpass.control.guest_quota import PER_ADDRESS, PER_GUEST
from underpass.control.offer import Offer
from underpass.core.errors import TooManyRequests
from underpass.core.ids import hash_secret

__all__ = ["GuestOffers"]

MAX_KEPT: Final = 2000
"""Guests' offers in all, over or not; the oldest of those that are over go first."""
KEEP: Final = 24 * 3600.0
"""Seconds one is shown after its end."""


@dataclass(slots=True)
class _Kept:
    offer: Offer
    code_hash: str
    address: str
    until: float


class GuestOffers:
    """Offers by id."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, offer_id: str) -> Offer | None:
        """The offer with this id."""
        kept = self._kept.get(offer_id)
        return None if kept is None else kept.offer

    def by_code(self, code: str) -> Offer | None:
        """The offer with a code (canonical), usable or not."""
        hashed = hash_secret(code)
        for kept in self._kept.values():
            if kept.code_hash == hashed:
                return kept.offer
        return None

    def accepted(self, user_id: str, host_id: str) -> list[Offer]:
        """What this person accepted of the guest's and nobody ended."""
        return [
            offer for offer in self._all()
            if offer.accepted_by == user_id and offer.agent_id == host_id and offer.ended_at is None
        ]  # fmt: skip

    def due(self, now: float) -> list[Offer]:
        """What ran out before *now* and is not marked as ended."""
        return [each for each in self._all() if each.ended_at is None and each.ends_at <= now]

    def listed(self, *, of: str | None, running_at: float | None) -> list[Offer]:
        """Newest first: those this person made or accepted, and that are not over then."""
        found = [
            offer for offer in self._all()
            if (of is None or offer.concerns(of))
            and (running_at is None or (offer.ended_at is None and offer.ends_at > running_at))
        ]  # fmt: skip
        return sorted(found, key=lambda offer: (-offer.created_at, offer.id))

    def address_of(self, host_id: str) -> str | None:
        """Where the newest live offer of a guest was made."""
        for kept in reversed(self._kept.values()):
            if kept.offer.agent_id == host_id and kept.offer.ended_at is None:
                return kept.address
        return None

    def add(self, offer: Offer, code: str, *, address: str, until: float) -> None:
        """Keep a new one.

        Args:
            address: what counts as the guest's address.
            until: when their login ends, and the access with it.

        Raises:
            TooManyRequests: the guest, the address or all guests together have as many as they
                may (``too_many_offers``).
        """
        live = [
            kept for kept in self._kept.values()
            if kept.offer.ended_at is None and kept.offer.ends_at > offer.created_at
        ]  # fmt: skip
        mine = sum(kept.offer.user_id == offer.user_id for kept in live)
        here = sum(kept.address == address for kept in live)
        if mine >= PER_GUEST.offers or here >= PER_ADDRESS.offers or len(live) >= MAX_KEPT:
            raise TooManyRequests(
                "Guests may not have so many offers at a time.", code="too_many_offers",
                hint="End one, or sign in.",
            )  # fmt: skip
        if len(self._kept) >= MAX_KEPT:
            alive = {kept.offer.id for kept in live}
            del self._kept[next(each for each in self._kept if each not in alive)]
        self._kept[offer.id] = _Kept(offer, hash_secret(code), address, until)

    def take(self, offer: Offer, *, user_id: str, username: str, now: float, until: float) -> bool:
        """Burn the code for this person; False when somebody was faster, or it is over."""
        kept = self._kept.get(offer.id)
        if kept is None or kept.offer.status(now) != "waiting":
            return False
        kept.offer = replace(
            kept.offer, accepted_at=now, accepted_by=user_id, accepted_username=username,
            ends_at=min(until, kept.until),
        )  # fmt: skip
        return True

    def end(self, offer: Offer, how: Literal["expired", "revoked"], now: float) -> bool:
        """Mark it as ended; False when it was already, or was accepted since it expired."""
        kept = self._kept.get(offer.id)
        if kept is None or kept.offer.ended_at is not None:
            return False
        if how == "expired" and kept.offer.ends_at != offer.ends_at:
            return False
        kept.offer = replace(kept.offer, ended_at=now, ended_how=how)
        return True

    def forget(self, now: float) -> None:
        """Drop what is long over."""
        for kept in tuple(self._kept.values()):
            if kept.offer.ended_at is not None and kept.offer.ended_at < now - KEEP:
                del self._kept[kept.offer.id]

    def _all(self) -> list[Offer]:
        return [kept.offer for kept in self._kept.values()]
