"""What two requests at once could break, on each family of databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.control.people import PASSWORD, People, make_people
from underpass.control.events import EventFilter
from underpass.control.sign_in import Login
from underpass.control.users import UserChange
from underpass.core.errors import Conflict, Forbidden, Unauthenticated
from underpass.store.db.database import Database


@pytest.fixture
async def people(database: Database, tmp_path: Path) -> AsyncIterator[People]:
    async with make_people(tmp_path, database) as made:
        yield made


async def test_of_many_set_ups_at_once_one_makes_the_admin(people: People) -> None:
    code = await people.setup.open()
    assert code is not None
    results = await asyncio.gather(
        *[
            people.setup.complete(code, f"admin{n}", PASSWORD, ip="192.0.2.1", user_agent=None)
            for n in range(6)
        ],
        return_exceptions=True,
    )
    assert sum(isinstance(one, Login) for one in results) == 1
    assert all(isinstance(one, (Login, Conflict, Forbidden)) for one in results)
    _, total = await people.users.page(page=1, page_size=9)
    assert total == 1


async def test_two_nodes_making_the_admin_of_their_settings(people: People) -> None:
    results = await asyncio.gather(
        *[people.setup.complete_from_settings("root", PASSWORD) for _ in range(4)]
    )
    assert sorted(results) == [False, False, False, True]


async def test_admins_demoting_each_other_leave_one(people: People) -> None:
    ada = await people.first_admin()
    bob = await people.add(ada, "bob", "admin")
    results = await asyncio.gather(
        people.users.change(ada, bob.user_id, UserChange(role="user")),
        people.users.change(bob, ada.user_id, UserChange(disabled=True)),
        return_exceptions=True,
    )
    items, _ = await people.users.page(page=1, page_size=9)
    assert sum(item["role"] == "admin" and not item["disabled"] for item in items) == 1
    assert sum(isinstance(one, Exception) for one in results) == 1


async def test_one_name_is_given_once(people: People) -> None:
    ada = await people.first_admin()
    results = await asyncio.gather(
        *[people.users.create(ada, username="bob", password=PASSWORD) for _ in range(4)],
        return_exceptions=True,
    )
    assert sum(isinstance(one, dict) for one in results) == 1
    assert sum(isinstance(one, Conflict) for one in results) == 3


async def test_the_life_of_a_person(people: People) -> None:
    ada = await people.first_admin()
    bob = await people.add(ada, "bob")
    key = await people.api_tokens.create(bob, "Schlüssel 钥匙", expires_in=60)
    token, _ = await people.api_tokens.create_access_token(bob)
    await people.sign_in.change_password(bob, PASSWORD, "ein neues Passwort")
    assert (await people.sign_in.identify(key["token"])).subject.username == "bob"
    assert (await people.sign_in.identify(token)).subject.username == "bob"
    await people.sign_in.sign_out(bob)
    with pytest.raises(Unauthenticated):
        await people.sign_in.identify(token)
    people.clock.advance(61)
    with pytest.raises(Unauthenticated):
        await people.sign_in.identify(key["token"])
    assert (await people.users.page(page=1, page_size=9, text="BO"))[1] == 1
    await people.users.delete(ada, bob.user_id)
    people.clock.advance(40 * 86400)
    await people.sign_in.identities.prune()
    assert await people.users.page(page=1, page_size=9, text="bob") == ([], 0)


async def test_events_keep_what_they_were_told(people: People) -> None:
    details = {"text": "Grüße, 世界 🚇", "number": 1.5, "list": [1, None, {"a": True}]}
    await asyncio.gather(
        *[people.events.record("x.y", actor="ünal", details=details) for _ in range(40)]
    )
    items, total = await people.events.page(EventFilter(text="x.y"), page=1, page_size=1)
    assert total == 40
    assert items[0]["details"] == details
    assert items[0]["actor"] == "ünal"
    exported = [event["id"] async for event in people.events.export(EventFilter(), batch=7)]
    assert len(set(exported)) == 40
    assert await people.events.prune(people.clock.now() + 1) == 40
