"""Offers on every database: a code works once, for one, until then, and no farther."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.control.offering import TARGET, Lending
from underpass.control.live import LiveBus
from underpass.control.offer import Offer
from underpass.control.offer_store import MAX_OPEN
from underpass.control.offers import KEEP, TRIES
from underpass.control.subject import Subject
from underpass.core.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooManyRequests,
)
from underpass.core.ids import hash_secret, new_id
from underpass.store.db.database import Database
from underpass.store.db.models import Agent
from underpass.store.db.offer_models import OfferRow


@pytest.fixture
async def lending(database: Database) -> Lending:
    return await Lending(database).fill()


async def test_a_code_is_exchanged_for_one_target(lending: Lending) -> None:
    offers, bob = lending.offers, lending.bob
    offer, code = await lending.offered(expires_in=60, access_for="1h")
    assert (offer.target, offer.machine, offer.username) == (TARGET, "db-1", "ada")
    assert await offers.allows(bob, lending.box, TARGET) is None
    lending.clock.advance(59)
    accepted = await offers.accept(bob, code.lower().replace("-", " "))
    assert accepted.status(lending.clock.now()) == "accepted"
    assert accepted.ends_at == lending.clock.now() + 3600
    assert await offers.allows(bob, lending.box, TARGET) == f"offer:{offer.id}"
    for subject, agent_id, target in (
        (lending.eve, lending.box, TARGET),
        (lending.ada, lending.box, TARGET),
        (bob, lending.box, "tcp:127.0.0.1:3307"),
        (bob, lending.box, "exec"),
        (bob, new_id(), TARGET),
        (bob, "db-1\0", TARGET),
        (bob, lending.box, TARGET + "\0"),
    ):
        assert await offers.allows(subject, agent_id, target) is None
    lending.clock.advance(3600)
    assert await offers.allows(bob, lending.box, TARGET) is None
    assert lending.heard == [offer.id]


async def test_of_many_at_once_one_gets_it(lending: Lending) -> None:
    for _ in range(3):
        offer, code = await lending.offered()
        people = (lending.bob, lending.eve)
        results = await asyncio.gather(
            *(lending.offers.accept(who, code) for who in people), return_exceptions=True
        )
        won = [one for one in results if isinstance(one, Offer)]
        lost = [one for one in results if isinstance(one, Exception)]
        assert len(won) == 1, results
        assert [getattr(error, "code", error) for error in lost] == ["bad_code"]
        let_in = [await lending.offers.allows(who, lending.box, TARGET) for who in people]
        assert let_in.count(f"offer:{offer.id}") == 1
        await lending.offers.revoke(lending.ada, offer.id)


async def test_the_code_is_nowhere(lending: Lending) -> None:
    offer, code = await lending.offered()
    await lending.offers.accept(lending.bob, code)
    with pytest.raises(NotFound):
        await lending.offers.accept(lending.eve, code)
    await lending.offers.revoke(lending.ada, offer.id)
    async with lending.database.reading() as db:
        row = (await db.scalars(select(OfferRow))).one()
    assert row.code_hash == hash_secret(code)
    told = repr((vars(row), offer, await lending.story()))
    assert code not in told
    assert code.replace("-", "") not in told


async def test_every_dead_code_gets_one_answer(lending: Lending) -> None:
    _, used = await lending.offered()
    await lending.offers.accept(lending.eve, used)
    revoked_offer, revoked = await lending.offered()
    await lending.offers.revoke(lending.ada, revoked_offer.id)
    _, expired = await lending.offered(expires_in=1)
    lending.clock.advance(1)
    answers = set[str]()
    for code in (used, revoked, expired, "7K3M-9QXD-4TNB", "nonsense"):
        with pytest.raises(NotFound) as refused:
            await lending.offers.accept(lending.bob, code)
        answers.add(f"{refused.value.code} {refused.value}")
        lending.clock.advance(300)
    assert len(answers) == 1
    refusals = [one for one in await lending.story() if one["type"] == "offer.refused"]
    assert [one["outcome"] for one in refusals] == ["denied"] * 5
    assert {one["actor"] for one in refusals} == {"bob"}


async def test_guessing_gets_slow_by_address_and_by_person(lending: Lending) -> None:
    home = Subject(lending.bob.user_id, "bob", "user", ip="192.0.2.7")
    for _ in range(5):
        with pytest.raises(NotFound):
            await lending.offers.accept(home, "7K3M-9QXD-4TNB")
    _, code = await lending.offered()
    with pytest.raises(TooManyRequests) as refused:
        await lending.offers.accept(home, code)
    assert refused.value.code == "slow_down"
    eve = Subject(lending.eve.user_id, "eve", "user", ip="192.0.2.7")
    with pytest.raises(TooManyRequests):
        await lending.offers.accept(eve, code)
    for number in range(TRIES - 6):
        moving = Subject(lending.bob.user_id, "bob", "user", ip=f"198.51.100.{number}")
        with pytest.raises(NotFound):
            await lending.offers.accept(moving, "7K3M-9QXD-4TNB")
    with pytest.raises(TooManyRequests) as refused:
        await lending.offers.accept(Subject(home.user_id, "bob", "user", ip="203.0.113.1"), code)
    assert refused.value.code == "too_many_requests"
    elsewhere = Subject(lending.eve.user_id, "eve", "user", ip="203.0.113.1")
    assert (await lending.offers.accept(elsewhere, code)).accepted_by == lending.eve.user_id


async def test_it_may_be_shorter_than_offered_and_never_longer(lending: Lending) -> None:
    for wanted, seconds in ((None, 3600), ("30m", 1800), ("9h", 3600), (60, 60)):
        _, code = await lending.offered(access_for=3600)
        accepted = await lending.offers.accept(lending.bob, code, wanted)
        assert accepted.ends_at == lending.clock.now() + seconds
    _, code = await lending.offered()
    for bad in ("soon", 0, "31d"):
        with pytest.raises(InvalidRequest):
            await lending.offers.accept(lending.bob, code, bad)
    assert await lending.offers.accept(lending.bob, code), "a wrong wish costs no code"


async def test_nobody_lends_what_is_not_theirs(lending: Lending) -> None:
    wanted = {"target_client_id": lending.box, "target_port": 3306}
    for who in (lending.bob, lending.eve):
        with pytest.raises(NotFound):
            await lending.offers.create(who, wanted)
    with pytest.raises(Forbidden):
        await lending.offers.create(lending.auditor, wanted)
    await lending.offers.create(lending.root, wanted)
    assert [one["type"] for one in await lending.story()] == ["offer.created", "offer.refused"]
    borrowed = await lending.lent()
    with pytest.raises(NotFound):
        await lending.offers.create(lending.bob, {**wanted, "target_port": 3306})
    assert borrowed.accepted_by == lending.bob.user_id


async def test_what_the_lender_loses_the_borrower_loses(lending: Lending) -> None:
    await lending.lent()
    _, code = await lending.offered()

    async def let_in() -> str | None:
        return await lending.offers.allows(lending.bob, lending.box, TARGET)

    assert await let_in()
    lending.gone.add(lending.ada.user_id)
    assert await let_in() is None
    with pytest.raises(NotFound):
        await lending.offers.accept(lending.bob, code)
    lending.gone.clear()
    assert await let_in()
    await lending.agents.update(lending.root, lending.box, {"allowed_users": []})
    assert await let_in() is None
    await lending.agents.update(lending.root, lending.box, {"allowed_users": [lending.ada.user_id]})
    assert await let_in()
    await lending.agents.delete(lending.root, lending.box)
    assert await let_in() is None


async def test_maintenance_takes_no_new_shells_but_ports(lending: Lending) -> None:
    for port in (22, 3306):
        await lending.lent(target_port=port)
    async with lending.database.session() as db:
        await db.execute(update(Agent).values(status="maintenance"))
    shell = (lending.bob, lending.box, "tcp:127.0.0.1:22")
    with pytest.raises(Conflict) as refused:
        await lending.offers.allows(*shell, starting=True)
    assert refused.value.code == "agent_maintenance"
    assert await lending.offers.allows(*shell), "what is open stays"
    assert await lending.offers.allows(lending.bob, lending.box, TARGET, starting=True)


async def test_who_sees_and_ends_which(lending: Lending) -> None:
    offers = lending.offers
    first, second = await lending.lent(), await lending.lent(target_port=80)
    third, _ = await lending.offered()
    waiting_for_bob, total = await offers.page(lending.bob, offset=0, limit=10)
    assert ({one.id for one in waiting_for_bob}, total) == ({first.id, second.id}, 2)
    assert (await offers.page(lending.eve, offset=0, limit=10))[1] == 0
    for who in (lending.ada, lending.root, lending.auditor):
        assert (await offers.page(who, offset=0, limit=2))[1] == 3
        assert (await offers.get(who, third.id)).id == third.id
    for who, offer_id in ((lending.bob, third.id), (lending.eve, first.id), (lending.ada, "x")):
        with pytest.raises(NotFound):
            await offers.get(who, offer_id)
        with pytest.raises(NotFound):
            await offers.revoke(who, offer_id)
    with pytest.raises(Forbidden):
        await offers.revoke(lending.auditor, first.id)
    lending.heard.clear()
    assert (await offers.revoke(lending.ada, first.id)).ended_how == "revoked"
    assert await offers.allows(lending.bob, lending.box, TARGET) is None
    await offers.revoke(lending.bob, second.id)
    await offers.revoke(lending.root, third.id)
    assert (await offers.revoke(lending.ada, first.id)).ended_how == "revoked"
    assert lending.heard == [first.id, second.id, third.id]
    revoked = [one for one in await lending.story() if one["type"] == "offer.revoked"]
    assert sorted(str(one["actor"]) for one in revoked) == ["ada", "bob", "root"]
    assert (await offers.page(lending.ada, offset=0, limit=10, running=True)) == ([], 0)
    assert (await offers.page(lending.ada, offset=0, limit=10))[1] == 3


async def test_what_runs_out_is_told_once_and_forgotten_later(lending: Lending) -> None:
    offers = lending.offers
    waiting, _ = await lending.offered(expires_in=60)
    lent = await lending.lent(access_for=120)
    assert await offers.sweep() == 0
    lending.clock.advance(60)
    assert await offers.sweep() == 1
    lending.clock.advance(60)
    assert await offers.sweep() == 1
    assert await offers.sweep() == 0
    expired = [one for one in await lending.story() if one["type"] == "offer.expired"]
    assert {one["object_id"] for one in expired} == {waiting.id, lent.id}
    assert {one["details"]["accepted_by"] for one in expired} == {None, "bob"}
    assert lending.heard == [lent.id, waiting.id, lent.id]
    lending.clock.advance(KEEP + 1)
    await offers.sweep()
    with pytest.raises(NotFound):
        await offers.get(lending.ada, lent.id)


async def test_a_sweep_that_comes_late_ends_no_offer_that_was_accepted(lending: Lending) -> None:
    offer, code = await lending.offered(expires_in=60)
    lending.clock.advance(59)
    await lending.offers.accept(lending.bob, code)
    assert not await lending.offers._end(offer, "expired", None)
    assert await lending.offers.allows(lending.bob, lending.box, TARGET)


async def test_the_cap_holds_for_many_at_once(
    lending: Lending, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_OPEN == 100
    monkeypatch.setattr("underpass.control.offer_store.MAX_OPEN", 3)
    results = await asyncio.gather(*(lending.offered() for _ in range(6)), return_exceptions=True)
    refused = [one for one in results if isinstance(one, TooManyRequests)]
    assert [error.code for error in refused] == ["too_many_offers"] * 3
    made = next(one[0] for one in results if isinstance(one, tuple))
    await lending.offers.revoke(lending.ada, made.id)
    assert await lending.offered()


async def test_the_watch_goes_on_after_a_failure_and_ends_with_the_bus(
    lending: Lending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underpass.control.offers.SWEEP_EVERY", 0.01)
    calls: list[Any] = []

    async def sweep() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("the database is away")
        if len(calls) == 3:
            lending.bus.close()
        return 0

    monkeypatch.setattr(lending.offers, "sweep", sweep)
    assert isinstance(lending.bus, LiveBus)
    async with asyncio.timeout(5):
        await lending.offers.watch()
    assert len(calls) == 3
