"""Users: made, changed and removed, what ends with it, and the last admin who stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.control.people import PASSWORD, People, make_people
from underpass.control.subject import Subject
from underpass.control.users import UserChange
from underpass.core.errors import Conflict, InvalidRequest, NotFound, Unauthenticated


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    async with make_people(tmp_path) as made:
        yield made


@pytest.fixture
async def ada(people: People) -> Subject:
    return await people.first_admin()


async def test_the_public_fields_of_a_user(people: People, ada: Subject) -> None:
    made = await people.users.create(
        ada, username=" Grace ", password=PASSWORD, role="auditor", email="grace@example.org"
    )
    assert made == await people.users.get(made["id"])
    assert set(made) == {
        "id", "username", "email", "role", "disabled", "created_at", "last_login_at",
    }  # fmt: skip
    assert made["username"] == "grace"
    assert made["email"] == "grace@example.org"


@pytest.mark.parametrize("name", ["", "a b", "../x", "ada\n", "x" * 65, "-x", "Ünal", "a;b"])
async def test_bad_names_are_refused(people: People, ada: Subject, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await people.users.create(ada, username=name + ";", password=PASSWORD)


async def test_bad_addresses_and_passwords_are_refused(people: People, ada: Subject) -> None:
    with pytest.raises(InvalidRequest, match="email"):
        await people.users.create(ada, username="x", password=PASSWORD, email="nowhere")
    with pytest.raises(InvalidRequest, match="password"):
        await people.users.create(ada, username="x", password="short")


async def test_a_name_is_taken_whatever_the_case(people: People, ada: Subject) -> None:
    with pytest.raises(Conflict) as caught:
        await people.users.create(ada, username="ADA", password=PASSWORD)
    assert caught.value.code == "username_taken"


async def test_pages_search_and_sort(people: People, ada: Subject) -> None:
    for name in ("carol", "bob", "bobby"):
        await people.add(ada, name)
    items, total = await people.users.page(page=1, page_size=2)
    assert total == 4
    assert [item["username"] for item in items] == ["ada", "bob"]
    items, total = await people.users.page(page=1, page_size=9, text="BOB", descending=True)
    assert [item["username"] for item in items] == ["bobby", "bob"]
    assert (await people.users.page(page=1, page_size=9, text="%"))[1] == 0


async def test_disabling_ends_logins_tokens_and_says_cut(people: People, ada: Subject) -> None:
    bob = await people.add(ada, "bob")
    login = await people.login("bob")
    subject = (await people.sign_in.identify(login.token)).subject
    key = (await people.api_tokens.create(subject, "script"))["token"]
    await people.sign_in.identify(key)
    with people.bus.subscribe(lambda m: m.topic == "user") as news:
        await people.users.change(ada, bob.user_id, UserChange(disabled=True))
        message = await news.next(1)
    assert message is not None
    assert message.data["cut"] is True
    assert message.data["reason"] == "disabled"
    for token in (login.token, key):  # at once, although both were cached
        with pytest.raises(Unauthenticated):
            await people.sign_in.identify(token)
    assert not await people.sign_in.still_valid(subject)
    await people.users.change(ada, bob.user_id, UserChange(disabled=False))
    with pytest.raises(Unauthenticated):
        await people.sign_in.identify(login.token)  # the login is gone for good
    assert (await people.sign_in.identify(key)).subject.username == "bob"
    assert await people.event_types(type="user.") == [
        "user.created", "user.disabled", "user.enabled",
    ]  # fmt: skip


async def test_a_demotion_cuts_and_a_promotion_does_not(people: People, ada: Subject) -> None:
    bob = await people.add(ada, "bob", "auditor")
    with people.bus.subscribe(lambda m: m.topic == "user") as news:
        await people.users.change(ada, bob.user_id, UserChange(role="admin"))
        up = await news.next(1)
        assert await people.sign_in.still_valid(bob), "who may more may still do this"
        await people.users.change(ada, bob.user_id, UserChange(role="user"))
        down = await news.next(1)
    assert up is not None
    assert down is not None
    assert (up.data["cut"], down.data["cut"]) == (False, True)
    assert down.data["reason"] == "demoted"
    assert not await people.sign_in.still_valid(bob)


async def test_a_new_password_by_an_admin_ends_the_logins(people: People, ada: Subject) -> None:
    bob = await people.add(ada, "bob")
    login = await people.login("bob")
    await people.users.change(ada, bob.user_id, UserChange(password="another good one"))
    with pytest.raises(Unauthenticated):
        await people.sign_in.identify(login.token)
    with pytest.raises(Unauthenticated):
        await people.login("bob")
    assert await people.login("bob", "another good one")
    with pytest.raises(InvalidRequest):
        await people.users.change(ada, bob.user_id, UserChange(password="bob"))


async def test_changes_that_change_nothing_leave_no_trace(people: People, ada: Subject) -> None:
    bob = await people.add(ada, "bob")
    before = await people.event_types()
    await people.users.change(ada, bob.user_id, UserChange())
    await people.users.change(ada, bob.user_id, UserChange(role="user", disabled=False))
    assert await people.event_types() == before


async def test_the_address_can_be_set_and_removed(people: People, ada: Subject) -> None:
    bob = await people.add(ada, "bob")
    change = people.users.change
    assert (await change(ada, bob.user_id, UserChange(email="b@x.org")))["email"] == "b@x.org"
    assert (await change(ada, bob.user_id, UserChange(email="")))["email"] is None


async def test_the_last_admin_stays(people: People, ada: Subject) -> None:
    for change in (UserChange(disabled=True), UserChange(role="user")):
        with pytest.raises(Conflict) as caught:
            await people.users.change(ada, ada.user_id, change)
        assert caught.value.code == "last_admin"
    with pytest.raises(Conflict):
        await people.users.delete(ada, ada.user_id)
    bob = await people.add(ada, "bob", "admin")
    await people.users.change(bob, ada.user_id, UserChange(disabled=True))
    with pytest.raises(Conflict):
        await people.users.change(bob, bob.user_id, UserChange(role="user"))
    await people.users.delete(bob, ada.user_id)  # a disabled one may go


async def test_two_admins_demoting_each_other_leave_one(people: People, ada: Subject) -> None:
    bob = await people.add(ada, "bob", "admin")
    results = await asyncio.gather(
        people.users.change(ada, bob.user_id, UserChange(role="user")),
        people.users.change(bob, ada.user_id, UserChange(role="user")),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Conflict) for one in results) == 1
    items, _ = await people.users.page(page=1, page_size=9)
    assert [item["role"] for item in items].count("admin") == 1


async def test_removing_takes_logins_and_tokens_along(people: People, ada: Subject) -> None:
    bob = await people.add(ada, "bob")
    key = await people.api_tokens.create(bob, "script")
    await people.users.delete(ada, bob.user_id)
    for use in (
        people.sign_in.identify(key["token"]),
        people.login("bob"),
    ):
        with pytest.raises(Unauthenticated):
            await use
    with pytest.raises(NotFound):
        await people.users.get(bob.user_id)
    assert "user.deleted" in await people.event_types()


@pytest.mark.parametrize(
    "user_id", ["0e78bd56-d9fb-4f23-bf4f-a67f74327b23", "", "../x", "x" * 500, "' or 1=1"]
)
async def test_unknown_ids_are_not_found(people: People, ada: Subject, user_id: str) -> None:
    with pytest.raises(NotFound):
        await people.users.get(user_id)
    with pytest.raises(NotFound):
        await people.users.change(ada, user_id, UserChange(disabled=True))
    with pytest.raises(NotFound):
        await people.users.delete(ada, user_id)


async def test_ids_by_name(people: People, ada: Subject) -> None:
    assert await people.users.ids_of(["ADA", "nobody"]) == {"ada": ada.user_id}
