"""API tokens: shown once, kept as hashes, revocable, and never the parents of heirs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.control.people import People, make_people
from underpass.control.subject import Subject
from underpass.core.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unauthenticated
from underpass.core.ids import hash_secret
from underpass.store.db.models import ApiToken


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    async with make_people(tmp_path) as made:
        yield made


@pytest.fixture
async def ada(people: People) -> Subject:
    return await people.first_admin()


async def _works(people: People, token: str) -> bool:
    people.sign_in.identities._cache.clear()
    try:
        await people.sign_in.identify(token)
    except Unauthenticated:
        return False
    return True


async def test_the_secret_is_shown_once_and_kept_as_a_hash(people: People, ada: Subject) -> None:
    made = await people.api_tokens.create(ada, " backup ")
    assert made["token"].startswith("upt_")
    assert made["name"] == "backup"
    (listed,) = await people.api_tokens.list_for(ada.user_id)
    assert set(listed) == {"id", "name", "created_at", "expires_at", "last_used_at"}
    async with people.database.reading() as db:
        row = await db.get(ApiToken, made["id"])
    assert row is not None
    assert row.token_hash == hash_secret(made["token"])
    assert made["token"] not in str(vars(row))


async def test_it_works_until_it_expires(people: People, ada: Subject) -> None:
    made = await people.api_tokens.create(ada, "short", expires_in=60)
    assert await _works(people, made["token"])
    people.clock.advance(60)
    assert not await _works(people, made["token"])
    assert await people.api_tokens.list_for(ada.user_id) == []
    people.clock.advance(31 * 86400)
    await people.sign_in.identities.prune()
    async with people.database.reading() as db:
        assert list(await db.scalars(select(ApiToken))) == []


@pytest.mark.parametrize(
    ("name", "expires_in"),
    [("", None), ("x" * 65, None), ("a\nb", None), ("x", 0), ("x", -5), ("x", 1e12)],
)
async def test_bounds(people: People, ada: Subject, name: str, expires_in: float | None) -> None:
    with pytest.raises(InvalidRequest):
        await people.api_tokens.create(ada, name, expires_in)


async def test_revoking_works_at_once_and_once(people: People, ada: Subject) -> None:
    made = await people.api_tokens.create(ada, "x")
    subject = (await people.sign_in.identify(made["token"])).subject
    await people.api_tokens.revoke(ada, made["id"])
    with pytest.raises(Unauthenticated):
        await people.sign_in.identify(made["token"])
    assert not await people.sign_in.still_valid(subject)
    with pytest.raises(NotFound):
        await people.api_tokens.revoke(ada, made["id"])
    assert "api_token.revoked" in await people.event_types()


async def test_tokens_of_others_do_not_exist_except_for_admins(
    people: People, ada: Subject
) -> None:
    bob, eve = await people.add(ada, "bob"), await people.add(ada, "eve")
    made = await people.api_tokens.create(bob, "x")
    with pytest.raises(NotFound) as foreign:
        await people.api_tokens.revoke(eve, made["id"])
    with pytest.raises(NotFound) as unknown:
        await people.api_tokens.revoke(eve, "no such id")
    assert str(foreign.value) == str(unknown.value)
    await people.api_tokens.revoke_secret(eve, made["token"])  # says nothing, does nothing
    assert await _works(people, made["token"])
    assert await people.api_tokens.list_for(eve.user_id) == []
    await people.api_tokens.revoke(ada, made["id"])
    assert not await _works(people, made["token"])


async def test_a_token_can_not_make_tokens(people: People, ada: Subject) -> None:
    made = await people.api_tokens.create(ada, "x")
    holder = (await people.sign_in.identify(made["token"])).subject
    with pytest.raises(Forbidden) as caught:
        await people.api_tokens.create(holder, "heir")
    assert caught.value.code == "needs_login"


async def test_access_tokens_live_for_the_time_asked(people: People, ada: Subject) -> None:
    token, seconds = await people.api_tokens.create_access_token(ada, 30)
    assert seconds == 30
    assert await _works(people, token)
    people.clock.advance(30)
    assert not await _works(people, token)
    assert (await people.api_tokens.create_access_token(ada))[1] == 3600
    for wrong in (0, 86401):
        with pytest.raises(InvalidRequest):
            await people.api_tokens.create_access_token(ada, wrong)
    assert await people.api_tokens.list_for(ada.user_id) == [], "they are no API keys"


async def test_access_tokens_end_with_what_they_were_made_from(
    people: People, ada: Subject
) -> None:
    key = await people.api_tokens.create(ada, "x", expires_in=100)
    holder = (await people.sign_in.identify(key["token"])).subject
    child, seconds = await people.api_tokens.create_access_token(holder, 3600)
    assert seconds == 100, "never longer than the key"
    child_holder = (await people.sign_in.identify(child)).subject
    grandchild, _ = await people.api_tokens.create_access_token(child_holder)
    from_login, _ = await people.api_tokens.create_access_token(ada)
    await people.api_tokens.revoke(ada, key["id"])
    assert not await _works(people, child)
    assert not await _works(people, grandchild)
    assert await _works(people, from_login)
    await people.sign_in.sign_out(ada)
    assert not await _works(people, from_login)


async def test_a_token_can_be_ended_by_showing_it(people: People, ada: Subject) -> None:
    key = await people.api_tokens.create(ada, "x")
    login = await people.login("ada")
    await people.api_tokens.revoke_secret(ada, key["token"])
    await people.api_tokens.revoke_secret(ada, key["token"])
    await people.api_tokens.revoke_secret(ada, login.token)
    await people.api_tokens.revoke_secret(ada, login.token)
    await people.api_tokens.revoke_secret(ada, "nothing we know")
    assert not await _works(people, key["token"])
    assert not await _works(people, login.token)


async def test_nobody_ends_somebody_elses_login_by_showing_it(people: People, ada: Subject) -> None:
    bob = await people.add(ada, "bob")
    login = await people.login("ada")
    await people.api_tokens.revoke_secret(bob, login.token)
    assert await _works(people, login.token)


async def test_a_person_has_a_hundred_at_most(
    people: People, ada: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underpass.control.api_tokens.MAX_TOKENS", 2)
    await people.api_tokens.create(ada, "1")
    second = await people.api_tokens.create(ada, "2")
    with pytest.raises(Conflict):
        await people.api_tokens.create(ada, "3")
    await people.api_tokens.revoke(ada, second["id"])
    await people.api_tokens.create(ada, "3")


async def test_the_last_use_is_noted_once_a_minute(people: People, ada: Subject) -> None:
    made = await people.api_tokens.create(ada, "x")

    async def used() -> object:
        return (await people.api_tokens.list_for(ada.user_id))[0]["last_used_at"]

    assert await used() is None
    await people.sign_in.identify(made["token"])
    first = await used()
    people.clock.advance(59)
    await people.sign_in.identify(made["token"])
    assert await used() == first
    people.clock.advance(2)  # past the cache, too
    await people.sign_in.identify(made["token"])
    assert await used() != first
