"""The tables of mappings come to a database that was there before, and come whole."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from underpass.store.db import migrate as migrations
from underpass.store.db.database import Database
from underpass.store.db.mapping_models import MappingRow, PortLease
from underpass.store.db.models import Agent
from underpass.store.db.schema_difference import schema_difference

MACHINE_THEN = (
    "INSERT INTO assets (id, name, client_public_key, key_fingerprint, hostname, labels, "
    "allowed_users, status, created_at, updated_at, is_deleted, static_info, dynamic_info, "
    "agent_secret_key) VALUES ('a-1', 'box', '', '', 'box', '{}', '[]', 'online', 0, 0, "
    "FALSE, '{}', '{}', '')"
)
"""In the columns of the first version; the model has more by now."""


def machine() -> Agent:
    return Agent(
        id="a-1", name="box", client_public_key="", key_fingerprint="", hostname="box", labels={},
        allowed_users=[], status="online", created_at=0.0, updated_at=0.0, is_deleted=False,
        static_info={}, dynamic_info={}, agent_secret_key="",
    )  # fmt: skip


async def first_version(url: str) -> Database:
    """A database of the first version, with one machine in it."""
    bare = await Database.open(url, migrations=False)
    async with bare.engine.connect() as connection:
        await connection.run_sync(lambda sync: command.upgrade(migrations._config(sync), "0001"))
        await connection.commit()
    async with bare.session() as db:
        await db.execute(text(MACHINE_THEN))
    return bare


@pytest.mark.parametrize("half_done", [False, True])
async def test_an_older_database_gets_them(database_url: str, half_done: bool) -> None:
    bare = await first_version(database_url)
    if half_done:
        async with bare.engine.begin() as connection:
            await connection.run_sync(lambda sync: MappingRow.__table__.create(sync))  # type: ignore[attr-defined]
    await bare.close()
    database = await Database.open(database_url)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(schema_difference) == []
        assert (await connection.execute(text("SELECT name FROM assets"))).scalar() == "box"
    await database.close()


def lease(port: int, mapping_id: str) -> PortLease:
    return PortLease(
        place="gateway", transport="tcp", port=port, mapping_id=mapping_id, user_id="u",
        leased_at=0.0,
    )  # fmt: skip


async def test_the_database_itself_gives_a_port_once(database: Database) -> None:
    async with database.session() as db:
        db.add(machine())
        await db.flush()
        for number in (1, 2):
            db.add(
                MappingRow(
                    id=f"m-{number}", name=f"m{number}", user_id="u", protocol="tcp",
                    source_kind="port", source_port=1, target_agent_id="a-1", status="active",
                    limits={}, options={}, balancing={}, version=1, created_at=0.0,
                    updated_at=0.0, total_connections=0, bytes_sent=0, bytes_received=0,
                )
            )  # fmt: skip
        await db.flush()
        db.add(lease(7000, "m-1"))
    with pytest.raises(IntegrityError):
        async with database.session() as db:
            db.add(lease(7000, "m-2"))
    with pytest.raises(IntegrityError):
        async with database.session() as db:
            db.add(lease(7001, "no such mapping"))
