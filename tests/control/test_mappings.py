"""The life of mappings: what is stored and what listens stay equal, whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.control.entry_points import FakeEntryPoints
from tests.migrated import migrated_in_memory
from underpass.control.access import AgentView, require
from underpass.control.agent_secrets import AgentSecrets
from underpass.control.entry_points import NoEntryPoints, open_entry
from underpass.control.events import EventFilter, Events
from underpass.control.live import LiveBus
from underpass.control.mapping import Mapping, MappingLive
from underpass.control.mapping_list import MappingFilter
from underpass.control.mapping_orphans import MappingOrphans
from underpass.control.mappings import Mappings
from underpass.control.port_leases import PortRules
from underpass.control.subject import Role, Subject
from underpass.core.clock import ManualClock
from underpass.core.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    Unavailable,
    UnderpassError,
)
from underpass.core.ids import new_id
from underpass.store.db.database import Database
from underpass.store.db.mapping_models import MappingRow, PortLease
from underpass.store.db.models import Agent, User

PORTS = range(20_000, 20_010)
DATABASE_KEY = b"k" * 32


class House:
    """Mappings over a database, with people and machines."""

    def __init__(self, database: Database, **options: Any) -> None:
        self.clock, self.database, self.bus = ManualClock(), database, LiveBus()
        self.events = Events(database, self.clock, self.bus)
        self.entries = FakeEntryPoints()
        self.heard: list[dict[str, Any]] = []
        self.bus.listen(lambda m: self.heard.append(m.data) if m.topic == "mapping" else None)
        options.setdefault("rules", PortRules(PORTS, lambda: 20_009, lambda low, _high: low))
        self.mappings = Mappings(
            database,
            self.clock,
            events=self.events,
            bus=self.bus,
            agents=self,
            seals=AgentSecrets(database, DATABASE_KEY),
            entry_points=self.entries,
            **options,
        )

    async def require(self, subject: Subject, agent_id: str, action: Any = "see") -> Agent:
        async with self.database.reading() as db:
            row = await db.get(Agent, agent_id)
        require(subject, action, None if row is None else AgentView.of(row))
        assert row is not None
        return row

    async def user(self, name: str, role: Role = "user") -> Subject:
        subject = Subject(new_id(), name, role)
        async with self.database.session() as db:
            db.add(
                User(id=subject.user_id, username=name, role=role, disabled=False, created_at=0.0,
                     updated_at=0.0)
            )  # fmt: skip
        return subject

    async def agent(self, *allowed: Subject) -> str:
        agent_id = new_id()
        async with self.database.session() as db:
            db.add(
                Agent(
                    id=agent_id, name="box", client_public_key="", key_fingerprint="",
                    hostname="box", labels={}, allowed_users=[one.user_id for one in allowed],
                    status="online", created_at=0.0, updated_at=0.0, is_deleted=False,
                    static_info={}, dynamic_info={}, agent_secret_key="",
                )
            )  # fmt: skip
        return agent_id

    async def leases(self) -> dict[tuple[str, int], str]:
        from sqlalchemy import select

        async with self.database.reading() as db:
            return {
                (r.transport, r.port): r.mapping_id for r in await db.scalars(select(PortLease))
            }

    async def event_types(self) -> list[str]:
        items, _ = await self.events.page(EventFilter(type="mapping"), page=1, page_size=500)
        return sorted(f"{i['type'].removeprefix('mapping.')}:{i['outcome']}" for i in items)


class Two(House):
    """Two tenants, Ada and Bob, each with a machine; and an admin and an auditor."""

    ada: Subject
    bob: Subject
    root: Subject
    auditor: Subject
    box: str
    bobs_box: str

    async def fill(self) -> Two:
        self.ada, self.bob = await self.user("ada"), await self.user("bob")
        self.root, self.auditor = (
            await self.user("root", "admin"),
            await self.user("iva", "auditor"),
        )
        self.box, self.bobs_box = await self.agent(self.ada), await self.agent(self.bob)
        return self

    def ssh(self, **changes: Any) -> dict[str, Any]:
        return {"protocol": "tcp", "target_client_id": self.box, "target_port": 22, **changes}

    async def made(self, **changes: Any) -> Mapping:
        return await self.mappings.create(self.ada, self.ssh(**changes))


@pytest.fixture
async def house() -> AsyncIterator[Two]:
    database = await migrated_in_memory()
    yield await Two(database).fill()
    await database.close()


async def test_one_is_made_opened_told_and_found_again(house: Two) -> None:
    made = await house.made(name="ssh", limits={"bandwidth": 1000}, options={"deny_ips": ["::1"]})
    assert (made.public_port, made.status, made.version, made.user_id) == (
        20_000, "active", 1, house.ada.user_id,
    )  # fmt: skip
    assert house.entries.opened == {made.id: made}
    assert await house.mappings.get(house.ada, made.id) == made
    assert await house.mappings.active() == [made]
    assert await house.leases() == {("tcp", 20_000): made.id}
    assert house.heard == [
        {"id": made.id, "change": "created", "user_id": house.ada.user_id, "agent_id": house.box}
    ]
    items, _ = await house.events.page(EventFilter(object=made.id), page=1, page_size=9)
    assert items[0]["type"] == "mapping.created"
    assert items[0]["actor"] == "ada"
    assert items[0]["details"]["source"] == {"port": 20_000}


async def test_the_owner_is_who_asks_whatever_the_body_says(house: Two) -> None:
    made = await house.made(user_id=house.bob.user_id, id=new_id(), version=9)
    assert made.user_id == house.ada.user_id
    assert made.version == 1


async def test_others_machines_are_no_targets(house: Two) -> None:
    for wanted in (
        house.ssh(target_client_id=house.bobs_box),
        house.ssh(target_client_id=new_id()),
        house.ssh(source={"client_id": house.bobs_box, "port": 99}),
    ):
        with pytest.raises(NotFound):
            await house.mappings.create(house.ada, wanted)
    with pytest.raises(Forbidden):
        await house.mappings.create(house.auditor, house.ssh())
    assert await house.event_types() == ["created:denied"]
    assert await house.mappings.active() == []
    assert house.entries.calls == []


async def test_another_tenants_mapping_does_not_exist(house: Two) -> None:
    made = await house.made(name="ssh")
    for call in (
        house.mappings.get(house.bob, made.id),
        house.mappings.update(house.bob, made.id, {"name": "mine"}),
        house.mappings.delete(house.bob, made.id),
        house.mappings.get(house.bob, new_id()),
        house.mappings.get(house.ada, "../x"),
    ):
        with pytest.raises(NotFound, match="There is no such mapping"):
            await call
    assert await house.mappings.page(house.bob, MappingFilter()) == ([], 0)
    assert (await house.mappings.get(house.auditor, made.id)).id == made.id
    with pytest.raises(Forbidden):
        await house.mappings.delete(house.auditor, made.id)
    changed = await house.mappings.update(house.root, made.id, {"name": "theirs"})
    assert (changed.name, changed.user_id) == ("theirs", house.ada.user_id)


async def test_a_port_belongs_to_its_mapping_while_that_lives(house: Two) -> None:
    made = await house.made(source={"port": 20_003})
    await house.mappings.update(house.ada, made.id, {"status": "disabled"})
    assert house.entries.opened == {}
    wanted = {"protocol": "tcp", "target_client_id": house.bobs_box, "target_port": 1}
    for subject, whose in ((house.bob, "somebody else's"), (house.ada, "your own")):
        with pytest.raises(Conflict, match=whose) as refused:
            await house.mappings.create(
                subject,
                wanted
                | {"source": {"port": 20_003}}
                | ({} if subject is house.bob else {"target_client_id": house.box}),
            )
        assert refused.value.code == "port_leased"
        assert made.id not in str(refused.value.message)
    udp = await house.made(protocol="udp", source={"port": 20_003})
    assert udp.public_port == 20_003
    again = await house.mappings.update(house.ada, made.id, {"status": "active"})
    assert again.public_port == 20_003
    await house.mappings.delete(house.ada, made.id)
    taken = await house.mappings.create(house.bob, wanted | {"source": {"port": 20_003}})
    assert await house.leases() == {("tcp", 20_003): taken.id, ("udp", 20_003): udp.id}


@pytest.mark.parametrize("port", [1023, 19_999, 20_010, 3000, 20_009])
async def test_ports_outside_the_range_and_our_own_are_refused(house: Two, port: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await house.made(source={"port": port})
    assert refused.value.code == "port_not_allowed"
    assert refused.value.details == {"field": "source.port"}
    with pytest.raises(InvalidRequest):
        await house.made(source={"port_range": f"{port}-{port}"})
    assert await house.leases() == {}


async def test_an_agents_ports_are_its_own_affair(house: Two) -> None:
    made = await house.made(source={"client_id": house.box, "port": 80})
    assert (made.public_port, made.source.agent_id) == (None, house.box)
    assert await house.mappings.listening_at(house.box) == [made]
    assert await house.mappings.listening_at(house.bobs_box) == []
    with pytest.raises(Conflict):
        await house.made(source={"client_id": house.box, "port": 80})
    house.entries.agent_picks = 45_000
    picked = await house.made(source={"client_id": house.box, "port": 0})
    assert picked.source.port == 45_000
    assert (await house.mappings.get(house.ada, picked.id)).source.port == 45_000


async def test_any_port_passes_over_those_other_programs_have(house: Two) -> None:
    house.entries.busy = {20_000, 20_001}
    made = await house.made()
    assert made.public_port == 20_002
    assert await house.leases() == {("tcp", 20_002): made.id}
    assert await house.mappings.page(house.ada, MappingFilter()) == ([made], 1)


async def test_all_ports_taken_says_so(house: Two) -> None:
    for _ in range(9):  # ten, less the gateway's own
        await house.made()
    with pytest.raises(Unavailable) as refused:
        await house.made()
    assert refused.value.code == "no_free_port"
    house.entries.busy = set(PORTS)
    with pytest.raises(Unavailable):
        await house.mappings.create(house.ada, house.ssh(protocol="udp"))
    assert len(await house.leases()) == 9


async def test_a_fixed_port_another_program_has_leaves_nothing(house: Two) -> None:
    house.entries.busy = {20_004}
    with pytest.raises(Conflict) as refused:
        await house.made(source={"port": 20_004})
    assert refused.value.code == "port_in_use"
    assert await house.leases() == {}
    assert await house.mappings.active() == []
    assert await house.event_types() == ["failed:failed"]
    assert house.heard == []


async def test_a_cancelled_create_leaves_nothing(
    house: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = asyncio.Event()

    async def slow(mapping: Mapping) -> Mapping:
        house.entries.opened[mapping.id] = mapping
        opening.set()
        await asyncio.Event().wait()
        return mapping

    monkeypatch.setattr(house.entries, "open", slow)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(house.made())
        await opening.wait()
        task.cancel()
    assert house.entries.opened == {}
    assert await house.leases() == {}


async def test_an_entry_point_that_hangs_is_given_up(
    house: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(_mapping: Mapping) -> Mapping:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(house.entries, "open", hangs)
    monkeypatch.setattr("underpass.control.entry_points.DEADLINE", 0.01)
    with pytest.raises(Unavailable) as refused:
        await house.made()
    assert refused.value.code == "no_answer"
    assert await house.leases() == {}


async def test_before_there_are_entry_points(house: Two) -> None:
    nothing = NoEntryPoints()
    house.mappings.entry_points = nothing
    with pytest.raises(Unavailable) as refused:
        await house.made()
    assert refused.value.code == "starting"
    made = await house.made(status="disabled")
    assert nothing.live(made.id) == MappingLive()
    with pytest.raises(Unavailable):
        await nothing.change(made)


async def test_limits_change_without_opening_anew(house: Two) -> None:
    made = await house.made(limits={"bandwidth": 10})
    house.clock.advance(5)
    changed = await house.mappings.update(house.ada, made.id, {"limits": {"connections": 2}})
    assert (changed.version, changed.limits.bandwidth, changed.limits.connections) == (2, 10, 2)
    assert changed.updated_at == made.updated_at + 5
    assert house.entries.calls == ["open", "change"]
    assert house.entries.opened[made.id] == changed
    assert await house.mappings.update(house.ada, made.id, {"name": changed.name}) == changed
    assert await house.event_types() == ["created:ok", "updated:ok"]
    items, _ = await house.events.page(EventFilter(type="mapping.updated"), page=1, page_size=9)
    assert items[0]["details"]["changed"] == ["limits"]


async def test_moving_to_another_port(house: Two) -> None:
    made = await house.made()
    moved = await house.mappings.update(house.ada, made.id, {"source": {"port": 20_007}})
    assert house.entries.calls == ["open", "close", "open"]
    assert await house.leases() == {("tcp", 20_007): made.id}
    assert (await house.mappings.get(house.ada, made.id)) == moved
    ranged = {"source": {"port_range": "20001-20003"}}
    moved = await house.mappings.update(house.ada, made.id, ranged)
    assert set(await house.leases()) == {("tcp", port) for port in (20_001, 20_002, 20_003)}
    assert moved.target_for(20_003) == "tcp:127.0.0.1:24"


async def test_a_move_that_fails_is_taken_back(house: Two) -> None:
    made = await house.made()
    house.entries.busy = {20_007}
    with pytest.raises(Conflict):
        await house.mappings.update(
            house.ada, made.id, {"source": {"port": 20_007}, "name": "moved"}
        )
    found = await house.mappings.get(house.ada, made.id)
    assert (found.source, found.name, found.status) == (made.source, made.name, "active")
    assert found.version > made.version
    assert house.entries.opened == {made.id: found}
    assert await house.leases() == {("tcp", 20_000): made.id}
    with pytest.raises(Conflict) as refused:
        other = await house.made()
        await house.mappings.update(house.ada, other.id, {"source": {"port": 20_000}})
    assert refused.value.code == "port_leased"
    assert (await house.mappings.get(house.ada, other.id)).public_port == 20_001


async def test_from_an_agent_to_any_port_of_the_gateway(house: Two) -> None:
    made = await house.made(source={"client_id": house.box, "port": 80})
    house.entries.busy = {20_000}
    moved = await house.mappings.update(house.ada, made.id, {"source": {"port": 0}})
    assert moved.public_port == 20_001
    assert await house.leases() == {("tcp", 20_001): made.id}


async def test_what_cannot_come_back_says_why(house: Two) -> None:
    made = await house.made()
    house.entries.failure = Unavailable("The network is down.")
    with pytest.raises(Unavailable):
        await house.mappings.update(house.ada, made.id, {"source": {"port": 20_007}})
    found = await house.mappings.get(house.ada, made.id)
    assert (found.status, found.error) == ("error", "The network is down.")
    assert found in await house.mappings.active()
    # Still broken: it may be renamed, but not be told to start.
    renamed = await house.mappings.update(house.ada, made.id, {"name": "broken"})
    assert (renamed.name, renamed.status, renamed.error) == (
        "broken", "error", "The network is down.",
    )  # fmt: skip
    with pytest.raises(Unavailable):
        await house.mappings.update(house.ada, made.id, {"status": "active"})
    house.entries.failure = None
    fixed = await house.mappings.update(house.ada, made.id, {"status": "active"})
    assert (fixed.status, fixed.error) == ("active", None)
    assert fixed.id in house.entries.opened


async def test_status_as_entry_points_tell_it(house: Two) -> None:
    made = await house.made()
    assert await house.mappings.set_status(made.id, "error", "The port is taken.")
    assert not await house.mappings.set_status(made.id, "error", "The port is taken.")
    assert await house.mappings.set_status(made.id, "error", "Something else.")
    found = await house.mappings.get(house.ada, made.id)
    assert (found.status, found.error, found.version) == ("error", "Something else.", 1)
    assert await house.mappings.set_status(made.id, "active")
    assert (await house.mappings.get(house.ada, made.id)).error is None
    assert await house.event_types() == ["created:ok", "failed:failed"]
    assert [heard["change"] for heard in house.heard] == ["created", "status", "status", "status"]
    await house.mappings.update(house.ada, made.id, {"status": "disabled"})
    assert not await house.mappings.set_status(made.id, "error", "late")
    assert not await house.mappings.set_status(new_id(), "active")


async def test_usage_adds_up_and_is_no_change(house: Two) -> None:
    made = await house.made()
    await house.mappings.add_usage(made.id, connections=2, sent=10, received=5, last_active_at=50.0)
    await house.mappings.add_usage(made.id, sent=1, last_active_at=40.0)
    await house.mappings.add_usage(made.id, connections=1)
    changed = await house.mappings.update(house.ada, made.id, {"name": "x"})
    assert (changed.version, changed.updated_at) == (2, made.updated_at)
    found = await house.mappings.get(house.ada, made.id)
    assert (found.total_connections, found.bytes_sent, found.bytes_received) == (3, 11, 5)
    assert found.last_active_at == 50.0


async def test_a_cap_per_person() -> None:
    database = await migrated_in_memory()
    house = await Two(database, max_per_user=2).fill()
    await house.made(status="disabled")
    await house.made()
    with pytest.raises(TooManyRequests) as refused:
        await house.made()
    assert (refused.value.code, refused.value.details) == ("too_many_mappings", {"limit": 2})
    wanted = house.ssh(target_client_id=house.bobs_box)
    assert (await house.mappings.create(house.bob, wanted)).id in house.entries.opened
    await database.close()


async def test_names_are_unique_among_ones_own(house: Two) -> None:
    await house.made(name="ssh")
    with pytest.raises(Conflict) as refused:
        await house.made(name="ssh")
    assert refused.value.code == "name_taken"
    other = await house.made(name="ssh2")
    with pytest.raises(Conflict):
        await house.mappings.update(house.ada, other.id, {"name": "ssh"})
    await house.mappings.create(house.bob, house.ssh(name="ssh", target_client_id=house.bobs_box))


async def test_who_lost_the_machine_may_only_disable_and_delete(house: Two) -> None:
    made = await house.made()
    async with house.database.session() as db:
        row = await db.get(Agent, house.box)
        assert row is not None
        row.allowed_users = []
    with pytest.raises(UnderpassError):
        await house.mappings.update(house.ada, made.id, {"name": "x"})
    off = await house.mappings.update(house.ada, made.id, {"status": "disabled"})
    assert off.status == "disabled"
    with pytest.raises(UnderpassError):
        await house.mappings.update(house.ada, made.id, {"status": "active"})
    await house.mappings.delete(house.ada, made.id)
    assert await house.mappings.page(house.ada, MappingFilter()) == ([], 0)


async def test_a_group_shares_one_port(house: Two) -> None:
    second_box = await house.agent(house.ada)
    first = await house.made(group="web", source={"port": 20_005})
    second = await house.made(group="web", target_client_id=second_box)
    assert first.public_port == second.public_port == 20_005
    assert await house.leases() == {("tcp", 20_005): first.id}
    with pytest.raises(Conflict) as refused:
        await house.made(group="web", source={"port": 20_006})
    assert refused.value.code == "group_port"
    with pytest.raises(Conflict) as refused:
        await house.made(group="other", source={"port": 20_005})
    assert refused.value.code == "port_leased"
    with pytest.raises(Conflict):
        await house.made(
            protocol="unix", target_port=None, target_path="/x", group="web",
            source={"port": 20_005},
        )  # fmt: skip
    bobs = house.ssh(target_client_id=house.bobs_box, group="web", source={"port": 20_005})
    with pytest.raises(Conflict):
        await house.mappings.create(house.bob, bobs)
    await house.mappings.delete(house.ada, first.id)
    assert await house.leases() == {("tcp", 20_005): second.id}
    left = await house.mappings.update(house.ada, second.id, {"group": None})
    assert left.public_port == 20_005
    await house.mappings.delete(house.ada, second.id)
    assert await house.leases() == {}


async def test_socks_has_both_ports_and_a_sealed_password(house: Two) -> None:
    wanted = {"protocol": "socks5", "target_client_id": house.box}
    with pytest.raises(InvalidRequest) as refused:
        await house.mappings.create(house.ada, wanted)
    assert refused.value.code == "login_needed"
    login = {"username": "ada", "password": "a secret text"}
    made = await house.mappings.create(house.ada, wanted | {"options": login})
    assert set(await house.leases()) == {("tcp", 20_000), ("udp", 20_000)}
    assert (await house.mappings.get(house.ada, made.id)).options.password == "a secret text"
    async with house.database.reading() as db:
        row = await db.get(MappingRow, made.id)
        assert row is not None
        kept = f"{row.options} {row.sealed_password}"
    items, _ = await house.events.page(EventFilter(), page=1, page_size=9)
    assert "a secret text" not in kept + str(items)
    local = {"source": {"bind": "127.0.0.1"}}
    assert (await house.mappings.create(house.ada, wanted | local)).public_port == 20_001


async def test_lists(house: Two) -> None:
    ssh = await house.made(name="ssh")
    house.clock.advance(1)
    dns = await house.made(name="dns", protocol="udp", target_port=53, target_host="ns.lan",
                           status="disabled", group="g")  # fmt: skip
    house.clock.advance(1)
    theirs = await house.mappings.create(
        house.bob, house.ssh(target_client_id=house.bobs_box, name="bobs")
    )

    async def names(subject: Subject = house.root, **wanted: Any) -> list[str]:
        found, total = await house.mappings.page(subject, MappingFilter(**wanted))
        assert total == len(found)
        return [one.name for one in found]

    assert await names() == ["bobs", "dns", "ssh"]
    assert await names(house.auditor) == ["bobs", "dns", "ssh"]
    assert await names(house.ada) == ["dns", "ssh"]
    assert await names(house.ada, user_id=house.bob.user_id) == []
    assert await names(protocol="udp") == ["dns"]
    assert await names(status="active") == ["bobs", "ssh"]
    assert await names(agent_id=house.bobs_box) == ["bobs"]
    assert await names(group="g") == ["dns"]
    assert await names(text="NS.l") == ["dns"]
    assert await names(text=theirs.id) == ["bobs"]
    assert await names(text="%") == []
    assert await names(text="\0ssh") == ["ssh"]
    await house.mappings.add_usage(ssh.id, last_active_at=5.0)
    found, total = await house.mappings.page(
        house.root, MappingFilter(), limit=1, order=("last_active_at", False)
    )
    assert (found[0].id, total) == (ssh.id, 3)
    found, _ = await house.mappings.page(
        house.root, MappingFilter(), offset=1, limit=5, order=("name", False)
    )
    assert [one.id for one in found] == [dns.id, ssh.id]


async def test_what_nobody_answers_for_goes(house: Two) -> None:
    kept = await house.made()
    theirs = await house.mappings.create(house.bob, house.ssh(target_client_id=house.bobs_box))
    lost = await house.made(target_client_id=(gone := await house.agent(house.ada)))
    listens = await house.made(source={"client_id": gone, "port": 99})
    orphans = MappingOrphans(house.database, house.bus, house.mappings.remove)
    assert await orphans.sweep() == 0
    async with house.database.session() as db:
        await db.delete(await db.get(User, house.bob.user_id))
        row = await db.get(Agent, gone)
        assert row is not None
        row.is_deleted = True
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(orphans.watch())
        async with asyncio.timeout(10):
            while len(house.entries.opened) != 1:
                await asyncio.sleep(0)
            row = await house.agent(house.ada)
            again = await house.made(target_client_id=row)
            async with house.database.session() as db:
                found = await db.get(Agent, row)
                assert found is not None
                found.is_deleted = True
            house.bus.publish("agent", {"id": row, "change": "deleted"})
            while again.id in house.entries.opened:
                await asyncio.sleep(0)
            house.bus.close()
            await watching
    assert await house.mappings.active() == [kept]
    assert {theirs.id, lost.id, listens.id}.isdisjoint(set((await house.leases()).values()))
    assert (await house.event_types()).count("deleted:ok") == 4
    assert not await house.mappings.remove(theirs.id, "again")


async def test_changes_of_one_mapping_come_one_after_the_other(house: Two) -> None:
    made = await house.made()
    await asyncio.gather(
        *[house.mappings.update(house.ada, made.id, {"limits": {"connections": n}})
          for n in range(1, 9)]
    )  # fmt: skip
    found = await house.mappings.get(house.ada, made.id)
    assert found.version == 9
    assert house.entries.opened[made.id] == found


async def test_opening_gives_what_is_really_open(house: Two) -> None:
    made = await house.made()
    assert await open_entry(house.entries, made) == made
