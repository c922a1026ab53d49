"""Recording rows: who sees them, and which retention lets go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.migrated import migrated_in_memory
from underpass.control.recordings import RecordingFilter, Recordings, recording_record
from underpass.control.subject import Subject
from underpass.core.clock import ManualClock
from underpass.core.errors import NotFound
from underpass.core.ids import new_id
from underpass.store.db.database import Database
from underpass.store.db.models import RecordingRow

ADMIN = Subject("u-admin", "ada", "admin")
DAY = 86400.0


class Shelf:
    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.recordings = Recordings(database, self.clock)

    async def add(self, user: str = "u-1", **fields: Any) -> str:
        recording_id = new_id()
        await self.recordings.create(
            RecordingRow(
                **{
                    "id": recording_id,
                    "session_id": new_id(),
                    "asset_id": new_id(),
                    "user_id": user,
                    "username": user,
                    "status": "finished",
                    "started_at": self.clock.now(),
                    "size": 100,
                    "width": 80,
                    "height": 24,
                    "title": f"{user} on box",
                    **fields,
                }
            )
        )
        return recording_id


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    database = await migrated_in_memory()
    yield Shelf(database)
    await database.close()


async def test_who_sees_what(shelf: Shelf) -> None:
    recording_id = await shelf.add()
    for subject in (ADMIN, Subject("u-2", "eve", "auditor"), Subject("u-1", "u-1", "user")):
        assert (await shelf.recordings.visible(subject, recording_id)).id == recording_id
    bob = Subject("u-9", "bob", "user")
    for wanted in (recording_id, new_id(), "../../etc/passwd"):
        with pytest.raises(NotFound):
            await shelf.recordings.visible(bob, wanted)
    assert await shelf.recordings.page(bob, RecordingFilter(), offset=0, limit=9) == ([], 0)


async def test_filters_and_changes(shelf: Shelf) -> None:
    first = await shelf.add(asset_id="a-1")
    shelf.clock.advance(10)
    second = await shelf.add("u-2", status="recording", session_id="s-2")
    now = shelf.clock.now()

    async def found(**wanted: Any) -> set[str]:
        rows, total = await shelf.recordings.page(
            ADMIN, RecordingFilter(**wanted), offset=0, limit=10, order=("nothing", False)
        )
        assert total == len(rows)
        return {row.id for row in rows}

    assert await found() == {first, second}
    assert await found(asset_id="a-1") == {first}
    assert await found(user="u-2") == {second}
    assert await found(session_id="s-2") == {second}
    assert await found(status="recording") == {second}
    assert await found(since=now) == {second}
    assert await found(until=now) == {first}
    assert await found(title="u-1 on") == {first}
    assert [row.id for row in await shelf.recordings.unfinished()] == [second]
    await shelf.recordings.change(second, status="finished", sha256="ab", duration=1.25)
    row = await shelf.recordings.get(second)
    assert row is not None
    assert recording_record(row)["duration"] == 1.25
    await shelf.recordings.delete(second)
    assert await shelf.recordings.get(second) is None


async def test_retention_by_age(shelf: Shelf) -> None:
    old = await shelf.add()
    writing = await shelf.add(status="recording")
    shelf.clock.advance(10 * DAY)
    fresh = await shelf.add()

    async def going(**limits: Any) -> list[str]:
        rows = await shelf.recordings.expired(**{"older_than": 0, "keep_bytes": 0, **limits})
        return [row.id for row in rows]

    assert await going() == []
    assert await going(older_than=5 * DAY) == [old]
    assert await going(older_than=20 * DAY) == []
    # By size: the oldest first, and never one that is being written.
    assert await going(keep_bytes=250) == [old]
    assert await going(keep_bytes=1) == [old, fresh]
    assert await going(keep_bytes=10_000) == []
    assert writing not in await going(keep_bytes=1, older_than=1)
