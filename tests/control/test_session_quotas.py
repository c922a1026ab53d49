"""The quota of terminal sessions: exact however many begin at once, on each family of databases."""

from __future__ import annotations

import asyncio

from tests.control.test_mapping_quotas import Given
from tests.control.test_mappings import Two
from underpass.control.sessions import SessionFilter, Sessions
from underpass.core.errors import TooManyRequests
from underpass.core.ids import new_id
from underpass.store.db.database import Database
from underpass.store.db.models import TtySession


async def begin(sessions: Sessions, house: Two) -> str:
    row = TtySession(
        id=new_id(), asset_id=house.box, user_id=house.ada.user_id, username="ada", kind="pty",
        status="active", command="bash", cols=80, rows=24, created_at=0.0,
    )  # fmt: skip
    await sessions.create(row)
    return row.id


async def test_ten_at_once_are_exactly_the_quota(database: Database) -> None:
    house = await Two(database).fill()
    sessions = Sessions(database, house.clock, quotas=Given(max_sessions=3))
    results = await asyncio.gather(
        *(begin(sessions, house) for _ in range(10)), return_exceptions=True
    )
    lost = [one for one in results if isinstance(one, TooManyRequests)]
    made = [one for one in results if isinstance(one, str)]
    assert (len(made), len(lost)) == (3, 7)
    assert {error.code for error in lost} == {"quota_exceeded"}
    assert lost[0].message == "The quota allows 3 open sessions, and there are 3."
    assert "End one" in str(lost[0])
    _, total = await sessions.page(house.root, SessionFilter(), offset=0, limit=50)
    assert total == 3
    await sessions.end(made[0], status="closed")
    await begin(sessions, house)


async def test_the_gateways_own_cap_is_exact_too(database: Database) -> None:
    house = await Two(database).fill()
    sessions = Sessions(database, house.clock, per_user=2)
    results = await asyncio.gather(
        *(begin(sessions, house) for _ in range(8)), return_exceptions=True
    )
    lost = [one for one in results if isinstance(one, TooManyRequests)]
    assert (len(lost), {error.code for error in lost}) == (6, {"too_many_sessions"})
