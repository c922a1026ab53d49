"""What tests of offers share: a lender with a machine, a borrower without, and who looks on."""

from __future__ import annotations

from typing import Any

from tests.control.machines import Machines
from underpass.control.access import Action, Decision, authorise
from underpass.control.events import EventFilter
from underpass.control.offer import Offer
from underpass.control.offers import Offers
from underpass.control.rate_limits import RateLimits
from underpass.control.subject import Subject
from underpass.core.ids import new_id
from underpass.gateway.client_streams import needed_action
from underpass.store.db.database import Database
from underpass.store.db.models import Agent

TARGET = "tcp:127.0.0.1:3306"


class Lending(Machines):
    """Ada has a machine; Bob and Eve have none. Call :meth:`fill` first."""

    ada: Subject
    bob: Subject
    eve: Subject
    root: Subject
    auditor: Subject
    box: str

    def __init__(self, database: Database, **given: Any) -> None:
        super().__init__(database, **given)
        self.gone: set[str] = set()
        self.heard: list[str] = []
        self.offers = Offers(
            database,
            self.clock,
            events=self.events,
            bus=self.bus,
            agents=self.agents,
            rights=self,
            needed_action=needed_action,
            limits=RateLimits(self.kv, self.clock),
            kv=self.kv,
        )
        self.bus.listen(
            lambda message: self.heard.append(message.data["id"])
            if message.topic == "offer" else None
        )  # fmt: skip

    async def fill(self) -> Lending:
        self.ada, self.bob, self.eve = [await self.user(name) for name in ("ada", "bob", "eve")]
        self.root = await self.user("root", "admin")
        self.auditor = await self.user("iva", "auditor")
        self.box = await self.machine(self.ada)
        return self

    async def machine(self, *allowed: Subject) -> str:
        row = Agent(
            id=new_id(), name="db-1", client_public_key="-", key_fingerprint="sha256:00",
            hostname="db-1", labels={}, allowed_users=[one.user_id for one in allowed],
            status="online", created_at=0.0, updated_at=0.0, is_deleted=False, static_info={},
            dynamic_info={}, agent_secret_key="-",
        )  # fmt: skip
        async with self.database.session() as db:
            db.add(row)
        return row.id

    async def decide(
        self, user_id: str, agent_id: str, action: Action
    ) -> tuple[Subject | None, Decision]:
        """As ``OwnerRights``; who is in ``gone`` was disabled."""
        people = (self.ada, self.bob, self.eve, self.root, self.auditor)
        subject = next(one for one in people if one.user_id == user_id)
        if user_id in self.gone:
            return None, Decision(False, "no-such-user", "")
        return subject, authorise(subject, action, await self.agents.view(agent_id))

    async def offered(self, **changes: Any) -> tuple[Offer, str]:
        wanted = {"target_client_id": self.box, "target_port": 3306, **changes}
        return await self.offers.create(self.ada, wanted)

    async def lent(self, **changes: Any) -> Offer:
        _, code = await self.offered(**changes)
        return await self.offers.accept(self.bob, code)

    async def story(self) -> list[dict[str, Any]]:
        """The events of offers, sorted by type."""
        found, _ = await self.events.page(EventFilter(type="offer"), page=1, page_size=500)
        return sorted(found, key=lambda event: str(event["type"]))
