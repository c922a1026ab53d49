"""Guests let in or not, what their offers are held to, and who sees them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.control.offering import TARGET, Lending
from underpass.control.access import ACTIONS, AgentView, authorise
from underpass.control.guest import LIFETIME, GuestMode
from underpass.control.guests import LOGINS, Guests, guest_end
from underpass.control.identities import Identities
from underpass.control.live import LiveMessage
from underpass.control.offers import GUESTS_OFFERS, TRIES
from underpass.control.rate_limits import RateLimits
from underpass.control.subject import Subject
from underpass.control.visibility import LiveVisibility
from underpass.core.errors import Forbidden, InvalidRequest, NotFound, TooManyRequests
from underpass.store.db.database import Database

HOME = "192.0.2.1"
WANTED = {"protocol": "tcp", "target_port": 3306}


class Inn(Lending):
    """Lending where guests may come."""

    def __init__(self, database: Database, **given: Any) -> None:
        super().__init__(database, **given)
        self.guests = Guests(
            "all", b"k" * 32, self.clock, events=self.events,
            limits=RateLimits(self.kv, self.clock),
        )  # fmt: skip
        self.offers._guests = self.guests

    async def guest(self, ip: str | None = HOME) -> Subject:
        return (await self.guests.admit(ip)).subject


@pytest.fixture
async def inn(database: Database) -> Inn:
    made = Inn(database)
    await made.fill()
    return made


class TestComingIn:
    async def test_a_login_is_a_guests_for_twelve_hours(self, inn: Inn) -> None:
        login = await inn.guests.admit(HOME)
        assert login.expires_in == LIFETIME
        identity = inn.guests.identify(login.token)
        assert identity is not None
        subject = identity.subject
        assert (subject.role, subject.user_id) == ("guest", login.subject.user_id)
        assert inn.guests.still_valid(subject)
        assert guest_end(subject) == identity.expires_at
        inn.clock.advance(LIFETIME)
        assert inn.guests.identify(login.token) is None
        assert not inn.guests.still_valid(subject)

    async def test_switched_off_they_count_for_nothing(self, inn: Inn) -> None:
        login = await inn.guests.admit(HOME)
        inn.guests.mode = "off"
        assert inn.guests.identify(login.token) is None
        assert not inn.guests.still_valid(login.subject)
        with pytest.raises(Forbidden) as refused:
            await inn.guests.admit(HOME)
        assert refused.value.code == "no_guests"

    async def test_few_logins_an_hour_from_one_address(self, inn: Inn) -> None:
        for _ in range(LOGINS):
            await inn.guest()
        with pytest.raises(TooManyRequests):
            await inn.guest()
        await inn.guest("192.0.2.2")
        inn.clock.advance(3600)
        await inn.guest()

    async def test_and_from_all_addresses(self, inn: Inn, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("underpass.control.guests.ALL_LOGINS", 2)
        await inn.guest("192.0.2.2")
        await inn.guest("192.0.2.3")
        with pytest.raises(TooManyRequests):
            await inn.guest("192.0.2.4")

    async def test_links_ask_whether_it_still_counts(self, inn: Inn) -> None:
        identities = Identities(inn.database, inn.clock, inn.bus, idle=3600.0)
        guest = await inn.guest()
        assert not await identities.still_valid(guest)
        identities.guests = inn.guests
        assert await identities.still_valid(guest)
        inn.clock.advance(LIFETIME)
        assert not await identities.still_valid(guest)

    def test_only_guests_logins_end_like_this(self) -> None:
        assert guest_end(Subject("u-1", "bob", "user", credential_id="guest:99")) == 0.0
        assert guest_end(Subject("guest:1", "g", "guest", credential_id="x")) == 0.0


class TestNothingElse:
    @pytest.mark.parametrize("action", ACTIONS)
    def test_every_action_is_refused(self, action: Any) -> None:
        guest = Subject("guest:1", "guest-1", "guest")
        view = AgentView("a-1", "box", frozenset({"guest:1"}))
        for agent in (view, None):
            for owner in ("guest:1", "u-1", None):
                for shared in (True, False):
                    found = authorise(guest, action, agent, owner_id=owner, shared=shared)
                    assert (found.allowed, found.visible, found.rule) == (
                        False, False, "role:guest",
                    )  # fmt: skip

    async def test_no_news(self, inn: Inn) -> None:
        guest = await inn.guest()
        seen = LiveVisibility(inn.database, guest)
        await seen.start()
        for topic in ("mapping", "session", "agent", "event"):
            news = LiveMessage(topic, {"user_id": guest.user_id, "id": inn.box})
            assert await seen.shown(news) is None

    async def test_no_machine(self, inn: Inn) -> None:
        guest = await inn.guest()
        with pytest.raises(NotFound):
            await inn.agents.find(guest, inn.box)
        with pytest.raises(NotFound):
            await inn.agents.find(guest, guest.user_id)


class TestBorrowing:
    async def test_a_persons_code(self, inn: Inn) -> None:
        guest, other = await inn.guest(), await inn.guest()
        offer, code = await inn.offered(access_for="7d")
        accepted = await inn.offers.accept(guest, code)
        assert accepted.accepted_by == guest.user_id
        assert accepted.ends_at == guest_end(guest)  # no longer than the login
        assert await inn.offers.allows(guest, inn.box, TARGET) == f"offer:{offer.id}"
        assert await inn.offers.allows(other, inn.box, TARGET) is None
        assert await inn.offers.allows(guest, inn.box, "tcp:127.0.0.1:22") is None
        assert await inn.offers.allows(guest, inn.box, "exec") is None
        found, total = await inn.offers.page(guest, offset=0, limit=10)
        assert ([one.id for one in found], total) == ([offer.id], 1)
        assert await inn.offers.page(other, offset=0, limit=10) == ([], 0)
        with pytest.raises(NotFound):
            await inn.offers.get(other, offer.id)
        with pytest.raises(NotFound):
            await inn.offers.revoke(other, offer.id)
        await inn.offers.revoke(guest, offer.id)
        assert await inn.offers.allows(guest, inn.box, TARGET) is None

    async def test_what_the_lender_loses_they_lose(self, inn: Inn) -> None:
        guest = await inn.guest()
        _, code = await inn.offered()
        await inn.offers.accept(guest, code)
        inn.gone.add(inn.ada.user_id)
        assert await inn.offers.allows(guest, inn.box, TARGET) is None

    async def test_a_new_login_is_no_new_guess(self, inn: Inn) -> None:
        tried = 0
        with pytest.raises(TooManyRequests):
            for _ in range(TRIES + 1):
                with pytest.raises(NotFound):
                    await inn.offers.accept(await inn.guest(), "7K3M-9QXD-4TNB")
                tried += 1
        assert 0 < tried <= TRIES
        inn.clock.advance(3600)
        _, code = await inn.offered()
        await inn.offers.accept(await inn.guest(), code)


class TestLending:
    async def test_their_own_command_is_the_machine(self, inn: Inn) -> None:
        host = await inn.guest()
        offer, code = await inn.offers.create(host, WANTED)
        assert (offer.agent_id, offer.user_id) == (host.user_id, host.user_id)
        assert (offer.target, offer.machine, offer.machine_key) == (TARGET, host.username, None)
        assert inn.offers.guest_address(host.user_id) == HOME
        for borrower in (inn.bob, await inn.guest("192.0.2.2")):
            made, code = await inn.offers.create(host, WANTED)
            await inn.offers.accept(borrower, code.lower())
            allowed = await inn.offers.allows(borrower, host.user_id, TARGET)
            assert allowed == f"offer:{made.id}"
            assert await inn.offers.allows(borrower, host.user_id, "exec") is None
            assert await inn.offers.allows(inn.eve, host.user_id, TARGET) is None
            with pytest.raises(NotFound):
                await inn.offers.accept(inn.eve, code)
        inn.guests.mode = "accept"
        assert await inn.offers.allows(inn.bob, host.user_id, TARGET) is None

    async def test_admins_see_it_and_end_it(self, inn: Inn) -> None:
        host = await inn.guest()
        theirs, code = await inn.offers.create(host, WANTED)
        mine, _ = await inn.offered()
        await inn.offers.accept(inn.bob, code)
        everything, total = await inn.offers.page(inn.root, offset=0, limit=10)
        assert ([one.id for one in everything], total) == ([theirs.id, mine.id], 2)
        for offset, expected in ((0, theirs.id), (1, mine.id)):
            (one,), total = await inn.offers.page(inn.auditor, offset=offset, limit=1)
            assert (one.id, total) == (expected, 2)
        assert (await inn.offers.page(inn.eve, offset=0, limit=10))[1] == 0
        with pytest.raises(NotFound):
            await inn.offers.revoke(inn.eve, theirs.id)
        ended = await inn.offers.revoke(inn.root, theirs.id)
        assert ended.status(inn.clock.now()) == "revoked"
        assert await inn.offers.allows(inn.bob, host.user_id, TARGET) is None
        assert theirs.id in inn.heard
        types = [one["type"] for one in await inn.story()]
        assert types == ["offer.accepted", "offer.created", "offer.created", "offer.revoked"]

    async def test_it_runs_out(self, inn: Inn) -> None:
        host = await inn.guest()
        offer, code = await inn.offers.create(host, WANTED | {"expires_in": 60})
        inn.clock.advance(60)
        assert await inn.offers.sweep() == 1
        with pytest.raises(NotFound):
            await inn.offers.accept(inn.bob, code)
        assert (await inn.offers.get(host, offer.id)).status(inn.clock.now()) == "expired"
        inn.clock.advance(2 * 86400)
        await inn.offers.sweep()
        with pytest.raises(NotFound):
            await inn.offers.get(inn.root, offer.id)

    async def test_no_longer_than_their_login(self, inn: Inn) -> None:
        host = await inn.guest()
        inn.clock.advance(LIFETIME - 30)
        offer, code = await inn.offers.create(host, WANTED | {"access_for": "8h"})
        assert offer.ends_at == guest_end(host)
        accepted = await inn.offers.accept(inn.bob, code)
        assert accepted.ends_at == guest_end(host)

    @pytest.mark.parametrize("mode", ["off", "accept"])
    async def test_where_they_may_not(self, inn: Inn, mode: GuestMode) -> None:
        host = await inn.guest()
        inn.guests.mode = mode
        with pytest.raises(Forbidden) as refused:
            await inn.offers.create(host, WANTED)
        assert refused.value.code == "guests_may_not_offer"
        (event,) = await inn.story()
        assert (event["type"], event["outcome"]) == ("offer.refused", "denied")

    async def test_nobodys_machine_and_no_nonsense(self, inn: Inn) -> None:
        host = await inn.guest()
        with pytest.raises(Forbidden):
            await inn.offers.create(host, WANTED | {"target_client_id": inn.box})
        with pytest.raises(InvalidRequest):
            await inn.offers.create(host, {"protocol": "udp", "target_port": 53})
        inn.offers._guests = None
        with pytest.raises(Forbidden):
            await inn.offers.create(host, WANTED)
        assert not await inn.offers._still_may(
            (await inn.offered())[0].__class__(
                "x", host.user_id, "g", host.user_id, "g", TARGET, 1.0, 0.0, 1.0
            )
        )

    async def test_how_many_an_hour(self, inn: Inn) -> None:
        made = 0
        with pytest.raises(TooManyRequests):
            for _ in range(GUESTS_OFFERS + 1):
                host = await inn.guest(f"2001:db8::{made:x}")  # one customer's, all of them
                offer, _ = await inn.offers.create(host, WANTED)
                await inn.offers.revoke(host, offer.id)
                made += 1
                inn.clock.advance(1)
        assert made <= GUESTS_OFFERS
