"""Signing in: one answer for every failure, guesses slowed down, logins that end when they must."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.control.people import AWAY, HOME, PASSWORD, People, make_people
from underpass.control.events import EventFilter
from underpass.control.passwords import Passwords
from underpass.control.sign_in import Login
from underpass.control.subject import Subject
from underpass.control.users import UserChange
from underpass.core.errors import InvalidRequest, TooManyRequests, Unauthenticated
from underpass.store.db.models import LoginSession, User


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    async with make_people(tmp_path) as made:
        yield made


@pytest.fixture
async def ada(people: People) -> Subject:
    return await people.first_admin()


async def test_a_login_is_a_secret_kept_as_a_hash(people: People, ada: Subject) -> None:
    login = await people.login("ADA ")
    assert login.token.startswith("ups_")
    assert len(login.token) >= 4 + 43
    assert login.user["username"] == "ada"
    identity = await people.sign_in.identify(login.token)
    assert identity.subject.user_id == ada.user_id
    assert identity.csrf_token == login.csrf_token
    async with people.database.reading() as db:
        rows = list(await db.scalars(select(LoginSession)))
    assert all(row.token_hash != login.token and login.token not in str(vars(row)) for row in rows)


async def test_every_failure_has_the_same_answer(people: People, ada: Subject) -> None:
    bob = await people.add(ada, "bob")
    await people.users.change(ada, bob.user_id, UserChange(disabled=True))
    answers = set()
    for name, password in (("nobody", PASSWORD), ("ada", "wrong"), ("bob", PASSWORD), ("", "")):
        with pytest.raises(Unauthenticated) as caught:
            await people.login(name, password)
        answers.add((caught.value.code, str(caught.value), caught.value.status))
    assert len(answers) == 1
    items, _ = await people.events.page(
        EventFilter(type="login.failed"), page=1, page_size=9, newest_first=False
    )
    assert {(item["actor"], item["rule"]) for item in items} == {
        ("nobody", "password"), ("ada", "password"), ("bob", "disabled"), ("(empty)", "password"),
    }  # fmt: skip
    assert all(item["outcome"] == "denied" and item["ip"] == HOME for item in items)


async def test_an_unknown_name_costs_a_hash_like_a_known_one(people: People, ada: Subject) -> None:
    verified: list[str | None] = []
    verify = people.passwords.verify

    async def watched(stored: str | None, password: str) -> bool:
        verified.append(stored)
        return await verify(stored, password)

    people.passwords.verify = watched  # type: ignore[method-assign]
    for name in ("nobody", "ada"):
        with pytest.raises(Unauthenticated):
            await people.login(name, "wrong")
    assert verified[0] is None
    assert verified[1] is not None


async def test_guesses_are_slowed_down_here_and_not_elsewhere(people: People, ada: Subject) -> None:
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await people.login("ada", "wrong", ip=AWAY)
    with pytest.raises(TooManyRequests) as caught:
        await people.login("ada", ip=AWAY)
    assert caught.value.retry_after is not None
    assert await people.login("ada", ip=HOME)
    people.clock.advance(caught.value.retry_after)
    assert await people.login("ada", ip=AWAY)


async def test_a_hundred_wrong_guesses_at_once_are_mostly_never_tried(
    people: People, ada: Subject
) -> None:
    results = await asyncio.gather(
        *[people.login("ada", f"wrong {n}", ip=AWAY) for n in range(100)], return_exceptions=True
    )
    tried = sum(isinstance(one, Unauthenticated) for one in results)
    assert tried <= 5 + 2
    assert tried + sum(isinstance(one, TooManyRequests) for one in results) == 100


async def test_a_hundred_right_ones_at_once_all_pass(people: People, ada: Subject) -> None:
    results = await asyncio.gather(*[people.login("ada") for _ in range(100)])
    assert len({login.token for login in results}) == 100


async def test_too_many_waiting_are_told_to_come_back(
    people: People, ada: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underpass.control.sign_in.MAX_WAITING", 2)
    results = await asyncio.gather(*[people.login("ada") for _ in range(5)], return_exceptions=True)
    assert any(isinstance(one, TooManyRequests) for one in results)
    assert any(isinstance(one, Login) for one in results)


async def test_an_unused_login_ends_and_a_used_one_lives_on(people: People, ada: Subject) -> None:
    login = await people.login("ada")
    for _ in range(4):
        people.clock.advance(11 * 3600)
        assert await people.sign_in.identify(login.token)
    people.clock.advance(12 * 3600)
    with pytest.raises(Unauthenticated):
        await people.sign_in.identify(login.token)


async def test_no_login_lives_longer_than_its_lifetime(people: People, ada: Subject) -> None:
    login = await people.login("ada")
    for _ in range(7 * 24 // 8 - 1):
        people.clock.advance(8 * 3600)
        await people.sign_in.identify(login.token)
    people.clock.advance(8 * 3600)
    with pytest.raises(Unauthenticated):
        await people.sign_in.identify(login.token)
    assert await people.sign_in.identities.prune() >= 1


async def test_what_was_believed_is_not_believed_past_its_end(people: People, ada: Subject) -> None:
    login = await people.login("ada")
    people.clock.advance(12 * 3600 - 1)
    assert await people.sign_in.identify(login.token)  # touches: lives on
    key = await people.api_tokens.create(
        (await people.sign_in.identify(login.token)).subject, "short", expires_in=1
    )
    assert await people.sign_in.identify(key["token"])
    people.clock.advance(1.0)  # within the cache's two seconds
    with pytest.raises(Unauthenticated):
        await people.sign_in.identify(key["token"])


@pytest.mark.parametrize("token", ["", "ups_", "ups_" + "x" * 43, "upt_x", "upj_x", "x" * 5000])
async def test_unknown_tokens_are_nobody(people: People, ada: Subject, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await people.sign_in.identify(token)


async def test_an_api_token_in_a_cookie_is_nobody(people: People, ada: Subject) -> None:
    key = await people.api_tokens.create(ada, "script")
    with pytest.raises(Unauthenticated):
        await people.sign_in.identify(key["token"], cookie=True)


async def test_signing_out_ends_that_login_only(people: People, ada: Subject) -> None:
    one, two = await people.login("ada"), await people.login("ada")
    subject = (await people.sign_in.identify(one.token)).subject
    await people.sign_in.sign_out(subject)
    with pytest.raises(Unauthenticated):
        await people.sign_in.identify(one.token)
    assert await people.sign_in.identify(two.token)
    await people.sign_in.sign_out(subject)  # twice is no error
    key = await people.api_tokens.create(
        (await people.sign_in.identify(two.token)).subject, "script"
    )
    await people.sign_in.sign_out((await people.sign_in.identify(key["token"])).subject)
    assert await people.sign_in.identify(key["token"]), "an API token is not a login"


async def test_changing_the_password_ends_the_other_logins(people: People, ada: Subject) -> None:
    here, there = await people.login("ada"), await people.login("ada")
    subject = (await people.sign_in.identify(here.token)).subject
    with pytest.raises(Unauthenticated):
        await people.sign_in.change_password(subject, "wrong", "a brand new one")
    with pytest.raises(InvalidRequest):
        await people.sign_in.change_password(subject, PASSWORD, "short")
    with pytest.raises(InvalidRequest):
        await people.sign_in.change_password(subject, PASSWORD, PASSWORD)
    await people.sign_in.change_password(subject, PASSWORD, "a brand new one")
    assert await people.sign_in.identify(here.token)
    with pytest.raises(Unauthenticated):
        await people.sign_in.identify(there.token)
    with pytest.raises(Unauthenticated):
        await people.login("ada")
    assert await people.login("ada", "a brand new one")


async def test_guessing_the_old_password_is_slowed_down_too(people: People, ada: Subject) -> None:
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await people.sign_in.change_password(ada, "wrong", "a brand new one")
    with pytest.raises(TooManyRequests):
        await people.sign_in.change_password(ada, PASSWORD, "a brand new one")


async def test_of_two_changes_at_once_one_wins(people: People, ada: Subject) -> None:
    results = await asyncio.gather(
        people.sign_in.change_password(ada, PASSWORD, "the first new one"),
        people.sign_in.change_password(ada, PASSWORD, "the second new one"),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Unauthenticated) for one in results) == 1


async def test_a_login_started_with_the_old_password_does_not_outlive_its_change(
    people: People, ada: Subject
) -> None:
    async with people.database.reading() as db:
        stored = await db.scalar(select(User.password_hash).where(User.id == ada.user_id))
    await people.sign_in.change_password(ada, PASSWORD, "a brand new one")
    with pytest.raises(Unauthenticated):
        await people.sign_in.begin(ada.user_id, ip=HOME, proved=stored)


async def test_old_hashes_are_renewed_at_the_next_login(people: People, ada: Subject) -> None:
    stronger = Passwords(memory_kib=128, time_cost=2)
    people.sign_in._passwords = stronger
    await people.login("ada")
    async with people.database.reading() as db:
        stored = await db.scalar(select(User.password_hash).where(User.id == ada.user_id))
    assert stored is not None
    assert not stronger.needs_rehash(stored)
    assert await people.login("ada")
    stronger.close()


async def test_the_last_use_is_written_once_a_minute(people: People, ada: Subject) -> None:
    login = await people.login("ada")

    async def seen() -> float:
        async with people.database.reading() as db:
            return max(await db.scalars(select(LoginSession.last_seen_at)))

    before = await seen()
    people.clock.advance(30)
    await people.sign_in.identify(login.token)
    assert await seen() == before
    people.clock.advance(31)
    await people.sign_in.identify(login.token)
    assert await seen() == before + 61


async def test_sockets_can_ask_whether_they_are_still_wanted(people: People, ada: Subject) -> None:
    login = await people.login("ada")
    subject = (await people.sign_in.identify(login.token)).subject
    assert await people.sign_in.still_valid(subject)
    await people.sign_in.sign_out(subject)
    assert not await people.sign_in.still_valid(subject)
    stranger = Subject("nobody", "x", "user", credential_id=subject.credential_id)
    assert not await people.sign_in.still_valid(stranger)


async def test_the_cache_has_a_cap(
    people: People, ada: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underpass.control.identities.CACHE_ENTRIES", 2)
    for _ in range(5):
        await people.sign_in.identify((await people.login("ada")).token)
    assert len(people.sign_in.identities._cache) <= 2
