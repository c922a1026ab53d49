"""Brings the schema up to date at start, under a lock, so that nodes starting at once are safe."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from underpass.core.errors import Conflict, Unavailable

__all__ = ["current_revision", "head_revision", "migrate"]

_log = structlog.get_logger(__name__)

_SCRIPTS = Path(__file__).parent / "migrations"
_LOCK_TIMEOUT = 60.0
"""Seconds to wait for another node that is migrating."""
_ADVISORY_KEY = 0x756E64657270  # "underp"
_MYSQL_LOCK = "underpass_migrations"

# Alembic's ``op`` is a module global: two migrations in one event loop must not interleave.
_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
    weakref.WeakKeyDictionary()
)


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def head_revision() -> str:
    """The schema revision this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


async def current_revision(connection: AsyncConnection) -> str | None:
    """The schema revision the database has; ``None`` for an empty one."""
    return await connection.run_sync(
        lambda sync: MigrationContext.configure(sync).get_current_revision()
    )


async def migrate(engine: AsyncEngine) -> bool:
    """Upgrade the schema to :func:`head_revision`; returns whether anything had to be done.

    Raises:
        Conflict: the schema is newer than this code, so running would damage it.
        Unavailable: another node kept the migration lock for more than 60 s.
        sqlalchemy.exc.SQLAlchemyError: the database refused.
    """
    head = head_revision()
    async with engine.connect() as connection:
        if _checked(await current_revision(connection), head) == head:
            return False
    turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    async with turn, _lock(engine) as connection:
        before = _checked(await current_revision(connection), head)
        if before == head:
            return False
        # The look above began a transaction of its own; the scripts want theirs.
        await connection.rollback()
        await connection.run_sync(_upgrade)
        await connection.commit()
        _log.info("database_migrated", before=before, after=head)
        return True


def _checked(revision: str | None, head: str) -> str | None:
    if revision is None or revision == head:
        return revision
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision not in known:
        raise Conflict(
            f"its schema ({revision}) was made by a newer Underpass than this one ({head}).",
            code="database_newer",
            hint="Upgrade Underpass, or restore the backup made before the upgrade.",
        )
    return revision


def _upgrade(connection: Connection) -> None:
    command.upgrade(_config(connection), "head")


@contextlib.asynccontextmanager
async def _lock(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection that holds the migration lock of *engine*'s database."""
    if engine.dialect.name == "sqlite":
        async with _file_lock(engine), engine.connect() as connection:
            yield connection
        return
    postgres = engine.dialect.name == "postgresql"
    take = "pg_try_advisory_lock(:key)" if postgres else "GET_LOCK(:key, 0)"
    give = "pg_advisory_unlock(:key)" if postgres else "RELEASE_LOCK(:key)"
    key: dict[str, Any] = {"key": _ADVISORY_KEY if postgres else _MYSQL_LOCK}
    if not postgres:
        key["key"] = f"{_MYSQL_LOCK}:{engine.url.database}"[:64]
    async with engine.connect() as connection:
        # Polled, because a *waiting* call would hold a snapshot that index builds wait for.
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while not (await connection.execute(text(f"SELECT {take}"), key)).scalar():
            await connection.rollback()
            await _pause(deadline)
        try:
            yield connection
        finally:
            # Rolled back first: after an error PostgreSQL takes no statement until then.
            await connection.rollback()
            await connection.execute(text(f"SELECT {give}"), key)
            await connection.commit()


@contextlib.asynccontextmanager
async def _file_lock(engine: AsyncEngine) -> AsyncIterator[None]:
    path = engine.url.database
    if path in {None, "", ":memory:"}:
        yield
        return
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await _pause(deadline)
        yield
    finally:
        os.close(descriptor)  # closing gives the lock back; the file stays, or it would race


async def _pause(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Unavailable(
            "another node has been migrating it for more than a minute.",
            code="database_locked",
            hint="Wait for that node, or end it.",
        )
    await asyncio.sleep(0.1)
