"""Guessing gets slower and slower, from one address; elsewhere the rightful person gets in."""

from __future__ import annotations

import pytest

from underpass.control.guessing import FREE_TRIES, FREE_TRIES_PER_ADDRESS, LONGEST_WAIT, Guessing
from underpass.control.rate_limits import RateLimits, address_key
from underpass.core.clock import ManualClock
from underpass.core.errors import TooManyRequests
from underpass.store.kv import MemoryStore

HOME, AWAY = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def guessing(clock: ManualClock) -> Guessing:
    return Guessing(MemoryStore(clock), clock)


async def _wait_asked(guessing: Guessing, name: str, ip: str | None) -> float:
    try:
        await guessing.check(name, ip)
    except TooManyRequests as error:
        assert error.code == "slow_down"
        assert error.retry_after is not None
        return error.retry_after
    return 0.0


async def test_the_wait_doubles_with_each_failure_up_to_a_cap(
    guessing: Guessing, clock: ManualClock
) -> None:
    waits: list[float] = []
    for _ in range(FREE_TRIES + 12):
        wait = await _wait_asked(guessing, "ada", HOME)
        clock.advance(wait)
        assert await _wait_asked(guessing, "ada", HOME) == 0
        waits.append(round(wait))
        await guessing.failed("ada", HOME)
        if len(waits) == FREE_TRIES + 5:
            break
    assert waits[:FREE_TRIES] == [0] * FREE_TRIES
    assert waits[FREE_TRIES:] == [1, 2, 4, 8, 16]


async def test_no_wait_is_longer_than_the_cap(guessing: Guessing) -> None:
    for _ in range(60):
        await guessing.failed("ada", HOME)
    assert await _wait_asked(guessing, "ada", HOME) <= LONGEST_WAIT


async def test_another_address_is_not_held_up(guessing: Guessing) -> None:
    for _ in range(60):
        await guessing.failed("ada", AWAY)
    assert await _wait_asked(guessing, "ada", AWAY) > 0
    assert await _wait_asked(guessing, "ada", HOME) == 0


async def test_an_address_that_tries_many_names_is_held_up_for_all(guessing: Guessing) -> None:
    for n in range(FREE_TRIES_PER_ADDRESS):
        assert await _wait_asked(guessing, f"user{n}", AWAY) == 0
        await guessing.failed(f"user{n}", AWAY)
    assert await _wait_asked(guessing, "somebody else", AWAY) > 0


async def test_success_forgives_the_name_and_not_the_address(guessing: Guessing) -> None:
    for _ in range(FREE_TRIES):
        await guessing.failed("ada", HOME)
    await guessing.forgive("ada", HOME)
    assert await _wait_asked(guessing, "ada", HOME) == 0
    for n in range(FREE_TRIES_PER_ADDRESS - FREE_TRIES):
        await guessing.failed(f"user{n}", HOME)
    await guessing.forgive("ada", HOME)
    assert await _wait_asked(guessing, "ada", HOME) > 0


async def test_failures_are_forgotten_after_a_quarter_of_an_hour(
    guessing: Guessing, clock: ManualClock
) -> None:
    for _ in range(FREE_TRIES + 3):
        await guessing.failed("ada", HOME)
    clock.advance(901)
    await guessing.failed("ada", HOME)
    assert await _wait_asked(guessing, "ada", HOME) == 0


@pytest.mark.parametrize(
    ("ip", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("", "unknown"),
        ("testclient", "unknown"),
    ],
)
def test_what_counts_as_one_address(ip: str | None, key: str) -> None:
    assert address_key(ip) == key


async def test_limits_count_per_window(clock: ManualClock) -> None:
    limits = RateLimits(MemoryStore(clock), clock)
    assert [await limits.hit("probe", "me", 2, 60) for _ in range(2)] == [1, 2]
    with pytest.raises(TooManyRequests) as caught:
        await limits.hit("probe", "me", 2, 60)
    assert caught.value.retry_after is not None
    assert 1 <= caught.value.retry_after <= 60
    assert await limits.hit("probe", "you", 2, 60) == 1
    assert await limits.hit("other", "me", 2, 60) == 1
    clock.advance(caught.value.retry_after)
    assert await limits.hit("probe", "me", 2, 60) == 1
