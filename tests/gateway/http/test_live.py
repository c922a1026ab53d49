"""The live stream: what one may hear, while one is signed in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.gateway.http.people_app import App
from underpass.control.live import LiveMessage
from underpass.control.subject import Subject
from underpass.control.visibility import LiveVisibility
from underpass.core.ids import new_id
from underpass.gateway.http import live


class Stream:
    """Reads server-sent events from the route's generator."""

    def __init__(self, app: App, subject: Subject) -> None:
        self._chunks: AsyncIterator[str] = live._stream(app.services, subject)

    async def next(self) -> tuple[str, Any]:
        async with asyncio.timeout(5):
            while True:
                chunk = await anext(self._chunks)
                if chunk.startswith("event:"):
                    topic, data = chunk.strip().split("\n")
                    return topic.removeprefix("event: "), json.loads(data.removeprefix("data: "))
                if chunk.startswith(": keep"):
                    return "keep-alive", None

    async def over(self) -> bool:
        try:
            async with asyncio.timeout(5):
                await anext(self._chunks)
        except StopAsyncIteration:
            return True
        return False


async def _subject(app: App, username: str) -> Subject:
    login = await app.login(username)
    return (await app.services.sign_in.identify(login["access_token"])).subject


async def _started(app: App, subject: Subject) -> Stream:
    stream = Stream(app, subject)
    async with asyncio.timeout(5):
        assert (await anext(stream._chunks)).startswith(": connected")
    return stream


async def test_it_needs_a_login(app: App) -> None:
    assert (await app.http.get("/api/v1/live")).status_code == 401


async def test_it_is_a_stream_of_server_sent_events(app: App) -> None:
    admin = await app.admin()

    async def read() -> str:
        # The test transport gives the answer when it is over; shutting down ends it.
        return (await admin.get("/api/v1/live")).text

    async with asyncio.TaskGroup() as group:
        task = group.create_task(read())
        while not app.services.live_streams:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        app.services.bus.publish("enrolment", {"id": "e-1"})
        await asyncio.sleep(0.05)
        app.services.bus.close()
    text = task.result()
    assert 'event: enrolment\ndata: {"id": "e-1"}\n\n' in text
    assert text.endswith('event: end\ndata: {"reason": "shutdown"}\n\n')


async def test_signing_out_ends_it(app: App) -> None:
    subject = await _subject(app, "ada")
    stream = await _started(app, subject)
    await app.services.sign_in.sign_out(subject)
    topics = [(await stream.next()), (await stream.next())]
    assert ("end", {"reason": "login_ended"}) in topics
    assert await stream.over()


async def test_news_about_ones_rights_that_leave_the_login_alone_do_not_end_it(app: App) -> None:
    subject = await _subject(app, "ada")
    stream = await _started(app, subject)
    app.services.bus.publish("user", {"user_id": subject.user_id})
    app.services.bus.publish("agent", {"id": "a"})
    assert await stream.next() == ("agent", {"id": "a"})


async def test_an_expired_login_is_noticed_at_the_next_keep_alive(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "KEEP_ALIVE", 0.01)
    stream = await _started(app, await _subject(app, "ada"))
    assert await stream.next() == ("keep-alive", None)
    app.clock.advance(13 * 3600)
    while (message := await stream.next())[0] == "keep-alive":
        pass
    assert message == ("end", {"reason": "login_ended"})


async def test_an_expired_login_is_noticed_although_there_is_always_news(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert live.CHECK_EVERY < 5  # the promise
    monkeypatch.setattr(live, "CHECK_EVERY", 0.05)
    stream = await _started(app, await _subject(app, "ada"))
    app.clock.advance(13 * 3600)
    async with asyncio.timeout(5):
        while True:
            app.services.bus.publish("agent", {"id": "a"})
            if (await stream.next())[0] == "end":
                break
            await asyncio.sleep(0.01)
    assert await stream.over()


async def test_too_many_streams_are_refused(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS", 0)
    admin = await app.admin()
    assert (await admin.get("/api/v1/live")).status_code == 429


async def test_who_hears_what(app: App) -> None:
    mine, other = new_id(), new_id()
    await app.person("bob")
    bob = await _subject(app, "bob")
    await app.machine(mine, bob.user_id)
    await app.machine(other)
    messages = {
        "mine": LiveMessage("agent", {"id": mine, "linked": True}),
        "other": LiveMessage("agent", {"id": other, "linked": True}),
        "unknown": LiveMessage("agent", {"id": new_id()}),
        "enrolment": LiveMessage("enrolment", {"id": "e"}),
        "event": LiveMessage("event", {"id": "e"}),
        "my session": LiveMessage("session", {"id": "s", "user_id": bob.user_id}),
        "other session": LiveMessage("session", {"id": "s", "user_id": "x", "agent_id": mine}),
        "other recording": LiveMessage("recording", {"id": "r", "user_id": "x"}),
        "my mapping": LiveMessage("mapping", {"id": "m", "user_id": bob.user_id}),
        "other mapping": LiveMessage("mapping", {"id": "m", "user_id": "x", "agent_id": mine}),
        "resync": LiveMessage("resync", {}),
        "user": LiveMessage("user", {"user_id": bob.user_id}),
        "made up": LiveMessage("secret", {}),
    }

    async def heard(subject: Subject) -> set[str]:
        visible = LiveVisibility(app.services.database, subject)
        await visible.start()
        return {name for name, one in messages.items() if await visible.shown(one) is not None}

    everything = set(messages) - {"user", "made up"}
    assert await heard(await _subject(app, "ada")) == everything
    auditor = Subject("x", "x", "auditor")
    assert await heard(auditor) == everything - {"enrolment"}
    assert await heard(bob) == {"mine", "my session", "my mapping", "resync"}


async def test_a_machine_that_is_taken_away_is_gone_once(app: App) -> None:
    agent_id = new_id()
    await app.person("bob")
    bob = await _subject(app, "bob")
    await app.machine(agent_id, bob.user_id)
    visible = LiveVisibility(app.services.database, bob)
    await visible.start()
    admin = await app.admin()
    answer = await admin.patch(f"/api/v1/assets/{agent_id}", json={"allowed_users": []})
    assert answer.status_code == 200, answer.text
    news = LiveMessage("agent", {"id": agent_id})
    assert await visible.shown(news) == LiveMessage("agent", {"id": agent_id, "gone": True})
    assert await visible.shown(news) is None


async def test_one_person_can_hold_so_many_streams_and_no_more(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS_PER_USER", 2)
    await app.person("bob")
    ada, bob = await _subject(app, "ada"), await _subject(app, "bob")
    one, two = await _started(app, ada), await _started(app, ada)
    refused = await (await app.admin()).get("/api/v1/live")
    assert refused.status_code == 429
    assert refused.json()["code"] == "too_many_live_streams"
    other = await _started(app, bob)
    app.services.bus.close()
    for stream in (one, two, other):
        assert (await stream.next())[0] == "end"
        assert await stream.over()
    assert not app.services.live_streams
