"""What guests may use, counted by login and by address."""

from __future__ import annotations

import pytest

from underpass.control.guest_quota import MINUTE, WINDOW, Allowed, GuestQuota
from underpass.core.clock import ManualClock
from underpass.core.errors import TooManyRequests, Unavailable

GUEST = Allowed(offers=1, links=1, connections=2, openings=4, traffic=100, bandwidth=10.0)
ADDRESS = Allowed(offers=2, links=2, connections=3, openings=6, traffic=150, bandwidth=20.0)
HOME = "192.0.2.1"


def quota(clock: ManualClock, most: int = 100) -> GuestQuota:
    return GuestQuota(clock, GUEST, ADDRESS, most)


def refused(made: GuestQuota, *guests: tuple[str, str]) -> str:
    with pytest.raises((TooManyRequests, Unavailable)) as error:
        made.enter(guests)
    return error.value.code


def test_nobody_is_counted_for_people() -> None:
    made = quota(ManualClock())
    assert made.enter([]) == []
    assert len(made) == 0


def test_connections_by_guest_and_by_address() -> None:
    made = quota(ManualClock())
    first = made.enter([("g-1", HOME)])
    made.enter([("g-1", HOME)])
    assert refused(made, ("g-1", HOME)) == "guest_connections"
    assert refused(made, ("g-1", "192.0.2.2")) == "guest_connections"  # moved house
    made.enter([("g-2", HOME)])
    assert refused(made, ("g-3", HOME)) == "guest_connections"
    made.enter([("g-3", "192.0.2.2")])
    for account in first:
        account.leave()
    made.enter([("g-1", HOME)])


def test_both_ends_count_and_one_address_once() -> None:
    made = quota(ManualClock())
    accounts = made.enter([("g-1", HOME), ("g-2", HOME)])
    assert len(accounts) == 3
    assert [account.connections for account in accounts] == [1, 1, 1]


def test_what_is_refused_is_not_counted() -> None:
    made = quota(ManualClock())
    made.enter([("g-1", HOME)])
    made.enter([("g-1", HOME)])
    for _ in range(5):
        refused(made, ("g-2", "192.0.2.9"), ("g-1", HOME))
    (account, _) = made.enter([("g-2", "192.0.2.9")])
    assert account.connections == 1


def test_tries_a_minute() -> None:
    clock = ManualClock()
    made = quota(clock)
    for _ in range(4):
        made.knock([("g-1", HOME)])
    with pytest.raises(TooManyRequests):
        made.knock([("g-1", HOME)])
    for _ in range(2):
        made.knock([("g-2", HOME)])
    with pytest.raises(TooManyRequests):
        made.knock([("g-3", HOME)])
    made.knock([("g-3", "192.0.2.2")])
    clock.advance(MINUTE)
    made.knock([("g-1", HOME)])


def test_traffic_in_all_by_guest_and_address() -> None:
    clock = ManualClock()
    made = quota(clock)
    mine = made.enter([("g-1", HOME)])
    for account in mine:
        account.used += 100
        account.leave()
    assert [account.used_up for account in mine] == [True, False]
    assert refused(made, ("g-1", HOME)) == "guest_traffic"
    for account in made.enter([("g-2", HOME)]):
        account.used += 50
        account.leave()
    assert refused(made, ("g-3", HOME)) == "guest_traffic"  # a new login is no new quota
    clock.advance(WINDOW)
    made.enter([("g-3", HOME)])


def test_bandwidth_is_a_bucket_each_way() -> None:
    guest, address = quota(ManualClock()).enter([("g-1", HOME)])
    assert (guest.inbound.rate, guest.outbound.rate, address.inbound.rate) == (10.0, 10.0, 20.0)
    assert guest.inbound is not guest.outbound


def test_memory_is_bounded_and_what_is_idle_goes_first() -> None:
    clock = ManualClock()
    made = quota(clock, most=4)
    stays = made.enter([("g-1", HOME)])
    for account in made.enter([("g-2", "192.0.2.2")]):
        account.leave()
    assert refused(made, ("g-3", "192.0.2.3")) == "too_many_guests"
    clock.advance(WINDOW)
    made.enter([("g-3", "192.0.2.3")])
    assert len(made) == 4
    assert [account.connections for account in stays] == [1, 1]
