"""SQLite databases that have the schema already, for tests that are not about migrating.

Migrating an empty one takes a fifth of a second and half of that again under coverage: more than
most tests themselves. So each process migrates once, and the others are copies.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from underpass.store.db.database import Database

__all__ = ["aside", "migrated_file", "migrated_in_memory"]


def migrated_file(path: Path) -> str:
    """The URL of *path*, which is made with the schema and without a row unless it is there."""
    if not path.exists():
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        path.touch(0o600)
        path.write_bytes(_file())
    return f"sqlite:///{path}"


async def migrated_in_memory() -> Database:
    """An open database that lives in memory, with the schema and without a row."""
    database = await Database.open("sqlite://", migrations=False)
    async with database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.executescript(_script())
    return database


@functools.cache
def _file() -> bytes:
    with tempfile.TemporaryDirectory(prefix="underpass-migrated-") as directory:
        path = Path(directory) / "underpass.db"

        async def migrate() -> None:
            await (await Database.open(f"sqlite:///{path}")).close()

        aside(migrate())
        return path.read_bytes()


@functools.cache
def _script() -> str:
    with tempfile.TemporaryDirectory(prefix="underpass-migrated-") as directory:
        path = Path(directory) / "underpass.db"
        path.write_bytes(_file())
        connection = sqlite3.connect(path)
        try:
            return "\n".join(connection.iterdump())
        finally:
            connection.close()


def aside(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run on a loop of its own thread: fixtures may be asked for inside a running loop."""
    failure: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(coroutine)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(30)
    if failure:
        raise failure[0]
    assert not thread.is_alive(), "the database did not answer"
