"""A database that was there before learns of declared mappings, and keeps what it had."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from tests.store.db.test_mapping_models import MACHINE_THEN, lease, machine
from underpass.store.db import migrate as migrations
from underpass.store.db.database import Database
from underpass.store.db.mapping_models import MappingRow, PortLease
from underpass.store.db.models import Agent
from underpass.store.db.schema_difference import schema_difference

_MAPPING = (
    "INSERT INTO mappings (id, name, user_id, protocol, source_kind, source_port, "
    "target_agent_id, status, limits, options, balancing, version, created_at, updated_at, "
    "total_connections, bytes_sent, bytes_received) VALUES ('m-1', 'ssh', 'u', 'tcp', 'port', "
    "7000, 'a-1', 'active', '{}', '{}', '{}', 3, 0, 0, 1, 2, 3)"
)
_LEASE = (
    "INSERT INTO port_leases (place, transport, port, mapping_id, user_id, leased_at) "
    "VALUES ('gateway', 'tcp', 7000, 'm-1', 'u', 0)"
)


def mapping(number: int, declared_by: str) -> MappingRow:
    return MappingRow(
        id=f"m-{number}", name="ssh", user_id="u", protocol="tcp", source_kind="port",
        source_port=1, target_agent_id="a-1", status="active", limits={}, options={}, balancing={},
        version=1, declared_by=declared_by, created_at=0.0, updated_at=0.0, total_connections=0,
        bytes_sent=0, bytes_received=0,
    )  # fmt: skip


async def before_it(url: str) -> Database:
    """A database of the version before, with a machine, a mapping and its lease."""
    bare = await Database.open(url, migrations=False)
    async with bare.engine.connect() as connection:
        await connection.run_sync(lambda sync: command.upgrade(migrations._config(sync), "0004"))
        await connection.commit()
    async with bare.session() as db:
        for statement in (MACHINE_THEN, _MAPPING, _LEASE):
            await db.execute(text(statement))
    return bare


@pytest.mark.parametrize("half_done", [False, True])
async def test_an_older_database_keeps_its_mappings(database_url: str, half_done: bool) -> None:
    bare = await before_it(database_url)
    if half_done:
        async with bare.session() as db:
            await db.execute(text("ALTER TABLE assets ADD COLUMN let_in_by VARCHAR(36)"))
    await bare.close()
    database = await Database.open(database_url)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(schema_difference) == []
    async with database.session() as db:
        row = await db.scalar(select(MappingRow))
        assert row is not None
        assert (row.name, row.version, row.bytes_received, row.declared_by) == ("ssh", 3, 3, "")
        assert (await db.scalars(select(PortLease.mapping_id))).all() == ["m-1"]
        agent = await db.scalar(select(Agent))
        assert agent is not None
        assert (agent.may_declare, agent.let_in_by) == (False, None)
    with pytest.raises(IntegrityError):  # the lease still holds on to its mapping
        async with database.session() as db:
            await db.execute(text("DELETE FROM mappings"))
    await database.close()


async def test_each_machine_may_declare_a_name_once(database: Database) -> None:
    async with database.session() as db:
        db.add(machine())
        await db.flush()
        db.add_all([mapping(1, ""), mapping(2, "a-1"), mapping(3, "a-2")])
    for declared_by in ("", "a-1"):
        with pytest.raises(IntegrityError):
            async with database.session() as db:
                db.add(mapping(4, declared_by))


async def test_going_back_forgets_what_machines_declare(database_url: str) -> None:
    database = await Database.open(database_url)
    async with database.session() as db:
        db.add(machine())
        await db.flush()
        db.add_all([mapping(1, ""), mapping(2, "a-1")])
        await db.flush()
        db.add_all([lease(7000, "m-1"), lease(7001, "m-2")])
    async with database.engine.connect() as connection:
        await connection.run_sync(lambda sync: command.downgrade(migrations._config(sync), "0004"))
        await connection.commit()
    async with database.session() as db:
        assert (await db.execute(text("SELECT id FROM mappings"))).scalars().all() == ["m-1"]
        assert (await db.execute(text("SELECT port FROM port_leases"))).scalars().all() == [7000]
    await database.close()
