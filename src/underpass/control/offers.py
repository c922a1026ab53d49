"""Offers: one-time codes made, exchanged for access to one target, and ended in time (spec 4)."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as Fields
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from underpass.control.access import Action, Decision
from underpass.control.codes import CodeMaker, canonical_code, new_code
from underpass.control.events import Events
from underpass.control.guessing import Guessing
from underpass.control.guest import is_guest
from underpass.control.guest_offers import GuestOffers
from underpass.control.guests import Guests, guest_end
from underpass.control.live import LiveBus
from underpass.control.offer import (
    MAX_ACCESS_LIFETIME,
    Offer,
    checked_lifetime,
    wanted_offer,
)
from underpass.control.offer_shelves import OfferShelves
from underpass.control.offer_store import OfferStore, no_such_offer
from underpass.control.rate_limits import RateLimits, address_key
from underpass.control.subject import Subject
from underpass.core.clock import Clock
from underpass.core.errors import Conflict, Forbidden, NotFound, UnderpassError
from underpass.core.ids import IdMaker, new_id
from underpass.store.db.models import Agent
from underpass.store.kv import KeyValueStore

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["Offers"]

_log = structlog.get_logger(__name__)

SWEEP_EVERY: Final = 5.0
"""Seconds between looks for what has expired; nothing expired is let in meanwhile."""
KEEP: Final = 30 * 24 * 3600.0
"""Seconds an offer is shown after its end."""
NOBODYS: Final = "00000000-0000-0000-0000-000000000000"
"""In the place of a machine's id where a guest's offer is checked."""
TRIES: Final = 10
"""Codes a person may try in a minute, from wherever; addresses have their own pauses."""
GUESTS_OFFERS: Final = 60
"""Offers that guests at one address may make in an hour."""
RULE: Final = "offer"


class Rights(Protocol):
    """What an offerer may do now (``gateway.entrypoints.permission.OwnerRights``)."""

    async def decide(
        self, user_id: str, agent_id: str, action: Action
    ) -> tuple[Subject | None, Decision]: ...


class AgentsLike(Protocol):
    """Where machines are found (``control.agents.Agents``)."""

    async def require(self, subject: Subject, agent_id: str, action: Action = "see") -> Agent: ...


class Offers:
    """Everything about offers.

    Nobody gets more through an offer than its maker has: their own permission on the machine is
    asked for when the offer is made, when it is accepted and each time it is used.

    Args:
        agents: the machines.
        rights: what people may do on them, from the database.
        needed_action: the permission that opening a target needs.
        limits, kv: count the tries of codes.
        guests: says what guests may; without it there are none.
        make_code: makes the codes.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        events: Events,
        bus: LiveBus,
        agents: AgentsLike,
        rights: Rights,
        needed_action: Callable[[str], Action],
        limits: RateLimits,
        kv: KeyValueStore,
        guests: Guests | None = None,
        make_id: IdMaker = new_id,
        make_code: CodeMaker = new_code,
    ) -> None:
        self._database = database
        self._rows = OfferStore(database)
        self._guests_offers = GuestOffers()
        self._store = OfferShelves(self._rows, self._guests_offers)
        self._guests = guests
        self._clock = clock
        self._events = events
        self._bus = bus
        self._agents = agents
        self._rights = rights
        self._needed_action = needed_action
        self._limits = limits
        self._guessing = Guessing(kv, clock)
        self._make_id = make_id
        self._make_code = make_code

    # -- making and using ---------------------------------------------------------------------

    async def create(self, subject: Subject, fields: Fields[str, Any]) -> tuple[Offer, str]:
        """Offer a target; the answer is the only place the code ever shows.

        Raises:
            InvalidRequest: a field is wrong; the message names it.
            NotFound, Forbidden: *subject* does not see the machine, or may not open the target.
            TooManyRequests: they have too many offers (``too_many_offers``).
        """
        if subject.role == "guest":
            return await self._create_for_guest(subject, fields)
        wanted = wanted_offer(fields)
        needed = self._needed_action(wanted.target)
        try:
            agent = await self._agents.require(subject, wanted.agent_id, needed)
        except Forbidden as error:
            await self._events.record(
                "offer.refused", actor=subject, agent_id=wanted.agent_id, outcome="denied",
                rule=str(error.details.get("rule") or error.code),
                details={"target": wanted.target},
            )  # fmt: skip
            raise
        now = self._clock.now()
        offer = Offer(
            id=self._make_id(),
            user_id=subject.user_id,
            username=subject.username,
            agent_id=wanted.agent_id,
            machine=agent.name,
            machine_key=agent.key_fingerprint,
            maintenance=agent.status == "maintenance",
            target=wanted.target,
            access_seconds=wanted.access_for,
            created_at=now,
            ends_at=now + wanted.expires_in,
        )
        code = self._make_code()
        async with self._database.session() as db:
            await self._rows.add(db, offer, code)
            await self._events.record(
                "offer.created", actor=subject, agent_id=offer.agent_id, object_id=offer.id, db=db,
                details={"target": offer.target, "expires_in": wanted.expires_in,
                         "access_for": wanted.access_for},
            )  # fmt: skip
        return offer, code

    async def _create_for_guest(
        self, subject: Subject, fields: Fields[str, Any]
    ) -> tuple[Offer, str]:
        """Offer what a guest's own link reaches; kept in memory, it ends with the gateway."""
        if self._guests is None:
            raise Forbidden("There are no guests here.", code="no_guests")
        address = address_key(subject.ip)
        try:
            self._guests.require_offering()
            if "target_client_id" in fields:
                raise Forbidden("Guests have no machines.", code="guests_may_not")
        except Forbidden as error:
            await self._events.record(
                "offer.refused", actor=subject, outcome="denied", rule=error.code
            )
            raise
        wanted = wanted_offer({**fields, "target_client_id": NOBODYS})
        await self._limits.hit("guest-offer", address, GUESTS_OFFERS, 3600.0)
        now, until = self._clock.now(), guest_end(subject)
        offer = Offer(
            id=self._make_id(),
            user_id=subject.user_id,
            username=subject.username,
            agent_id=subject.user_id,
            machine=subject.username,
            target=wanted.target,
            access_seconds=min(wanted.access_for, until - now),
            created_at=now,
            ends_at=min(now + wanted.expires_in, until),
        )
        code = self._make_code()
        self._guests_offers.add(offer, code, address=address, until=until)
        await self._events.record(
            "offer.created", actor=subject, object_id=offer.id,
            details={"target": offer.target, "expires_in": wanted.expires_in,
                     "access_for": wanted.access_for, "guest": True},
        )  # fmt: skip
        return offer, code

    def guest_address(self, guest_id: str) -> str | None:
        """What counts as the address of a guest who offers."""
        return self._guests_offers.address_of(guest_id)

    async def accept(self, subject: Subject, typed: str, wanted_for: object = None) -> Offer:
        """Exchange a code for access; of two at once, one gets it.

        Args:
            typed: the code as a person types it.
            wanted_for: how long (seconds, or ``"2h"``); never longer than was offered.

        Raises:
            NotFound: not a code that works, for whatever reason (``bad_code``).
            TooManyRequests: too many tries.
            InvalidRequest: *wanted_for* is no time.
        """
        most = MAX_ACCESS_LIFETIME
        longest = checked_lifetime("expires_in", wanted_for, most, most)
        await self._limits.hit("offer-accept", subject.user_id, TRIES, 60.0)
        if subject.role == "guest":  # a new login is no new try
            await self._limits.hit("offer-accept-guests", address_key(subject.ip), TRIES, 60.0)
        await self._guessing.check("offer", subject.ip)
        code = canonical_code(typed)
        offer = None if code is None else await self._store.by_code(code)
        if offer is None or not await self._still_may(offer):
            raise await self._refused(subject, offer)
        now, seconds = self._clock.now(), min(offer.access_seconds, longest)
        if subject.role == "guest":
            seconds = min(seconds, guest_end(subject) - now)
        async with self._database.session() as db:
            taken = await self._store.take(
                db, offer, user_id=subject.user_id, username=subject.username, now=now,
                until=now + seconds,
            )  # fmt: skip
            if taken:
                await self._events.record(
                    "offer.accepted", actor=subject, agent_id=offer.agent_id, object_id=offer.id,
                    rule=RULE, db=db,
                    details={"target": offer.target, "offered_by": offer.username, "for": seconds},
                )  # fmt: skip
        if not taken:
            raise await self._refused(subject, offer)
        await self._guessing.forgive("offer", subject.ip)
        self._announce(offer)
        return await self._store.get(offer.id)

    async def allows(
        self, subject: Subject, agent_id: str, target: str, *, starting: bool = False
    ) -> str | None:
        """The rule by which an offer lets *subject* open *target* now, or ``None``.

        Args:
            starting: it is about to be opened, not open already.

        Raises:
            Conflict: it is a way to a shell, and the machine under maintenance takes no new ones
                (``agent_maintenance``).
        """
        now = self._clock.now()
        for offer in await self._store.accepted(subject.user_id, agent_id):
            if offer.lets(subject.user_id, agent_id, target, now) and await self._still_may(offer):
                if starting and offer.maintenance and self._needed_action(target) == "shell":
                    raise Conflict("The machine is under maintenance.", code="agent_maintenance")
                return f"{RULE}:{offer.id}"
        return None

    # -- reading ------------------------------------------------------------------------------

    async def get(self, subject: Subject, offer_id: str) -> Offer:
        """An offer that *subject* made or accepted; admins and auditors see all.

        Raises:
            NotFound: it does not exist, or not for them.
        """
        offer = await self._store.get(offer_id)
        if not (subject.sees_all or offer.concerns(subject.user_id)):
            raise no_such_offer()
        return offer

    async def page(
        self, subject: Subject, *, offset: int, limit: int, running: bool = False
    ) -> tuple[list[Offer], int]:
        """Some of the offers *subject* may see, newest first, and how many there are.

        Args:
            running: only those that are neither over nor revoked.
        """
        return await self._store.page(
            of=None if subject.sees_all else subject.user_id,
            running_at=self._clock.now() if running else None,
            offset=offset,
            limit=limit,
        )

    # -- ending -------------------------------------------------------------------------------

    async def revoke(self, subject: Subject, offer_id: str) -> Offer:
        """End an offer: its code is void, and what is open through it is cut. Twice is fine.

        Its maker may, whoever accepted it (they give it back), and admins.

        Raises:
            NotFound: as :meth:`get`.
            Forbidden: an auditor's look is no right to change.
        """
        offer = await self.get(subject, offer_id)
        if not (subject.is_admin or offer.concerns(subject.user_id)):
            raise Forbidden("Only who made or accepted an offer may end it.")
        await self._end(offer, "revoked", subject)
        return await self._store.get(offer_id)

    async def sweep(self) -> int:
        """Mark what has expired, and forget what is long over; how many expired."""
        now = self._clock.now()
        ended = [await self._end(offer, "expired", None) for offer in await self._store.due(now)]
        await self._store.forget(now, KEEP)
        return sum(ended)

    async def watch(self) -> None:
        """Sweep every few seconds until the bus closes."""
        with self._bus.subscribe(lambda _message: False) as news:
            while not news.closed:
                try:
                    await self.sweep()
                except (UnderpassError, SQLAlchemyError, OSError) as error:
                    _log.error("offer_sweep_failed", error=str(error)[:300])
                await news.next(SWEEP_EVERY)

    async def _end(
        self, offer: Offer, how: Literal["expired", "revoked"], by: Subject | None
    ) -> bool:
        async with self._database.session() as db:
            ended = await self._store.end(db, offer, how, self._clock.now())
            if ended:
                await self._events.record(
                    f"offer.{how}", actor=by, agent_id=offer.agent_id, object_id=offer.id, db=db,
                    details={"target": offer.target, "accepted_by": offer.accepted_username},
                )  # fmt: skip
        if ended:
            self._announce(offer)
        return ended

    # -- inside -------------------------------------------------------------------------------

    async def _still_may(self, offer: Offer) -> bool:
        """Whether who offers may still open the target themselves."""
        if is_guest(offer.user_id):  # their own machine; the gateway may have changed its mind
            return self._guests is not None and self._guests.mode == "all"
        action = self._needed_action(offer.target)
        _, decision = await self._rights.decide(offer.user_id, offer.agent_id, action)
        return decision.allowed

    async def _refused(self, subject: Subject, offer: Offer | None) -> NotFound:
        """Count a wrong try; one answer for unknown, used, expired and revoked."""
        await self._guessing.failed("offer", subject.ip)
        await self._events.record(
            "offer.refused", actor=subject, outcome="denied", rule="offer_code",
            object_id=None if offer is None else offer.id,
            agent_id=None if offer is None else offer.agent_id,
        )  # fmt: skip
        return NotFound(
            "This code does not work: it is wrong, was used, has expired or was revoked.",
            code="bad_code",
            hint="Ask for a new one; it is made with: underpass offer",
        )

    def _announce(self, offer: Offer) -> None:
        self._bus.publish("offer", {"id": offer.id, "agent_id": offer.agent_id})
