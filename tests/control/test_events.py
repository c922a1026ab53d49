"""The audit trail: durable, batched, filtered, exported, and told to whoever watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from tests.control.people import People, make_people
from underpass.control import events as module
from underpass.control.events import EventFilter
from underpass.control.subject import Subject

ADA = Subject("u-1", "ada", "admin", ip="192.0.2.1")


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    async with make_people(tmp_path) as made:
        yield made


async def _all(people: People, **wanted: object) -> list[dict[str, object]]:
    items, total = await people.events.page(
        EventFilter(**wanted),  # type: ignore[arg-type]
        page=1,
        page_size=500,
        newest_first=False,
    )
    assert total == len(items)
    return items


async def test_an_event_has_its_fields_and_is_told_after_it_is_written(people: People) -> None:
    with people.bus.subscribe() as news:
        event_id = await people.events.record(
            "agent.approved",
            actor=ADA,
            agent_id="a-1",
            object_id="o-1",
            rule="role:admin",
            details={"labels": {"env": "prod"}, "note": "x" * 5000},
        )
        message = await news.next(1)
    (event,) = await _all(people)
    assert message is not None
    assert message.data == event
    assert event["id"] == event_id
    assert event["time"] == "2023-11-14T22:13:20.000Z"
    assert (event["actor"], event["actor_id"], event["ip"]) == ("ada", "u-1", "192.0.2.1")
    assert (event["agent_id"], event["object_id"]) == ("a-1", "o-1")
    assert (event["outcome"], event["rule"]) == ("ok", "role:admin")
    assert event["details"] == {"labels": {"env": "prod"}, "note": "x" * 2000}


async def test_many_at_once_share_a_few_transactions(people: People) -> None:
    commits = 0
    commit = people.events._commit

    async def counted(batch: list[module._Waiting]) -> None:
        nonlocal commits
        commits += 1
        await commit(batch)

    people.events._commit = counted  # type: ignore[method-assign]
    ids = await asyncio.gather(*[people.events.record(f"x.{n}") for n in range(300)])
    assert len(set(ids)) == 300
    assert len(await _all(people)) == 300
    assert commits < 10


async def test_a_failing_write_is_everybodys_error_and_the_next_one_works(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = people.events._commit

    async def failing(batch: list[module._Waiting]) -> None:
        raise OperationalError("insert", {}, Exception("disk full"))

    monkeypatch.setattr(people.events, "_commit", failing)
    results = await asyncio.gather(
        *[people.events.record("x.y") for _ in range(5)], return_exceptions=True
    )
    assert all(isinstance(one, OperationalError) for one in results)
    monkeypatch.setattr(people.events, "_commit", commit)
    await people.events.record("x.z")
    assert [event["type"] for event in await _all(people)] == ["x.z"]


async def test_a_cancelled_writer_takes_nobody_elses_event_with_it(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = people.events._commit
    started = asyncio.Event()

    async def stuck(batch: list[module._Waiting]) -> None:
        started.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(people.events, "_commit", stuck)
    async with asyncio.TaskGroup() as group:
        # Both are waiting before the first takes the batch.
        await people.events._writing.acquire()
        first = group.create_task(people.events.record("x.cancelled"))
        second = group.create_task(people.events.record("x.kept"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        people.events._writing.release()
        await started.wait()
        monkeypatch.setattr(people.events, "_commit", commit)
        first.cancel()
        assert await second
    assert [event["type"] for event in await _all(people)] == ["x.kept"]


async def test_inside_a_transaction_it_shares_its_fate(people: People) -> None:
    with people.bus.subscribe() as news:
        with pytest.raises(RuntimeError):
            async with people.database.session() as db:
                await people.events.record("x.undone", db=db)
                raise RuntimeError
        async with people.database.session() as db:
            await people.events.record("x.done", db=db)
            assert await news.next(0) is None, "told only once it is committed"
        message = await news.next(1)
    assert message is not None
    assert message.data["type"] == "x.done"
    assert [event["type"] for event in await _all(people)] == ["x.done"]


async def test_filters(people: People) -> None:
    record = people.events.record
    await record("agent.approved", actor=ADA, agent_id="a-1")
    people.clock.advance(10)
    await record("agent.deleted", actor="grace", agent_id="a-2", outcome="denied", ip="203.0.113.9")
    people.clock.advance(10)
    await record("agents.odd", object_id="o_1")
    start = people.clock.now() - 20

    async def types(**wanted: object) -> list[object]:
        return [event["type"] for event in await _all(people, **wanted)]

    assert await types(type="agent") == ["agent.approved", "agent.deleted"]
    assert await types(type="agent.") == ["agent.approved", "agent.deleted"]
    assert await types(type="agent.deleted") == ["agent.deleted"]
    assert await types(type="a%") == [], "no wildcards from outside"
    assert await types(actor="ada") == ["agent.approved"]
    assert await types(actor="u-1") == ["agent.approved"]
    assert await types(agent="a-2") == ["agent.deleted"]
    assert await types(outcome="denied") == ["agent.deleted"]
    assert await types(object="o_1") == ["agents.odd"]
    assert await types(since=start + 10) == ["agent.deleted", "agents.odd"]
    assert await types(until=start + 10) == ["agent.approved"]
    assert await types(text="grace") == ["agent.deleted"]
    assert await types(text="203.0.113.9") == ["agent.deleted"]
    assert await types(text="odd") == ["agents.odd"]


async def test_pages_newest_first(people: People) -> None:
    for n in range(5):
        await people.events.record(f"x.{n}")
        people.clock.advance(1)
    items, total = await people.events.page(EventFilter(), page=2, page_size=2)
    assert total == 5
    assert [item["type"] for item in items] == ["x.2", "x.1"]


async def test_export_reads_all_in_batches_even_with_equal_times(people: People) -> None:
    await asyncio.gather(*[people.events.record("x.same") for _ in range(25)])
    people.clock.advance(1)
    await people.events.record("x.last")
    exported = [event async for event in people.events.export(EventFilter(), batch=7)]
    assert len({event["id"] for event in exported}) == 26
    assert exported[-1]["type"] == "x.last"


async def test_old_events_are_forgotten(people: People) -> None:
    await people.events.record("x.old")
    people.clock.advance(100)
    await people.events.record("x.new")
    assert await people.events.prune(people.clock.now() - 50) == 1
    assert await people.event_types() == ["x.new"]
