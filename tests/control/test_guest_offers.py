"""Guests' offers in memory: one for each code, few at a time, gone in the end."""

from __future__ import annotations

from typing import Any

import pytest

from underpass.control.guest_offers import KEEP, MAX_KEPT, GuestOffers
from underpass.control.guest_quota import PER_ADDRESS, PER_GUEST
from underpass.control.offer import Offer
from underpass.core.errors import TooManyRequests
from underpass.core.ids import new_id

GUEST = "guest:" + "a" * 30
CODE = "7K3M-9QXD-4TNB"


def offer(guest: str = GUEST, **more: Any) -> Offer:
    fields = {
        "id": new_id(), "user_id": guest, "username": "guest-a", "agent_id": guest,
        "machine": "guest-a", "target": "tcp:127.0.0.1:80", "access_seconds": 100.0,
        "created_at": 0.0, "ends_at": 60.0,
    } | more  # fmt: skip
    return Offer(**fields)


def kept(offers: GuestOffers, one: Offer, code: str = CODE, address: str = "192.0.2.1") -> Offer:
    offers.add(one, code, address=address, until=50_000.0)
    return one


def take(offers: GuestOffers, one: Offer, now: float = 1.0, until: float = 101.0) -> bool:
    return offers.take(one, user_id="u-1", username="bob", now=now, until=until)


def test_a_code_is_found_and_burned_once() -> None:
    offers = GuestOffers()
    one = kept(offers, offer())
    assert offers.by_code(CODE) == offers.get(one.id) == one
    assert offers.by_code("0000-0000-0000") is None
    assert offers.get(new_id()) is None
    assert take(offers, one)
    assert not take(offers, one)
    (mine,) = offers.accepted("u-1", GUEST)
    assert (mine.accepted_by, mine.accepted_username, mine.ends_at) == ("u-1", "bob", 101.0)
    assert offers.accepted("u-2", GUEST) == []
    assert offers.accepted("u-1", "guest:b") == []


def test_what_is_over_is_not_taken() -> None:
    offers = GuestOffers()
    one = kept(offers, offer())
    assert not take(offers, one, now=60.0)
    assert not take(offers, offer())


def test_access_ends_with_the_hosts_login() -> None:
    offers = GuestOffers()
    one = kept(offers, offer())
    take(offers, one, until=99_000.0)
    found = offers.get(one.id)
    assert found is not None
    assert found.ends_at == 50_000.0


def test_it_ends_once() -> None:
    offers = GuestOffers()
    one = kept(offers, offer())
    assert offers.due(59.0) == []
    (due,) = offers.due(60.0)
    take(offers, one)
    assert not offers.end(due, "expired", 60.0)  # it was accepted since
    assert offers.end(one, "revoked", 61.0)
    assert not offers.end(one, "revoked", 62.0)
    assert not offers.end(offer(), "revoked", 62.0)
    assert offers.due(1e9) == []
    assert offers.accepted("u-1", GUEST) == []
    offers.forget(61.0 + KEEP)
    assert len(offers) == 1
    offers.forget(61.1 + KEEP)
    assert len(offers) == 0


def test_what_nobody_accepted_expires() -> None:
    offers = GuestOffers()
    one = kept(offers, offer())
    assert offers.end(one, "expired", 60.0)
    found = offers.get(one.id)
    assert found is not None
    assert found.status(60.0) == "expired"


def test_lists() -> None:
    offers = GuestOffers()
    other = "guest:" + "b" * 30
    first = kept(offers, offer())
    second = kept(offers, offer(other, created_at=5.0))
    assert offers.listed(of=None, running_at=None) == [second, first]
    assert offers.listed(of=GUEST, running_at=None) == [first]
    assert offers.listed(of=None, running_at=60.0) == []
    offers.end(first, "revoked", 6.0)
    assert offers.listed(of=None, running_at=6.0) == [second]


def test_few_at_a_time_by_guest_and_by_address() -> None:
    offers = GuestOffers()
    for _ in range(PER_GUEST.offers):
        last = kept(offers, offer())
    with pytest.raises(TooManyRequests) as refused:
        kept(offers, offer())
    assert refused.value.code == "too_many_offers"
    for number in range(PER_ADDRESS.offers - PER_GUEST.offers):
        kept(offers, offer(f"guest:{number}"))
    with pytest.raises(TooManyRequests):
        kept(offers, offer("guest:more"))
    kept(offers, offer("guest:elsewhere"), address="192.0.2.2")
    offers.end(last, "revoked", 1.0)
    kept(offers, offer())
    kept(offers, offer(created_at=60.0, ends_at=120.0))  # the others have run out by then


def test_where_the_host_came_from() -> None:
    offers = GuestOffers()
    assert offers.address_of(GUEST) is None
    one = kept(offers, offer(), address="192.0.2.7")
    assert offers.address_of(GUEST) == "192.0.2.7"
    offers.end(one, "revoked", 1.0)
    assert offers.address_of(GUEST) is None


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("underpass.control.guest_offers.MAX_KEPT", 3)
    assert MAX_KEPT > 3
    offers = GuestOffers()
    over = kept(offers, offer("guest:1"))
    offers.end(over, "revoked", 0.0)
    for number in range(2, 4):
        kept(offers, offer(f"guest:{number}"))
    kept(offers, offer("guest:4"))
    assert offers.get(over.id) is None
    with pytest.raises(TooManyRequests):
        kept(offers, offer("guest:5"))
