"""Quotas as they are kept: partial changes, defaults, events, news, on each family of databases."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import delete

from tests.control.test_mappings import Two
from underpass.control.events import EventFilter
from underpass.control.quota import Quota
from underpass.control.quotas import TOPIC, Quotas
from underpass.core.errors import InvalidRequest, NotFound
from underpass.core.ids import new_id
from underpass.store.db.database import Database
from underpass.store.db.models import User


def quotas_of(house: Two, defaults: Quota | None = None) -> Quotas:
    return Quotas(
        house.database, house.clock, events=house.events, bus=house.bus, defaults=defaults
    )


async def test_only_what_is_posted_changes(database: Database) -> None:
    house = await Two(database).fill()
    quotas, ada = quotas_of(house, Quota(max_sessions=4)), house.ada.user_id
    told: list[object] = []
    house.bus.listen(lambda news: told.append(news.data) if news.topic == TOPIC else None)
    assert await quotas.get(ada) == Quota(max_sessions=4)
    await quotas.set(house.root, ada, {"max_mappings": 5})
    changed = await quotas.set(house.root, ada, {"bandwidth": 10_000, "max_sessions": None})
    assert changed == await quotas.get(ada) == Quota(max_mappings=5, bandwidth=10_000)
    limits = {"max_mappings": 5, "bandwidth": 10_000, "max_sessions": None}
    assert told == [{"user_id": ada, "limits": one} for one in ({"max_mappings": 5}, limits)]
    assert await quotas.stored() == {ada: limits}
    assert await quotas.get(house.bob.user_id) == Quota(max_sessions=4)
    items, _ = await house.events.page(EventFilter(type="quota"), page=1, page_size=9)
    assert {one["object_id"] for one in items} == {ada}
    assert [one["actor"] for one in items] == ["root", "root"]
    shown = [one["details"]["changed"] for one in items]
    assert {"max_mappings": [None, 5]} in shown
    assert {"bandwidth": [None, 10_000], "max_sessions": [4, None]} in shown


async def test_what_is_refused_changes_nothing(database: Database) -> None:
    house = await Two(database).fill()
    quotas = quotas_of(house)
    with pytest.raises(InvalidRequest, match="max_mapings"):
        await quotas.set(house.root, house.ada.user_id, {"max_sessions": 1, "max_mapings": 5})
    for nobody in (new_id(), "nobody"):
        with pytest.raises(NotFound):
            await quotas.set(house.root, nobody, {"max_sessions": 1})
        with pytest.raises(NotFound):
            await quotas.get(nobody)
    assert await quotas.stored() == {}


async def test_many_who_change_one_quota(database: Database) -> None:
    house = await Two(database).fill()
    quotas, ada = quotas_of(house), house.ada.user_id
    names = ("max_clients", "max_mappings", "max_workspaces", "max_sessions", "monthly_traffic")
    await asyncio.gather(*(quotas.set(house.root, ada, {name: 3}) for name in names))
    assert await quotas.get(ada) == Quota(**dict.fromkeys(names, 3))


async def test_what_is_counted(database: Database) -> None:
    house = await Two(database).fill()
    await house.made()
    await house.made(status="disabled")
    quotas = quotas_of(house)
    counted = {"clients": 0, "mappings": 2, "active_mappings": 1, "sessions": 0}
    assert await quotas.counted(house.ada.user_id) == counted
    assert await quotas.counted(house.bob.user_id) == dict.fromkeys(counted, 0)


async def test_limits_go_with_their_user(database: Database) -> None:
    house = await Two(database).fill()
    quotas = quotas_of(house)
    for one in (house.ada, house.bob):
        await quotas.set(house.root, one.user_id, {"max_sessions": 1})
    async with database.session() as db:
        await db.execute(delete(User).where(User.id == house.bob.user_id))
    await quotas.forget()
    assert set(await quotas.stored()) == {house.ada.user_id}
