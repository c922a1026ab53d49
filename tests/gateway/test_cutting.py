"""Cutting: whoever loses a right loses what runs on it, within moments and without being asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.gateway.http.people_app import PASSWORD, App, people_app
from underpass.control.events import EventFilter
from underpass.control.subject import Subject
from underpass.control.users import UserChange
from underpass.core.errors import Unavailable
from underpass.core.ids import new_id
from underpass.gateway import cutting, housekeeping
from underpass.gateway.cutting import Cutting
from underpass.gateway.housekeeping import keep_house
from underpass.links.link import Link, Peer
from underpass.links.memory import memory_links

PROMISE = 5.0


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with people_app(tmp_path) as made:
        made.services.supervisor.start(Cutting(made.services).run(), "cutting")
        yield made


async def _subject(app: App, username: str) -> Subject:
    login = await app.login(username)
    return (await app.services.sign_in.identify(login["access_token"])).subject


def _link(app: App, subject: Subject) -> Link:
    """A client link of *subject*, as the link server would enter it."""
    theirs, ours = memory_links(
        Peer("client", subject.user_id, subject.username, "192.0.2.1:5", "0", frozenset())
    )
    ours.id = new_id()  # two links of memory have the same
    app.services.registry.add_client(ours, subject)
    theirs.start()
    ours.start()
    return theirs


async def _cut(link: Link) -> str:
    async with asyncio.timeout(PROMISE):
        return (await link.wait_closed()).code


async def _lives(link: Link) -> bool:
    await asyncio.sleep(0.1)
    return not link.closed


@pytest.mark.parametrize(
    "change",
    [UserChange(disabled=True), UserChange(role="user"), UserChange(password="x1y2z3w4v5")],
)
async def test_a_person_who_loses_rights_loses_links_and_terminals(
    app: App, change: UserChange, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.person("bob", "auditor")
    await app.person("eve")
    ada, bob, eve = [await _subject(app, name) for name in ("ada", "bob", "eve")]
    closed: list[str] = []

    async def close_for_user(user_id: str, reason: str, agent_id: str | None = None) -> int:
        closed.append(user_id)
        return 0

    monkeypatch.setattr(app.services.terminals, "close_for_user", close_for_user)
    one, two, other = _link(app, bob), _link(app, bob), _link(app, eve)
    await app.services.users.change(ada, bob.user_id, change)
    assert await _cut(one) == "unauthenticated"
    assert await _cut(two) == "unauthenticated"
    assert await _lives(other)
    assert closed == [bob.user_id]


async def test_signing_out_ends_the_links_of_that_login_only(app: App) -> None:
    one, two = await _subject(app, "ada"), await _subject(app, "ada")
    first, second = _link(app, one), _link(app, two)
    await app.services.sign_in.sign_out(one)
    assert await _cut(first) == "unauthenticated"
    assert await _lives(second)
    cut, _ = await app.services.events.page(EventFilter(type="link.cut"), page=1, page_size=9)
    assert [event["rule"] for event in cut] == ["credential"]


async def test_revoking_a_token_ends_its_links(app: App) -> None:
    ada = await _subject(app, "ada")
    key = await app.services.api_tokens.create(ada, "x")
    holder = (await app.services.sign_in.identify(key["token"])).subject
    link = _link(app, holder)
    await app.services.api_tokens.revoke(ada, key["id"])
    assert await _cut(link) == "unauthenticated"


async def test_expiry_tells_nobody_and_is_noticed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cutting.CHECK_EVERY < PROMISE
    monkeypatch.setattr(cutting, "CHECK_EVERY", 0.05)
    async with people_app(tmp_path) as app:
        app.services.supervisor.start(Cutting(app.services).run(), "cutting")
        link = _link(app, await _subject(app, "ada"))
        assert await _lives(link)
        app.clock.advance(13 * 3600)
        assert await _cut(link) == "unauthenticated"


async def test_a_database_that_is_away_does_not_end_the_watch(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await _subject(app, "ada")
    link = _link(app, ada)
    still_valid = app.services.sign_in.still_valid
    failed = asyncio.Event()

    async def away(subject: Subject) -> bool:
        failed.set()
        raise Unavailable("gone")

    monkeypatch.setattr(app.services.sign_in, "still_valid", away)
    app.services.bus.publish("user", {"user_id": ada.user_id})
    async with asyncio.timeout(PROMISE):
        await failed.wait()
    monkeypatch.setattr(app.services.sign_in, "still_valid", still_valid)
    await app.services.sign_in.sign_out(ada)
    assert await _cut(link) == "unauthenticated"


async def test_the_house_is_kept(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    await app.login("ada")
    app.clock.advance(400 * 86400)
    done = asyncio.Event()
    prune = app.services.events.prune
    tries = 0

    async def pruned(before: float) -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Unavailable("not now")
        count = await prune(before)
        done.set()
        return count

    monkeypatch.setattr(app.services.events, "prune", pruned)
    monkeypatch.setattr(housekeeping, "spread", lambda low, high: 0.01)
    app.services.supervisor.start(keep_house(app.services), "house")
    async with asyncio.timeout(PROMISE):
        await done.wait()
    _, total = await app.services.events.page(EventFilter(), page=1, page_size=1)
    assert total == 0


@dataclass
class _Viewer:
    subject: Subject
    outcomes: list[Any] = field(default_factory=list)

    def cut(self, outcome: Any) -> None:
        self.outcomes.append(outcome)


async def test_a_login_that_ends_makes_terminals_show_a_fresh_ticket(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.person("bob")
    ada, bob = await _subject(app, "ada"), await _subject(app, "bob")
    mine, other = _Viewer(ada), _Viewer(bob)
    hub = SimpleNamespace(viewers=[mine, other])
    monkeypatch.setattr(app.services, "terminals", SimpleNamespace(hubs={"s": hub}))
    await app.services.users.change(bob, ada.user_id, UserChange(email="ada@example.org"))
    await app.services.sign_in.change_password(ada, PASSWORD, "a brand new one")
    async with asyncio.timeout(PROMISE):
        while not mine.outcomes:
            await asyncio.sleep(0.01)
    (outcome,) = mine.outcomes
    assert (outcome.code, outcome.close_code) == ("login_changed", 1012)
    assert other.outcomes == []
