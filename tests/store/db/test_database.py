"""The database opens on every family, refuses in one line, and keeps its transactions apart."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from underpass.core.errors import Unavailable
from underpass.store.db.database import Database, DatabaseError, driver_url
from underpass.store.db.models import KeyValue


def test_urls_need_no_driver_name() -> None:
    assert driver_url("sqlite:///x.db").drivername == "sqlite+aiosqlite"
    assert driver_url("postgresql://u@h/d").drivername == "postgresql+asyncpg"
    assert driver_url("postgres://u@h/d").drivername == "postgresql+asyncpg"
    mysql = driver_url("mysql://u@h/d")
    assert mysql.drivername == "mysql+aiomysql"
    assert mysql.query["charset"] == "utf8mb4"
    assert driver_url("mariadb://u@h/d").drivername == "mysql+aiomysql"


@pytest.mark.parametrize("url", ["", "nonsense", "oracle://u@h/d", "mysql://h:port/d"])
def test_an_address_we_cannot_use_is_refused_with_what_to_use(url: str) -> None:
    with pytest.raises(DatabaseError) as refused:
        driver_url(url)
    assert refused.value.code == "database_url"
    assert "sqlite:///" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://someone:hunter2@127.0.0.1:1/x",
        "mysql://someone:hunter2@127.0.0.1:1/x",
        "sqlite:////nowhere/at/all/x.db",
        "sqlite:////proc/x.db",
    ],
)
async def test_an_unusable_database_is_one_line_without_the_password(url: str) -> None:
    with pytest.raises(DatabaseError) as refused:
        await Database.open(url)
    line = str(refused.value)
    assert "\n" not in line
    assert "hunter2" not in line
    assert refused.value.hint


async def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"this is not a database, surely not" * 100)
    with pytest.raises(DatabaseError) as refused:
        await Database.open(f"sqlite:///{path}")
    assert "not a database" in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_database_that_does_not_exist_is_one_line(postgresql_url: str) -> None:
    with pytest.raises(DatabaseError) as refused:
        await Database.open(postgresql_url + "_missing")
    assert "does not exist" in str(refused.value)


async def test_the_sqlite_file_is_private_and_in_wal_mode(sqlite_url: str) -> None:
    database = await Database.open(sqlite_url)
    path = sqlite_url.removeprefix("sqlite:///")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(path + "-wal").st_mode) == 0o600
    async with database.reading() as db:
        for pragma, value in [
            ("journal_mode", "wal"),
            ("foreign_keys", 1),
            ("synchronous", 1),
            ("busy_timeout", 15000),
        ]:
            assert await db.scalar(text(f"PRAGMA {pragma}")) == value, pragma
    await database.close()


async def test_a_session_commits_or_rolls_back_whole(database: Database) -> None:
    async with database.session() as db:
        db.add(KeyValue(key="a", value="é✓", updated_at=1.25))
    with pytest.raises(RuntimeError):
        async with database.session() as db:
            db.add(KeyValue(key="b", value="2", updated_at=1))
            await db.flush()
            raise RuntimeError("no")
    async with database.reading() as db:
        rows = (await db.scalars(select(KeyValue))).all()
    assert [(row.key, row.value, row.updated_at) for row in rows] == [("a", "é✓", 1.25)]


async def test_text_is_compared_byte_by_byte(database: Database) -> None:
    async with database.session() as db:
        db.add(KeyValue(key="a", value="1", updated_at=1))
        db.add(KeyValue(key="A", value="2", updated_at=1))
        db.add(KeyValue(key="á", value="3", updated_at=1))
    async with database.reading() as db:
        assert (await db.scalars(select(KeyValue.value).where(KeyValue.key == "A"))).all() == ["2"]


async def test_many_writers_lose_no_update(database: Database) -> None:
    async with database.session() as db:
        db.add(KeyValue(key="count", value="0", updated_at=0))

    async def add_one() -> None:
        async with database.session() as db:
            await db.execute(
                update(KeyValue)
                .where(KeyValue.key == "count")
                .values(updated_at=KeyValue.updated_at + 1)
            )

    await asyncio.gather(*(add_one() for _ in range(50)))
    async with database.reading() as db:
        row = await db.get(KeyValue, "count")
    assert row is not None
    assert row.updated_at == 50


async def test_a_reader_does_not_wait_for_a_writer(sqlite_url: str) -> None:
    database = await Database.open(sqlite_url)
    async with database.session() as writer:
        writer.add(KeyValue(key="a", value="1", updated_at=0))
        await writer.flush()
        async with asyncio.timeout(2), database.reading() as reader:
            assert (await reader.scalars(select(KeyValue))).all() == []
    await database.close()


async def test_a_writer_that_never_gets_its_turn_is_told(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underpass.store.db.database._BUSY_TIMEOUT", 0.05)
    database = await Database.open(sqlite_url)
    async with database.session():
        with pytest.raises(Unavailable) as refused:
            async with database.session():
                pass
    assert refused.value.code == "database_busy"
    async with database.session():
        pass
    await database.close()


async def test_a_memory_database_keeps_its_rows_between_sessions() -> None:
    database = await Database.open("sqlite://")
    async with database.session() as db:
        db.add(KeyValue(key="a", value="1", updated_at=0))
    async with database.reading() as db:
        assert await db.get(KeyValue, "a") is not None
    assert database.dialect == "sqlite"
    await database.close()
    await database.close()


async def test_ping_tells_a_dead_database(database: Database) -> None:
    await database.ping()
    gone = Database(database.engine.execution_options())
    await gone.ping(5)
    with pytest.raises(Unavailable) as refused:
        await gone.ping(0)
    assert refused.value.code == "database_unreachable"
