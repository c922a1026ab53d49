"""What two requests at once could break in mappings, on each family of databases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.control.test_mappings import Two
from underpass.control.agent_secrets import AgentSecrets
from underpass.control.mapping import Mapping
from underpass.control.mapping_list import MappingFilter
from underpass.control.port_leases import PortRules
from underpass.core.errors import Conflict, TooManyRequests
from underpass.store.db.database import Database


async def both(*calls: Any) -> tuple[list[Mapping], list[Exception]]:
    results = await asyncio.gather(*calls, return_exceptions=True)
    won = [one for one in results if isinstance(one, Mapping)]
    lost = [one for one in results if isinstance(one, Exception)]
    assert len(won) + len(lost) == len(calls)
    return won, lost


async def test_of_many_who_ask_for_one_port_one_gets_it(database: Database) -> None:
    house = await Two(database).fill()
    wanted = [
        (who, house.ssh(target_client_id=box, source={"port": 20_004}))
        for who, box in ((house.ada, house.box), (house.bob, house.bobs_box)) * 4
    ]
    won, lost = await both(*(house.mappings.create(who, body) for who, body in wanted))
    assert len(won) == 1
    assert {type(error) for error in lost} == {Conflict}
    assert {error.code for error in lost} == {"port_leased"}  # type: ignore[attr-defined]
    assert await house.leases() == {("tcp", 20_004): won[0].id}
    assert list(house.entries.opened) == [won[0].id]
    assert await house.mappings.page(house.root, MappingFilter()) == (won, 1)


async def test_overlapping_ranges_never_share_a_port(database: Database) -> None:
    house = await Two(database).fill()
    ranges = ["20000-20004", "20003-20006", "20002-20003", "20004-20008"]
    won, lost = await both(*(house.made(source={"port_range": one}) for one in ranges))
    assert won
    assert {getattr(error, "code", error) for error in lost} <= {"port_leased"}
    ports = [port for one in won for port in one.source.ports]
    assert len(ports) == len(set(ports))
    assert {port for _, port in await house.leases()} == set(ports)


async def test_any_port_gives_everybody_one_of_their_own(database: Database) -> None:
    # Everybody begins with the same choice, the worst case.
    rules = PortRules(range(20_000, 20_006), pick=lambda low, _high: low)
    house = await Two(database, rules=rules).fill()
    won, lost = await both(*(house.made() for _ in range(6)))
    assert lost == []
    assert sorted(one.source.port for one in won) == list(range(20_000, 20_006))


async def test_the_cap_holds_for_many_at_once(database: Database) -> None:
    house = await Two(database, max_per_user=3).fill()
    won, lost = await both(*(house.made() for _ in range(8)))
    assert len(won) == 3
    assert {type(error) for error in lost} == {TooManyRequests}
    assert len(await house.leases()) == 3


async def test_one_name_is_given_once(database: Database) -> None:
    house = await Two(database).fill()
    won, lost = await both(*(house.made(name="ssh") for _ in range(4)))
    assert len(won) == 1
    assert {getattr(error, "code", error) for error in lost} == {"name_taken"}


async def test_two_nodes_changing_one_mapping(database: Database) -> None:
    """Each node has its own turns; the database sees that nobody's change is lost unseen."""
    house = await Two(database).fill()
    other = Two(database)
    made = await house.made()
    other.entries.opened[made.id] = made
    won, lost = await both(
        house.mappings.update(house.ada, made.id, {"limits": {"bandwidth": 7}}),
        other.mappings.update(house.ada, made.id, {"limits": {"connections": 8}}),
    )
    found = await house.mappings.get(house.ada, made.id)
    assert found.version == 1 + len(won)
    assert {getattr(error, "code", error) for error in lost} <= {"changed_meanwhile"}


async def test_a_group_that_grows_while_its_first_leaves(database: Database) -> None:
    house = await Two(database).fill()
    first = await house.made(group="web", source={"port": 20_005})
    results = await asyncio.gather(
        house.made(group="web"),
        house.made(group="web"),
        house.mappings.delete(house.ada, first.id),
        return_exceptions=True,
    )
    made = [one for one in results if isinstance(one, Mapping)]
    ports = {one.source.port for one in made}
    leased = {port for _, port in await house.leases()}
    assert ports == leased, results


async def test_everything_comes_back_as_it_was_stored(database: Database) -> None:
    house = await Two(database).fill()
    made = await house.mappings.create(
        house.ada,
        {
            "protocol": "socks5", "target_client_id": house.box, "name": "Прокси",
            "source": {"port": 20_001, "bind": "::1"},
            "limits": {"bandwidth": 10**12, "connections": 1, "burst": 5},
            "options": {
                "username": "ünal", "password": "päss 🚇", "allow_ips": ["::/0"],
                "compression": "adaptive", "idle_timeout": 0.5 + 1,
            },
            "group": "g", "balance": "least_connections",
        },
    )  # fmt: skip
    assert await house.mappings.get(house.ada, made.id) == made
    tried = await house.mappings.create(
        house.ada,
        {
            "protocol": "tcp", "target_client_id": house.box, "target_port": 80,
            "group": "h", "health": {"type": "http", "path": "/ok", "interval": 3, "fall": 4},
        },
    )  # fmt: skip
    assert await house.mappings.get(house.ada, tried.id) == tried
    assert tried.balancing.health is not None
    await house.mappings.delete(house.ada, tried.id)
    await house.mappings.add_usage(made.id, sent=2**40, received=2**41, last_active_at=1.25)
    found = await house.mappings.get(house.ada, made.id)
    assert (found.bytes_sent, found.bytes_received, found.last_active_at) == (2**40, 2**41, 1.25)
    later = await house.mappings.update(house.ada, made.id, {"status": "disabled"})
    assert later.bytes_sent == 2**40
    await house.mappings.delete(house.ada, made.id)
    assert await house.leases() == {}


async def test_another_gateways_key_opens_no_password(database: Database) -> None:
    house = await Two(database).fill()
    login = {"username": "a", "password": "b"}
    made = await house.mappings.create(
        house.ada, {"protocol": "socks5", "target_client_id": house.box, "options": login}
    )
    house.mappings._store._seals = AgentSecrets(database, b"x" * 32)
    with pytest.raises(Exception, match="cannot be decrypted"):
        await house.mappings.get(house.ada, made.id)
