"""Session rows: caps, filters, who sees them, and that what is over stays over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.migrated import migrated_in_memory
from underpass.control.sessions import SessionFilter, Sessions, session_record
from underpass.control.subject import Role, Subject
from underpass.core.clock import ManualClock
from underpass.core.errors import NotFound, TooManyRequests
from underpass.core.ids import new_id
from underpass.store.db.database import Database
from underpass.store.db.models import Agent, TtySession, User

ADMIN = Subject("u-admin", "ada", "admin")


class Records:
    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.database = database
        self.sessions = Sessions(database, self.clock, per_user=2, per_agent=3)

    async def agent(self, **fields: Any) -> str:
        agent_id = new_id()
        async with self.database.session() as db:
            db.add(
                Agent(
                    id=agent_id, name="box", client_public_key="", key_fingerprint="",
                    hostname="box", labels={}, allowed_users=["u-1"], status="online",
                    created_at=0.0, updated_at=0.0, static_info={}, dynamic_info={},
                    agent_secret_key="", **{"is_deleted": False, **fields},
                )
            )  # fmt: skip
        return agent_id

    async def open(self, agent_id: str, user: str = "u-1", **fields: Any) -> str:
        session_id = new_id()
        await self.sessions.create(
            TtySession(
                id=session_id, asset_id=agent_id, user_id=user, username=user, created_at=0.0,
                **{"kind": "pty", "status": "active", "command": "bash", "cols": 80, "rows": 24,
                   **fields},
            )
        )  # fmt: skip
        return session_id


@pytest.fixture
async def records() -> AsyncIterator[Records]:
    database = await migrated_in_memory()
    yield Records(database)
    await database.close()


async def test_caps_count_what_is_not_over(records: Records) -> None:
    box, other = await records.agent(), await records.agent()
    first = await records.open(box, status="connecting")
    await records.open(other, status="detached")
    with pytest.raises(TooManyRequests) as refused:
        await records.open(box)
    assert refused.value.code == "too_many_sessions"
    assert refused.value.details == {"limit": 2}
    assert await records.sessions.end(first, status="closed", exit_code=0)
    await records.sessions.check_caps("u-1", box)
    for user in ("u-2", "u-3", "u-4"):
        await records.open(box, user)
    with pytest.raises(TooManyRequests, match="This machine has 3"):
        await records.sessions.check_caps("u-5", box)


async def test_what_is_over_is_not_changed_any_more(records: Records) -> None:
    session_id = await records.open(await records.agent())
    assert await records.sessions.end(session_id, status="error", error_message="x" * 5000)
    assert not await records.sessions.end(session_id, status="closed")
    assert not await records.sessions.change(session_id, status="active")
    row = await records.sessions.get(session_id)
    assert row is not None
    assert (row.status, len(row.error_message or "")) == ("error", 2000)
    assert row.ended_at == records.clock.now()
    record = session_record(row, observers=2)
    assert "token_hash" not in record
    assert record["observers"] == 2
    assert record["ended_at"].endswith("Z")


@pytest.mark.parametrize(("role", "sees"), [("admin", True), ("auditor", True), ("user", False)])
async def test_who_sees_what(records: Records, role: Role, sees: bool) -> None:
    session_id = await records.open(await records.agent())
    other = Subject("u-9", "zoe", role)
    owner = Subject("u-1", "u-1", "user")
    assert (await records.sessions.visible(owner, session_id)).id == session_id
    _, total = await records.sessions.page(other, SessionFilter(), offset=0, limit=10)
    assert total == int(sees)
    if not sees:
        with pytest.raises(NotFound):
            await records.sessions.visible(other, session_id)
    for missing in (new_id(), "../x"):
        with pytest.raises(NotFound):
            await records.sessions.visible(ADMIN, missing)


async def test_filters(records: Records) -> None:
    box, other = await records.agent(), await records.agent()
    first = await records.open(box, command="top")
    records.clock.advance(100)
    second = await records.open(other, "u-2", status="detached", kind="exec")
    third = await records.open(box, "u-2", status="connecting")
    await records.sessions.end(third, status="closed")
    now = records.clock.now()

    async def found(**wanted: Any) -> set[str]:
        rows, total = await records.sessions.page(
            ADMIN, SessionFilter(**wanted), offset=0, limit=10, order=("status", False)
        )
        assert total == len(rows)
        return {row.id for row in rows}

    assert await found() == {first, second, third}
    assert await found(status="live") == {first, second}
    assert await found(status="closed,active") == {first, third}
    assert await found(asset_id=box) == {first, third}
    assert await found(user="u-2") == {second, third}
    assert await found(kind="exec") == {second}
    assert await found(since=now) == {second, third}
    assert await found(until=now) == {first}
    assert await found(text="top") == {first}
    assert await found(text=second) == {second}
    assert await found(text="%") == set()
    assert {row.id for row in await records.sessions.live()} == {first, second}
    assert {row.id for row in await records.sessions.live(box)} == {first}
    rows, _ = await records.sessions.page(
        ADMIN, SessionFilter(), offset=0, limit=1, order=("password", True)
    )
    assert rows[0].created_at == now


async def test_machines_and_people_as_they_are_now(records: Records) -> None:
    box, gone = await records.agent(), await records.agent(is_deleted=True)
    standing = await records.sessions.standing(box)
    assert standing is not None
    assert standing.view.allowed_users == {"u-1"}
    assert await records.sessions.standing(gone) is None
    assert await records.sessions.standing(new_id()) is None
    assert await records.sessions.standing("nonsense") is None
    assert set(await records.sessions.machines([box, gone])) == {box}
    assert await records.sessions.machines([]) == {}
    assert await records.sessions.people([]) == {}
    async with records.database.session() as db:
        db.add(User(id="u-7", username="zoe", role="wizard", disabled=True, created_at=0.0,
                    updated_at=0.0))  # fmt: skip
    people = await records.sessions.people(["u-7", "u-8"])
    assert set(people) == {"u-7"}
    assert people["u-7"].disabled
    assert people["u-7"].subject("192.0.2.1").role == "user"
