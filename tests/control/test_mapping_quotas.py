"""Quotas of mappings: exact however many ask at once, on each family of databases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.control.test_mappings import Two
from tests.control.test_mappings_on_databases import both
from underpass.control.mapping_list import MappingFilter
from underpass.control.quota import Quota
from underpass.core.errors import TooManyRequests
from underpass.store.db.database import Database


class Given:
    """The same quota for everybody."""

    def __init__(self, **limits: int) -> None:
        self.quota = Quota(**limits)

    async def of(self, db: Any, user_id: str) -> Quota:
        return self.quota


async def house_with(database: Database, **limits: int) -> Two:
    return await Two(database, quotas=Given(**limits), max_per_user=6).fill()


async def test_twenty_at_once_make_exactly_the_quota(database: Database) -> None:
    house = await house_with(database, max_mappings=5)
    won, lost = await both(*(house.made() for _ in range(20)))
    assert len(won) == 5
    assert {getattr(error, "code", error) for error in lost} == {"quota_exceeded"}
    assert len(await house.leases()) == len(house.entries.opened) == 5
    _, total = await house.mappings.page(house.root, MappingFilter())
    assert total == 5
    assert "The quota allows 5 mappings, and there are 5." in str(lost[0])


async def test_twenty_enabled_at_once_are_exactly_the_quota(database: Database) -> None:
    house = await house_with(database, max_active_mappings=3, max_mappings=8)
    made = [await house.made(status="disabled") for _ in range(8)]
    change = {"status": "active"}
    won, lost = await both(
        *(house.mappings.update(house.ada, one.id, change) for one in made * 2),
        *(house.made() for _ in range(4)),
    )
    active = {one.id for one in await house.mappings.active()}
    assert len(active) == len(house.entries.opened) == 3
    assert {one.id for one in won} == active
    errors: Any = lost
    assert {error.code for error in errors} == {"quota_exceeded"}
    assert {error.details["quota"] for error in errors} == {"max_active_mappings", "max_mappings"}


async def test_a_quota_may_allow_more_than_the_gateway_does_by_itself(database: Database) -> None:
    house = await house_with(database, max_mappings=8)
    assert len([await house.made() for _ in range(8)]) == 8


async def test_one_that_runs_already_may_be_changed_over_quota(database: Database) -> None:
    house = await house_with(database, max_active_mappings=2)
    first, second = await asyncio.gather(house.made(), house.made())
    house.mappings._store._quotas.quota = Quota(max_active_mappings=1)  # type: ignore[union-attr]
    await house.mappings.update(house.ada, first.id, {"limits": {"bandwidth": 5000}})
    await house.mappings.update(house.ada, first.id, {"status": "disabled"})
    with pytest.raises(TooManyRequests, match="1 active mappings"):
        await house.mappings.update(house.root, first.id, {"status": "active"})
    await house.mappings.update(house.ada, second.id, {"status": "disabled"})
    await house.mappings.update(house.ada, first.id, {"status": "active"})


async def test_none_at_all(database: Database) -> None:
    house = await house_with(database, max_active_mappings=0)
    with pytest.raises(TooManyRequests):
        await house.made()
    assert await house.leases() == {}
    assert house.entries.calls == []
    await house.made(status="disabled")
