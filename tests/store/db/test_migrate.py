"""Migrations: complete, safe when nodes start together, safe when killed, never backwards."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from underpass.core.errors import Unavailable
from underpass.store.db import migrate as migrations
from underpass.store.db.database import Database, DatabaseError
from underpass.store.db.migrate import current_revision, head_revision, migrate
from underpass.store.db.models import Base
from underpass.store.db.schema_difference import schema_difference

_OPEN = """
import asyncio, sys
from underpass.store.db.database import Database
async def main():
    database = await Database.open(sys.argv[1])
    await database.ping()
    await database.close()
sys.stdin.readline()
asyncio.run(main())
"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """One of its own for each test: these change the schema."""
    opened = await Database.open(database_url)
    yield opened
    await opened.close()


async def test_the_migrations_make_what_the_models_say(database: Database) -> None:
    async with database.engine.connect() as connection:
        assert await connection.run_sync(schema_difference) == []
        assert await current_revision(connection) == head_revision()


async def test_a_difference_would_be_noticed(database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE recordings DROP COLUMN height"))
    async with database.engine.connect() as connection:
        difference = await connection.run_sync(schema_difference)
    assert [(op[0], op[3].name) for op in difference] == [("add_column", "height")]


async def test_a_second_run_does_nothing(database: Database) -> None:
    assert await migrate(database.engine) is False


def test_processes_that_start_together_are_safe(database_url: str) -> None:
    nodes = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for node in nodes:  # all have imported by now or soon; let them go together
        assert node.stdin is not None
        node.stdin.write(b"go\n")
        node.stdin.flush()
    outputs = [node.communicate(timeout=90) for node in nodes]
    assert [node.returncode for node in nodes] == [0] * 4, outputs
    migrated = sum((out + err).count(b"database_migrated") for out, err in outputs)
    assert migrated == 1


async def test_databases_opened_at_once_in_one_process_are_safe(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / f'{number}.db'}" for number in range(4)]
    opened = await asyncio.gather(*(Database.open(url) for url in urls * 2))
    for database in opened:
        async with database.engine.connect() as connection:
            assert await connection.run_sync(schema_difference) == []
        await database.close()


async def test_a_half_done_migration_is_finished(database_url: str) -> None:
    """MySQL commits each CREATE TABLE by itself: a node killed half-way leaves some of them."""
    bare = await Database.open(database_url, migrations=False)
    async with bare.engine.begin() as connection:
        tables = [Base.metadata.tables[name] for name in ("assets", "users")]
        await connection.run_sync(lambda sync: tables[0].create(sync))
        await connection.run_sync(lambda sync: tables[1].create(sync))
    await bare.close()
    database = await Database.open(database_url)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(schema_difference) == []
    await database.close()


async def test_a_newer_schema_is_refused(database: Database, database_url: str) -> None:
    async with database.session() as db:
        await db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError) as refused:
        await Database.open(database_url)
    assert refused.value.code == "database_newer"
    assert "newer Underpass" in str(refused.value)
    assert "Upgrade" in str(refused.value)


async def test_a_lock_that_is_never_given_up_is_told(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_LOCK_TIMEOUT", 0.2)
    holder = await Database.open(database_url, migrations=False)
    other = await Database.open(database_url, migrations=False)
    async with migrations._lock(holder.engine):
        with pytest.raises(Unavailable) as refused:
            await migrate(other.engine)
    assert refused.value.code == "database_locked"
    assert await migrate(other.engine) is True
    await holder.close()
    await other.close()


async def test_down_and_up_again(database: Database) -> None:
    from alembic import command

    async with database.engine.connect() as connection:
        await connection.run_sync(lambda sync: command.downgrade(migrations._config(sync), "base"))
        await connection.commit()
    assert await migrate(database.engine) is True
    async with database.engine.connect() as connection:
        assert await connection.run_sync(schema_difference) == []
