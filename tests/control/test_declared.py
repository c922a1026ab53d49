"""What machines declare: applied as a whole or not at all, for whom, and by whose leave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.control.test_mappings import Two
from underpass.control.declared import PASSES_PER_MINUTE, Declarations
from underpass.control.events import EventFilter
from underpass.control.mapping import Mapping
from underpass.control.mapping_orphans import MappingOrphans
from underpass.control.rate_limits import RateLimits
from underpass.core.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    UnderpassError,
)
from underpass.core.ids import new_id
from underpass.core.supervisor import Supervisor
from underpass.store.db.database import Database
from underpass.store.db.models import Agent, User
from underpass.store.kv import MemoryStore


class Declaring(Two):
    """Ada let her machine in, and it may declare."""

    async def fill(self) -> Declaring:
        await super().fill()
        self.supervisor = Supervisor("test")
        limits = RateLimits(MemoryStore(self.clock), self.clock)
        self.declarations = Declarations(
            self.database, self.mappings, self.events, limits, self.supervisor
        )
        await self.change(self.box, may_declare=True, let_in_by=self.ada.user_id)
        return self

    async def change(self, agent_id: str, **values: Any) -> None:
        async with self.database.session() as db:
            row = await db.get(Agent, agent_id)
            assert row is not None
            for name, value in values.items():
                setattr(row, name, value)

    async def declare(self, *bodies: dict[str, Any]) -> list[dict[str, Any]]:
        self.clock.advance(1)  # or events have no order
        answer = await self.declarations.take(self.box, {"mappings": list(bodies)})
        return list(answer["mappings"])

    async def refused(self, *bodies: dict[str, Any]) -> UnderpassError:
        before, opened = await self.stored(), dict(self.entries.opened)
        with pytest.raises(UnderpassError) as caught:
            await self.declare(*bodies)
        assert [dict_of(one) for one in await self.stored()] == [dict_of(one) for one in before]
        assert {one.source.port for one in self.entries.opened.values()} == {
            one.source.port for one in opened.values()
        }
        return caught.value

    async def stored(self) -> list[Mapping]:
        found = await self.mappings.declared_by(self.box)
        return sorted(found, key=lambda one: one.name)

    async def told(self, kind: str) -> list[dict[str, Any]]:
        items, _ = await self.events.page(
            EventFilter(type=kind), page=1, page_size=99, newest_first=False
        )
        return items


def dict_of(mapping: Mapping) -> tuple[Any, ...]:
    return (mapping.name, mapping.source, mapping.target, mapping.limits, mapping.status)


def body(name: str, port: int = 0, target: int = 22, **more: Any) -> dict[str, Any]:
    source = {"port": port} if port else {}
    return {"name": name, "protocol": "tcp", "source": source, "target_port": target, **more}


@pytest.fixture
async def house(database: Database) -> Declaring:
    return await Declaring(database).fill()


async def test_they_are_made_found_again_changed_and_taken_back(house: Declaring) -> None:
    told = await house.declare(body("ssh"), body("web", 20_005, 80))
    assert [(one["name"], one["source"]["port"], one["status"]) for one in told] == [
        ("ssh", 20_000, "active"), ("web", 20_005, "active"),
    ]  # fmt: skip
    ssh, web = await house.stored()
    assert (ssh.user_id, ssh.declared_by, ssh.target) == (
        house.ada.user_id, house.box, "tcp:127.0.0.1:22",
    )  # fmt: skip
    house.entries.calls.clear()
    await house.declare(body("web", 20_005, 80), body("ssh"))
    assert await house.stored() == [ssh, web], "the same again touches nothing"
    assert house.entries.calls == []

    await house.declare(body("ssh"), body("web", 20_005, 81, limits={"connections": 3}))
    same, changed = await house.stored()
    assert same == ssh
    assert (changed.id, changed.target_port, changed.limits.connections) == (web.id, 81, 3)
    assert house.entries.calls == ["change"]
    await house.declare(body("ssh"), body("web", 20_005, 81))
    assert (await house.stored())[1].limits.connections is None, "what is not said is the default"

    await house.declare(body("web", 20_006, 81))
    assert [dict_of(one)[0] for one in await house.stored()] == ["web"]
    assert await house.leases() == {("tcp", 20_006): web.id}
    assert await house.declare() == []
    assert await house.leases() == {}
    assert house.entries.opened == {}
    details = [event["details"] for event in await house.told("mapping.declared")]
    assert details == [
        {"made": ["ssh", "web"]}, {"changed": ["web"]}, {"changed": ["web"]},
        {"changed": ["web"], "removed": ["ssh"]}, {"removed": ["web"]},
    ]  # fmt: skip


async def test_one_that_is_refused_undoes_them_all(house: Declaring) -> None:
    bobs = await house.mappings.create(
        house.bob, house.ssh(target_client_id=house.bobs_box, source={"port": 20_004})
    )
    await house.declare(body("a", 20_001), body("b", 20_002, 80))
    error = await house.refused(
        body("new", 20_007, 1), body("a", 20_003, limits={"bandwidth": 9}), body("x", 20_004, 5)
    )
    assert isinstance(error, Conflict)
    assert error.code == "port_leased"
    assert error.message.startswith("x: source.port: port 20004 belongs")
    assert await house.mappings.get(house.bob, bobs.id) == bobs
    # Refused once more for the same reason: that is no news. For another one it is.
    await house.refused(body("x", 20_004, 5))
    house.entries.busy.add(20_008)
    await house.refused(body("b", 20_008, 80))
    events = await house.told("mapping.declare_refused")
    assert [(one["outcome"], one["details"]["mapping"]) for one in events] == [
        ("failed", "x"), ("failed", "b"),
    ]  # fmt: skip


async def test_what_had_to_give_way_is_put_back(house: Declaring) -> None:
    await house.declare(body("a", 20_001, 1), body("b", 20_002, 2))
    house.entries.busy.add(20_003)
    error = await house.refused(body("a", 20_002, 1), body("b", 20_001, 2), body("c", 20_003, 3))
    assert error.code == "port_in_use"
    await house.declare(body("a", 20_002, 1), body("b", 20_001, 2))
    assert [one.source.port for one in await house.stored()] == [20_002, 20_001]

    real = house.entries.open
    seen: list[int] = []

    async def open_once_less(mapping: Mapping) -> Mapping:
        seen.append(mapping.source.port)
        if seen == [20_001, 20_002]:  # the second of those that changed places
            raise Conflict("Another program was quicker.", code="port_in_use")
        return await real(mapping)

    house.entries.open = open_once_less  # type: ignore[method-assign]
    error = await house.refused(body("a", 20_001, 1), body("b", 20_002, 2))
    assert error.code == "port_in_use"
    assert len(seen) == 4


async def test_a_wrong_one_changes_nothing(house: Declaring) -> None:
    await house.declare(body("a"))
    error = await house.refused(body("b"), body("c", limits={"bandwidth": "much"}))
    assert isinstance(error, InvalidRequest)
    assert error.message.startswith("c: limits.bandwidth:")


async def test_not_without_leave(house: Declaring) -> None:
    await house.change(house.box, may_declare=False)
    error = await house.refused(body("a"))
    assert isinstance(error, Forbidden)
    assert (error.code, error.hint) == (
        "may_not_declare", "An admin can allow it: underpass machines set box --may-declare",
    )  # fmt: skip
    assert await house.declare() == [], "nothing to declare needs no leave"
    (event,) = await house.told("mapping.declare_refused")
    assert (event["outcome"], event["rule"]) == ("denied", "may_not_declare")
    await house.change(house.box, may_declare=True, let_in_by=None)
    assert (await house.refused(body("a"))).code == "no_owner"
    await house.change(house.box, let_in_by=new_id())
    assert (await house.refused(body("a"))).code == "no_owner"
    await house.change(house.box, let_in_by=house.bob.user_id)  # has no access to it
    error = await house.refused(body("a"))
    assert error.code == "owner_may_not"
    assert error.message.startswith("a: bob,")
    with pytest.raises(NotFound):
        await house.declarations.take(new_id(), {"mappings": [body("a")]})


async def test_losing_the_leave_or_the_machine_takes_them_away(house: Declaring) -> None:
    orphans = MappingOrphans(house.database, house.bus, house.mappings.remove)
    await house.declare(body("a"))
    by_hand = await house.made()
    assert await orphans.sweep() == 0
    await house.change(house.box, may_declare=False)
    assert await orphans.sweep() == 1
    assert await house.stored() == []
    assert list(house.entries.opened) == [by_hand.id]
    await house.change(house.box, may_declare=True)
    await house.declare(body("a"))
    await house.change(house.box, is_deleted=True)
    assert await orphans.sweep() == 2


async def test_taking_the_leave_is_news_that_is_acted_upon(house: Declaring) -> None:
    orphans = MappingOrphans(house.database, house.bus, house.mappings.remove)
    watching = house.supervisor.start(orphans.watch(), "orphans")
    await house.declare(body("a"))
    while not len(house.bus):
        await asyncio.sleep(0)
    await house.change(house.box, may_declare=False)
    house.bus.publish("agent", {"id": house.box, "change": "updated"})
    async with asyncio.timeout(10):
        while house.entries.opened:
            await asyncio.sleep(0.01)
    house.bus.close()
    await watching


async def test_leave_that_is_taken_during_a_pass(house: Declaring) -> None:
    real = house.entries.open

    async def open_too_late(mapping: Mapping) -> Mapping:
        await house.change(house.box, may_declare=False)
        return await real(mapping)

    house.entries.open = open_too_late  # type: ignore[method-assign]
    assert (await house.refused(body("a"))).code == "may_not_declare"
    assert house.entries.opened == {}


async def test_a_machine_that_asks_too_often_waits(house: Declaring) -> None:
    house.clock.advance(60 - house.clock.now() % 60)  # the beginning of a window
    for _ in range(PASSES_PER_MINUTE):
        await house.declarations.take(house.box, {"mappings": []})
    with pytest.raises(TooManyRequests):
        await house.declarations.take(house.box, {"mappings": []})
    house.clock.advance(60)
    assert await house.declare(body("a"))


async def test_another_owner_gets_new_ones(house: Declaring) -> None:
    await house.declare(body("a", 20_001), body("b", target=2))
    before = await house.stored()
    await house.change(house.box, let_in_by=house.root.user_id)
    await house.declare(body("a", 20_001), body("b", target=2))
    after = await house.stored()
    assert {one.user_id for one in after} == {house.root.user_id}
    assert not {one.id for one in after} & {one.id for one in before}
    assert len(await house.leases()) == 2


async def test_by_hand_they_can_be_switched_but_not_changed(house: Declaring) -> None:
    await house.declare(body("a"))
    (one,) = await house.stored()
    mappings = house.mappings
    with pytest.raises(Conflict) as refused:
        await mappings.update(house.root, one.id, {"limits": {"connections": 1}})
    assert refused.value.code == "declared"
    assert "underpass.yaml" in str(refused.value)
    with pytest.raises(Conflict):
        await mappings.delete(house.ada, one.id)
    off = await mappings.update(house.ada, one.id, {"status": "disabled"})
    assert (off.status, house.entries.opened) == ("disabled", {})
    await house.declare(body("a"))
    assert await house.stored() == [off], "the file does not switch it on again"
    await house.declare(body("a", target=23))
    (still,) = await house.stored()
    assert (still.status, still.target_port) == ("disabled", 23)
    on = await mappings.update(house.ada, one.id, {"status": "active"})
    assert on.source.port == one.source.port


async def test_machines_and_people_use_the_same_names(house: Declaring) -> None:
    by_hand = await house.made(name="a")
    await house.declare(body("a"))
    other = await house.agent(house.ada)
    await house.change(other, may_declare=True, let_in_by=house.ada.user_id)
    await house.declarations.take(other, {"mappings": [body("a")]})
    (mine,) = await house.stored()
    assert len({by_hand.id, mine.id, *(m.id for m in await house.mappings.active())}) == 3


async def test_a_pass_goes_on_when_the_link_is_lost(house: Declaring) -> None:
    held = asyncio.Event()
    real = house.entries.open

    async def slow(mapping: Mapping) -> Mapping:
        await held.wait()
        return await real(mapping)

    house.entries.open = slow  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        first = group.create_task(house.declare(body("a"), body("b", target=2)))
        for _ in range(3):
            await asyncio.sleep(0)
        first.cancel()
        second = group.create_task(house.declare(body("a"), body("b", target=2)))
        held.set()
        await second
    assert [one.name for one in await house.stored()] == ["a", "b"]
    assert len(house.entries.opened) == 2
    assert len(await house.leases()) == 2


async def test_a_user_who_is_gone_answers_for_nobody(house: Declaring) -> None:
    async with house.database.session() as db:
        row = await db.get(User, house.ada.user_id)
        assert row is not None
        row.disabled = True
    assert (await house.refused(body("a"))).code == "no_owner"
