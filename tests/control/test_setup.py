"""The first admin: one code, one use, one admin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.control.people import AWAY, HOME, PASSWORD, People, make_people
from underpass.control.sign_in import Login
from underpass.core.errors import Conflict, Forbidden, InvalidRequest, TooManyRequests
from underpass.store.db.models import KeyValue, User


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    async with make_people(tmp_path) as made:
        yield made


async def _complete(people: People, code: str, username: str = "ada", **more: str) -> Login:
    password = more.pop("password", PASSWORD)
    return await people.setup.complete(
        code, username, password, ip=more.get("ip", HOME), user_agent=None
    )


async def test_the_code_makes_the_admin_once(people: People) -> None:
    assert await people.setup.needed()
    code = await people.setup.open()
    assert code is not None
    login = await _complete(people, code, "Ada")
    assert login.user["username"] == "ada"
    assert login.user["role"] == "admin"
    assert (await people.sign_in.identify(login.token)).subject.is_admin
    assert not await people.setup.needed()
    assert await people.setup.open() is None
    with pytest.raises(Conflict) as caught:
        await _complete(people, code, "eve")
    assert caught.value.code == "setup_done"
    assert await people.event_types() == ["login.succeeded", "setup.completed"]


async def test_the_code_is_kept_as_a_hash(people: People) -> None:
    code = await people.setup.open()
    assert code is not None
    async with people.database.reading() as db:
        values = list(await db.scalars(select(KeyValue.value)))
    assert values
    assert all(code not in value for value in values)


async def test_a_new_start_voids_the_old_code(people: People) -> None:
    old = await people.setup.open()
    new = await people.setup.open()
    assert old is not None
    assert new is not None
    with pytest.raises(Forbidden) as caught:
        await _complete(people, old)
    assert caught.value.code == "bad_setup_code"
    assert await _complete(people, new)


async def test_a_rule_broken_leaves_the_code_good(people: People) -> None:
    code = await people.setup.open()
    assert code is not None
    with pytest.raises(InvalidRequest):
        await _complete(people, code, password="short")
    with pytest.raises(InvalidRequest):
        await _complete(people, code, username="a b")
    assert await _complete(people, code)


async def test_without_a_code_ever_made_no_code_is_right(people: People) -> None:
    with pytest.raises(Forbidden):
        await _complete(people, "")


async def test_guessing_the_code_is_slowed_down(people: People) -> None:
    code = await people.setup.open()
    assert code is not None
    for _ in range(5):
        with pytest.raises(Forbidden):
            await _complete(people, "wrong")
    with pytest.raises(TooManyRequests):
        await _complete(people, code)
    assert await _complete(people, code, ip=AWAY), "not from where nobody guessed"


async def test_of_many_at_once_one_becomes_the_admin(people: People) -> None:
    code = await people.setup.open()
    assert code is not None
    results = await asyncio.gather(
        *[_complete(people, code, f"admin{n}") for n in range(8)], return_exceptions=True
    )
    assert sum(isinstance(one, Login) for one in results) == 1
    assert all(isinstance(one, (Login, Conflict, Forbidden)) for one in results)
    async with people.database.reading() as db:
        assert len(list(await db.scalars(select(User)))) == 1


async def test_a_code_renewed_while_the_form_was_sent_is_refused(people: People) -> None:
    code = await people.setup.open()
    assert code is not None
    with pytest.raises(Forbidden):
        await people.setup._make_admin("ada", PASSWORD, code_hash="not this one", ip=None)
    assert await people.setup.needed()
    assert await _complete(people, code)


async def test_the_settings_make_the_admin_without_a_code(people: People) -> None:
    assert await people.setup.complete_from_settings("Root", PASSWORD)
    assert not await people.setup.complete_from_settings("other", PASSWORD), "only the first time"
    assert await people.setup.open() is None
    assert (await people.login("root")).user["role"] == "admin"


async def test_weak_settings_are_refused(people: People) -> None:
    with pytest.raises(InvalidRequest):
        await people.setup.complete_from_settings("root", "short")
    assert await people.setup.needed()


async def test_a_database_with_an_admin_but_no_marker_stays_closed(people: People) -> None:
    await people.setup.complete_from_settings("root", PASSWORD)
    async with people.database.session() as db:
        marker = await db.get(KeyValue, "setup_done")
        await db.delete(marker)
    assert not await people.setup.needed()
    assert await people.setup.open() is None
