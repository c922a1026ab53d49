"""Real PostgreSQL and MariaDB as child processes: started once per test run, a fresh database each.

``postgresql_url`` and ``mariadb_url`` give the URL of an empty database; ``database_url`` is
parametrised over all three families, ``database`` is an open, migrated one. A missing program
skips with ``needs …``; CI installs them and fails on a skip.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from tests.migrated import aside, migrated_file
from tests.ports import free_port
from underpass.store.db.database import Database
from underpass.store.db.models import Base

_SEARCH = os.environ["PATH"] + ":/usr/sbin:/sbin:/usr/local/sbin"
_START_TIMEOUT = 60.0


class Service:
    """A server of a database family, and how to make an empty database on it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        port: int,
        make: Callable[[int, str], Coroutine[Any, Any, None]],
        url: str,
    ) -> None:
        self.process = process
        self.port = port
        self._make = make
        self._url = url
        self._migrated: str | None = None

    def fresh_url(self) -> str:
        """The URL of a new, empty database."""
        name = f"t_{uuid.uuid4().hex}"
        aside(self._make(self.port, name))
        return self._url.format(port=self.port, name=name)

    def migrated_url(self) -> str:
        """The URL of the one database that tests share, one after the other."""
        if self._migrated is None:
            self._migrated = self.fresh_url()
            aside(_migrate(self._migrated))
        return self._migrated

    def stop(self) -> None:
        """End the server (fast: nothing in it is worth keeping)."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


def _need(program: str, *more_places: str) -> str:
    found = shutil.which(program, path=":".join([*more_places, _SEARCH]))
    if found is None:
        pytest.skip(f"needs {program}")
    return found


def _directory(name: str, owner: str | None = None) -> Path:
    path = Path(tempfile.mkdtemp(prefix=f"underpass-{name}-"))
    path.chmod(0o755)
    if owner is not None:
        os.chown(path, pwd.getpwnam(owner).pw_uid, -1)
    return path


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def _spawn(arguments: list[str], log: Path, **options: Any) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            **options,
        )


def _start_postgresql() -> tuple[Service, Path]:
    places = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    initdb, postgres = _need("initdb", *places), _need("postgres", *places)
    # PostgreSQL refuses to run as root, so root becomes the user its package made.
    root = os.getuid() == 0
    options: dict[str, Any] = (
        {"user": "postgres", "group": "postgres", "extra_groups": []} if root else {}
    )
    directory = _directory("postgresql", "postgres" if root else None)
    data, port = str(directory / "data"), free_port()
    subprocess.run(
        [initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8",
         "--locale=C.UTF-8"],
        check=True, capture_output=True, cwd="/", timeout=60, **options,
    )  # fmt: skip
    log = directory / "log"
    process = _spawn(
        [postgres, "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1",
         "-k", str(directory), "-c", "fsync=off", "-c", "max_connections=200"],
        log, **options,
    )  # fmt: skip
    _await_port(port, process, log)
    url = "postgresql://postgres@127.0.0.1:{port}/{name}"
    return Service(process, port, _make_postgresql, url), directory


async def _make_postgresql(port: int, name: str) -> None:
    import asyncpg

    deadline = time.monotonic() + 20
    while True:
        try:
            connection = await asyncpg.connect(host="127.0.0.1", port=port, user="postgres")
            break
        except (asyncpg.CannotConnectNowError, OSError):
            # The port is open a moment before recovery is over.
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()


def _start_mariadb() -> tuple[Service, Path]:
    install, mariadbd = _need("mariadb-install-db"), _need("mariadbd")
    directory = _directory("mariadb")
    data, port = directory / "data", free_port()
    user = ["--user=root"] if os.getuid() == 0 else []
    subprocess.run(
        [install, "--no-defaults", f"--datadir={data}", "--skip-test-db",
         "--auth-root-authentication-method=normal", *user],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    log = directory / "log"
    process = _spawn(
        [mariadbd, "--no-defaults", f"--datadir={data}", f"--port={port}",
         "--bind-address=127.0.0.1", f"--socket={directory}/s", f"--pid-file={directory}/pid",
         "--innodb-flush-log-at-trx-commit=0", "--max-connections=300", *user],
        log,
    )  # fmt: skip
    _await_port(port, process, log)
    return Service(process, port, _make_mariadb, "mysql://root@127.0.0.1:{port}/{name}"), directory


async def _make_mariadb(port: int, name: str) -> None:
    import aiomysql

    connection = await aiomysql.connect(host="127.0.0.1", port=port, user="root")
    async with connection.cursor() as cursor:
        await cursor.execute(f"CREATE DATABASE `{name}`")
    connection.close()


def _serving(start: Callable[[], tuple[Service, Path]]) -> Iterator[Service]:
    service, directory = start()
    try:
        yield service
    finally:
        service.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql_service() -> Iterator[Service]:
    yield from _serving(_start_postgresql)


@pytest.fixture(scope="session")
def mariadb_service() -> Iterator[Service]:
    yield from _serving(_start_mariadb)


@pytest.fixture
def postgresql_url(postgresql_service: Service) -> str:
    """The URL of an empty PostgreSQL database."""
    return postgresql_service.fresh_url()


@pytest.fixture
def mariadb_url(mariadb_service: Service) -> str:
    """The URL of an empty MariaDB database."""
    return mariadb_service.fresh_url()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'underpass.db'}"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database, once per family."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """An open, migrated database without a row in it, once per family.

    Migrating takes seconds on a busy machine, so a server's database is emptied and used again.
    """
    if request.param == "sqlite":
        url = migrated_file(tmp_path / "underpass.db")
    else:
        url = request.getfixturevalue(f"{request.param}_service").migrated_url()
    opened = await Database.open(url, migrations=False)
    try:
        if request.param != "sqlite":
            async with opened.session() as db:
                for table in reversed(Base.metadata.sorted_tables):
                    await db.execute(delete(table))
        yield opened
    finally:
        await opened.close()


async def _migrate(url: str) -> None:
    await (await Database.open(url)).close()
