"""The account of a month's traffic: nothing is lost or told twice, on each family of databases."""

from __future__ import annotations

import asyncio

from underpass.control.events import EventFilter, Events
from underpass.control.live import LiveBus
from underpass.control.monthly_traffic import MonthlyTraffic
from underpass.core.clock import ManualClock
from underpass.store.db.database import Database


def account(database: Database, clock: ManualClock | None = None) -> MonthlyTraffic:
    clock = clock or ManualClock()
    return MonthlyTraffic(database, clock, Events(database, clock, LiveBus()))


async def test_many_who_add_at_once(database: Database) -> None:
    traffic = account(database)
    sums = await asyncio.gather(*(traffic.add("u-1", "2026-11", 1000 + n) for n in range(20)))
    assert max(sums) == await traffic.used("u-1", "2026-11") == 20_190
    assert len(set(sums)) == 20  # each sees what is there after it
    assert await traffic.used("u-1", "2026-12") == await traffic.used("u-2", "2026-11") == 0


async def test_more_than_32_bits(database: Database) -> None:
    traffic = account(database)
    assert await traffic.add("u-1", "2026-11", 5 * 10**12) == 5 * 10**12
    assert await traffic.add("u-1", "2026-11", 7) == 5 * 10**12 + 7


async def test_each_step_is_told_once_a_month(database: Database) -> None:
    clock = ManualClock()
    events = Events(database, clock, LiveBus())
    traffic = MonthlyTraffic(database, clock, events)
    await traffic.add("u-1", "2026-11", 9)
    told = await asyncio.gather(
        *(traffic.tell("u-1", "2026-11", 80, {"limit": 10, "used": 9}) for _ in range(4))
    )
    assert sum(told) == 1
    assert await traffic.tell("u-1", "2026-11", 100, {"limit": 10, "used": 11})
    assert not await traffic.tell("u-1", "2026-11", 80, {})
    assert not await traffic.tell("u-1", "2026-11", 100, {})
    await traffic.add("u-1", "2026-12", 9)
    assert await traffic.tell("u-1", "2026-12", 80, {})
    items, _ = await events.page(EventFilter(type="quota"), page=1, page_size=9)
    assert sorted((one["type"], one["details"]["month"]) for one in items) == [
        ("quota.exceeded", "2026-11"), ("quota.warned", "2026-11"), ("quota.warned", "2026-12"),
    ]  # fmt: skip
    assert all(one["object_id"] == "u-1" for one in items)


async def test_old_months_are_forgotten(database: Database) -> None:
    clock = ManualClock()  # 2023-11
    traffic = account(database, clock)
    for month in ("2022-09", "2022-11", "2023-11"):
        await traffic.add("u-1", month, 1)
    await traffic.forget()
    assert [await traffic.used("u-1", month) for month in ("2022-09", "2022-11", "2023-11")] == [
        0, 1, 1,
    ]  # fmt: skip
