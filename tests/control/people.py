"""The services of people over a database of their own, with a clock that tests turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.migrated import migrated_file
from underpass.control.api_tokens import ApiTokens
from underpass.control.events import EventFilter, Events
from underpass.control.live import LiveBus
from underpass.control.passwords import Passwords
from underpass.control.rate_limits import RateLimits
from underpass.control.setup import Setup
from underpass.control.sign_in import Login, SignIn
from underpass.control.subject import Role, Subject
from underpass.control.users import Users
from underpass.core.clock import ManualClock
from underpass.store.db.database import Database
from underpass.store.kv import MemoryStore

PASSWORD = "correct horse battery staple"
HOME = "192.0.2.1"
AWAY = "198.51.100.7"


@dataclass
class People:
    clock: ManualClock
    database: Database
    kv: MemoryStore
    bus: LiveBus
    events: Events
    limits: RateLimits
    passwords: Passwords
    users: Users
    sign_in: SignIn
    setup: Setup
    api_tokens: ApiTokens

    async def first_admin(self, username: str = "ada") -> Subject:
        assert await self.setup.complete_from_settings(username, PASSWORD)
        return await self.subject(username)

    async def add(self, by: Subject, username: str, role: Role = "user") -> Subject:
        await self.users.create(by, username=username, password=PASSWORD, role=role)
        return await self.subject(username)

    async def login(self, username: str, password: str = PASSWORD, ip: str = HOME) -> Login:
        return await self.sign_in.sign_in(username, password, ip=ip, user_agent="test")

    async def subject(self, username: str) -> Subject:
        """A fresh login of *username*, as routes see it."""
        login = await self.login(username)
        return (await self.sign_in.identify(login.token)).subject

    async def event_types(self, **wanted: str) -> list[str]:
        """Sorted by name: with a clock that stands still, events have no order of their own."""
        items, _ = await self.events.page(
            EventFilter(**wanted), page=1, page_size=500, newest_first=False
        )
        return sorted(item["type"] for item in items)


@asynccontextmanager
async def make_people(directory: Path, given: Database | None = None) -> AsyncIterator[People]:
    """People over *given*, or over an SQLite file of their own in *directory*."""
    clock = ManualClock()
    database = given or await Database.open(migrated_file(directory / "people.db"))
    kv, bus = MemoryStore(clock), LiveBus()
    events = Events(database, clock, bus)
    passwords = Passwords(memory_kib=64, time_cost=1)
    sign_in = SignIn(database, clock, kv=kv, events=events, bus=bus, passwords=passwords)
    try:
        yield People(
            clock=clock,
            database=database,
            kv=kv,
            bus=bus,
            events=events,
            limits=RateLimits(kv, clock),
            passwords=passwords,
            users=Users(database, clock, events=events, bus=bus, passwords=passwords),
            sign_in=sign_in,
            setup=Setup(
                database, clock, kv=kv, events=events, passwords=passwords, sign_in=sign_in
            ),
            api_tokens=ApiTokens(database, clock, events=events, bus=bus),
        )
    finally:
        passwords.close()
        if given is None:
            await database.close()
