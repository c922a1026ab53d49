"""The one way to the database: an engine for SQLite, PostgreSQL or MySQL/MariaDB, and sessions.

Addresses carry no driver names (``sqlite:///path``, ``postgresql://…``, ``mysql://…``); the driver
is ours to choose. All three behave alike: READ COMMITTED or stricter, conditional ``UPDATE`` counts
matched rows, and a session is one transaction.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from underpass.core.errors import Unavailable, UnderpassError
from underpass.store.db.migrate import migrate

__all__ = ["Database", "DatabaseError", "driver_url"]

_log = structlog.get_logger(__name__)

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mysql+aiomysql",
}
_CONNECT_TIMEOUT = 10.0
_BUSY_TIMEOUT = 15.0
"""Seconds a writer waits for its turn on SQLite before it gives up."""


class DatabaseError(UnderpassError):
    """The database cannot be used at all; the command line prints it and exits 2."""

    code, status, close_code = "database_unusable", 503, 4500


def driver_url(url: str) -> URL:
    """*url* with the async driver of its family.

    Raises:
        DatabaseError: the address is malformed or of a family we do not know.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise DatabaseError(
            "The database address is not a URL.",
            code="database_url",
            hint="Use sqlite:///PATH, postgresql://… or mysql://….",
        ) from None
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise DatabaseError(
            f"The database family {parsed.get_backend_name()!r} is not supported.",
            code="database_url",
            hint="Use sqlite:///PATH, postgresql://… or mysql://….",
        )
    parsed = parsed.set(drivername=driver)
    if driver.startswith("mysql"):
        parsed = parsed.update_query_dict({"charset": "utf8mb4"})
    return parsed


class Database:
    """An open database. Make one with :meth:`open`; end it with :meth:`close`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._reader = engine.execution_options(underpass_read=True)
        self._sqlite_turn = asyncio.Lock() if engine.dialect.name == "sqlite" else None

    @classmethod
    async def open(cls, url: str, *, pool_size: int = 10, migrations: bool = True) -> Database:
        """Connect to *url* and bring the schema up to date under a lock.

        Args:
            url: ``sqlite:///path``, ``sqlite://`` (memory, for tests), ``postgresql://…``,
                ``mysql://…`` or ``mariadb://…``.
            pool_size: connections kept at most.
            migrations: run them; tests of the migrations themselves say ``False``.

        Raises:
            DatabaseError: unreachable, unwritable, or made by a newer Underpass; one line.
        """
        parsed = driver_url(url)
        engine = _make_engine(parsed, pool_size)
        database = cls(engine)
        shown = make_url(url).render_as_string()
        try:
            await database.ping(_CONNECT_TIMEOUT)
            if migrations:
                await migrate(engine)
        except UnderpassError as error:
            await engine.dispose()
            if isinstance(error, DatabaseError):
                raise
            raise DatabaseError(
                f"The database {shown} cannot be used: {error.message}",
                code=error.code,
                hint=error.hint,
            ) from error
        except (SQLAlchemyError, OSError) as error:
            await engine.dispose()
            raise DatabaseError(
                f"The database {shown} cannot be used: {_one_line(error)}.",
                hint="Check the address, the permissions and that the server runs.",
            ) from error
        except BaseException:
            await engine.dispose()
            raise
        return database

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql`` (also for MariaDB)."""
        return self.engine.dialect.name

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A transaction that may write: committed at the end, rolled back on any exception.

        On SQLite writers take turns inside the process and start with ``BEGIN IMMEDIATE``, so
        that what was read cannot have changed before it is written. Do not open a second
        writing session inside one (pass the first along).

        Raises:
            Unavailable: another writer held SQLite for longer than 15 s.
        """
        if self._sqlite_turn is not None:
            try:
                async with asyncio.timeout(_BUSY_TIMEOUT):
                    await self._sqlite_turn.acquire()
            except TimeoutError:
                raise Unavailable(
                    "The database is busy.", code="database_busy", retry_after=1.0
                ) from None
        try:
            async with (
                AsyncSession(self.engine, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session
        finally:
            if self._sqlite_turn is not None:
                self._sqlite_turn.release()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A transaction that only reads; on SQLite it runs beside a writer, without waiting."""
        async with AsyncSession(self._reader, expire_on_commit=False) as session, session.begin():
            yield session

    async def ping(self, timeout: float = 3.0) -> None:
        """Ask the database for one answer.

        Raises:
            Unavailable: no answer within *timeout* seconds, or the connection failed.
        """
        try:
            async with asyncio.timeout(timeout), self._reader.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise Unavailable(
                f"{_one_line(error)}.",
                code="database_unreachable",
                hint="Check the address, the permissions and that the server runs.",
            ) from error

    async def close(self) -> None:
        """Give every connection back. Safe to call twice."""
        await self.engine.dispose()


def _make_engine(url: URL, pool_size: int) -> AsyncEngine:
    if url.get_backend_name() == "sqlite":
        return _make_sqlite_engine(url, pool_size)
    options: dict[str, Any] = {}
    if url.get_backend_name() == "mysql":
        # Like PostgreSQL's default, so that a re-read after a lost race sees the winner's row.
        options["isolation_level"] = "READ COMMITTED"
        options["connect_args"] = {"connect_timeout": _CONNECT_TIMEOUT}
    else:
        options["connect_args"] = {"timeout": _CONNECT_TIMEOUT}
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_recycle=1800,
        pool_timeout=_BUSY_TIMEOUT,
        **options,
    )


def _make_sqlite_engine(url: URL, pool_size: int) -> AsyncEngine:
    memory = url.database in {None, "", ":memory:"}
    if not memory:
        parent = Path(str(url.database)).parent
        if not parent.is_dir():
            raise DatabaseError(
                f"The directory {parent} for the SQLite database does not exist.",
                code="database_path",
                hint="Make it, or give another path with --database.",
            )
        _make_private(Path(str(url.database)))
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        # A memory database lives in its one connection; everybody waits for that one.
        pool_size=1 if memory else pool_size,
        max_overflow=0,
        pool_timeout=_BUSY_TIMEOUT,
    )

    def on_connect(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: we say BEGIN IMMEDIATE where we write.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={int(_BUSY_TIMEOUT * 1000)}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    def on_begin(connection: Any) -> None:
        reads = connection.get_execution_options().get("underpass_read", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "begin", on_begin)
    return engine


def _make_private(path: Path) -> None:
    """Create the file readable by its owner only; SQLite's side files take the same mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise DatabaseError(
            f"The SQLite database {path} cannot be written: {error.strerror}.",
            code="database_path",
            hint="Give a path you may write with --database or --state.",
        ) from error


def _one_line(error: BaseException) -> str:
    """The driver's own first line, without SQL, parameters or links to manuals."""
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(cause).strip().splitlines()
    return (lines[0] if lines else type(cause).__name__).rstrip(".")[:300]
