"""Everybody's allowances: equal to the stored quotas at once, accounted for, told once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.gateway.entrypoints.account import FakeQuotas, FakeTraffic
from tests.gateway.entrypoints.test_allowance import Counter, never, turns
from underpass.control.live import LiveBus
from underpass.control.quota import Quota
from underpass.core.clock import ManualClock
from underpass.core.errors import TooManyRequests
from underpass.gateway.entrypoints import allowances
from underpass.gateway.entrypoints.allowances import Allowances

NOV, DEC = "2026-11", "2026-12"


class World:
    def __init__(self) -> None:
        self.clock = ManualClock(datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp())
        self.quotas = FakeQuotas(max_connections_per_mapping=9)
        self.traffic, self.bus = FakeTraffic(), LiveBus()
        self.all = Allowances(self.quotas, self.traffic, self.clock, self.bus)

    def set(self, user_id: str, **limits: int | None) -> None:
        self.bus.publish("quota", {"user_id": user_id, "limits": limits})


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.all.stop()


async def test_limits_of_the_start_and_of_the_news(world: World) -> None:
    world.quotas.rows = {"u-1": {"bandwidth": 5000}, "u-2": {"max_sessions": 1}}
    early = world.all.of("u-1")
    world.set("u-2", max_sessions=2)  # newer than what is read
    await world.all.start()
    assert early.quota == Quota(bandwidth=5000, max_connections_per_mapping=9)
    assert early.sent.rate == early.received.rate == 5000
    assert world.all.of("u-1") is early
    assert world.all.of("u-2").quota.max_sessions == 2
    assert world.all.of("u-3").quota == world.quotas.defaults
    world.set("u-1", bandwidth=7000, max_connections_per_mapping=None)
    assert early.quota == Quota(bandwidth=7000)
    assert early.sent.rate == 7000


async def test_who_has_no_monthly_quota_asks_the_database_nothing(world: World) -> None:
    await world.all.of("u-1").require()
    await world.all.tick()
    assert world.traffic.asked == 0


async def test_what_was_used_before_counts(world: World) -> None:
    world.traffic.rows["u-1", NOV] = 990
    world.set("u-1", monthly_traffic=1000)
    allowance = world.all.of("u-1")
    await asyncio.gather(*(allowance.require() for _ in range(5)))
    assert (allowance.used, world.traffic.asked) == (990, 1)
    world.traffic.rows["u-2", NOV] = 1000
    world.set("u-2", monthly_traffic=1000)
    with pytest.raises(TooManyRequests):
        await world.all.of("u-2").require()


async def test_everything_is_accounted_for_once(world: World) -> None:
    allowance = world.all.of("u-1")
    counter = Counter()
    allowance.begin(counter, never)
    counter.bytes_in = 100
    await asyncio.gather(world.all.flush(), world.all.flush(), world.all.used("u-1"))
    assert world.traffic.rows == {("u-1", NOV): 100}
    counter.bytes_out = 50
    world.traffic.fails = True
    await world.all.flush()
    assert allowance.used == 150  # not yet in the account, and counted
    world.traffic.fails = False
    allowance.end(counter)
    del allowance
    gc.collect()
    await world.all.stop()
    assert world.traffic.rows == {("u-1", NOV): 150}
    gc.collect()
    assert world.all.active("u-1") == 0
    assert len(world.all._known) == 0  # nobody's tunnels: nothing is kept


def busy(world: World, count: int) -> Counter:
    """Somebody's stream through which *count* bytes have passed."""
    counter = Counter()
    world.all.of("u-1").begin(counter, never)
    counter.bytes_in = count
    return counter


async def test_the_end_waits_for_an_entry_that_is_being_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowances, "TICK", 0.0)
    monkeypatch.setattr(allowances, "FLUSH", 0.0)
    counter = busy(world, 100)
    world.traffic.answers.clear()
    await world.all.start()
    while not world.traffic.adding:
        await asyncio.sleep(0)
    async with asyncio.TaskGroup() as group:
        group.create_task(world.all.stop())
        await turns(20)
        counter.bytes_in += 11
        world.traffic.answers.set()
    assert world.traffic.rows == {("u-1", NOV): 111}


async def test_whoever_asks_and_goes_takes_no_entry_with_them(world: World) -> None:
    busy(world, 100)
    world.traffic.answers.clear()
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(world.all.used("u-1"))
        await turns(20)
        asking.cancel()
        await turns(20)
        world.traffic.answers.set()
    assert await world.all.used("u-1") == 100
    assert world.traffic.rows == {("u-1", NOV): 100}
    await world.all.stop()
    assert await world.all.used("u-1") == 100


async def test_a_database_that_does_not_answer_does_not_hold_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowances, "STOP_TIMEOUT", 0.01)
    busy(world, 100)
    world.traffic.answers.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(world.all.flush())
        await turns(20)
        await world.all.stop()
        world.traffic.answers.set()
    assert world.traffic.rows == {("u-1", NOV): 100}


async def test_the_new_month_owes_nothing_of_the_old(world: World) -> None:
    world.set("u-1", monthly_traffic=1000)
    allowance = world.all.of("u-1")
    await allowance.require()
    counter = Counter()
    allowance.begin(counter, lambda error: None)
    counter.bytes_in = 1100
    await world.all.tick()
    with pytest.raises(TooManyRequests):
        allowance.check()
    world.clock.advance(86400)
    world.traffic.fails = True
    await world.all.tick()
    await world.all.flush()
    world.traffic.fails = False
    allowance.check()
    counter.bytes_in += 10
    await world.all.flush()
    assert world.traffic.rows == {("u-1", NOV): 1100, ("u-1", DEC): 10}
    assert await world.all.used("u-1") == 10


async def test_most_and_all_of_it_are_told_once(world: World) -> None:
    await world.all.start()
    world.set("u-1", monthly_traffic=1000)
    allowance = world.all.of("u-1")
    counter = Counter()
    allowance.begin(counter, lambda error: None)
    counter.bytes_in = 799
    await world.all.flush()
    assert world.traffic.told == []
    for _ in range(3):
        counter.bytes_in += 10
        await world.all.flush()
    assert world.traffic.told == [("u-1", NOV, 80)]
    assert allowance.take(500)
    counter.bytes_in += 500
    await turns(20)  # at once, without a look at the clock
    assert world.traffic.told == [("u-1", NOV, 80), ("u-1", NOV, 100)]
    assert world.traffic.rows["u-1", NOV] == 1329
    world.set("u-1", monthly_traffic=1200)
    await world.all.flush()
    assert len(world.traffic.told) == 2


async def test_a_quota_that_comes_while_something_is_open(world: World) -> None:
    world.traffic.rows["u-1", NOV] = 5000
    allowance = world.all.of("u-1")
    ended: list[Any] = []
    allowance.begin(Counter(), ended.append)
    world.set("u-1", monthly_traffic=1000)
    assert ended == []  # nobody has looked yet
    await world.all.tick()
    assert [error.code for error in ended] == ["quota_exceeded"]
