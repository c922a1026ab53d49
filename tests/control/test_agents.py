"""Machines on every database: who sees which, what may change, and what deletion cuts."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from tests.control.machines import ADMIN, Applicant, Machines
from underpass.control.agent_list import AgentQuery
from underpass.control.metric_history import MAX_POINTS, MetricHistory
from underpass.control.subject import Subject
from underpass.core.errors import Conflict, Forbidden, InvalidRequest, NotFound, UnderpassError
from underpass.core.ids import new_id
from underpass.store.db.database import Database
from underpass.store.db.models import Agent, TtySession, User

NOBODY = Subject(user_id=new_id(), username="nobody", role="user")


@pytest.fixture
def machines(database: Database) -> Machines:
    return Machines(database)


async def refusal(awaitable: Any, kind: type[UnderpassError]) -> UnderpassError:
    with pytest.raises(kind) as caught:
        await awaitable
    return caught.value


async def names(machines: Machines, subject: Subject = ADMIN, **query: Any) -> list[str]:
    items, total = await machines.agents.page(subject, AgentQuery(**query), 1, 100)
    assert total == len(items)
    return [item["name"] for item in items]


async def test_lists_filter_sort_and_page(machines: Machines) -> None:
    await machines.enrolled("web", labels={"env": "prod", "tier": "front.end"})
    await machines.enrolled("Api", labels={"env": "prod"})
    beating = await machines.enrolled("sql", labels={"env": "lab's"})
    await beating.beat(metrics={"mode": "poll"})
    assert await names(machines) == ["Api", "sql", "web"]
    assert await names(machines, sort="-name") == ["web", "sql", "Api"]
    assert (await names(machines, sort="last_seen_at"))[0] == "sql", "never seen ones come last"
    assert (await names(machines, sort="-last_seen_at"))[0] == "sql"
    assert await names(machines, q="WE") == ["web"]
    assert await names(machines, q="front.") == ["web"]
    assert await names(machines, q="100%") == []
    assert await names(machines, q="s\0ql") == ["sql"]
    assert await names(machines, q=beating.id[:8].upper()) == ["sql"]
    assert await names(machines, labels={"env": "prod"}) == ["Api", "web"]
    assert await names(machines, labels={"env": "prod", "tier": None}) == ["web"]
    assert await names(machines, labels={"env": "lab's"}) == ["sql"]
    assert await names(machines, labels={"odd.key/x": None}) == []
    assert await names(machines, status="online") == ["sql"]
    items, total = await machines.agents.page(ADMIN, AgentQuery(), 2, 2)
    assert ([item["name"] for item in items], total) == (["web"], 3)
    assert (await refusal(names(machines, sort="secret"), InvalidRequest)).code == "bad_sort"


async def test_a_record_has_the_public_fields_and_no_other(machines: Machines) -> None:
    applicant = await machines.enrolled()
    machines.linked.add(applicant.id)
    async with machines.database.session() as db:
        for number, status in enumerate(("active", "detached", "closed")):
            db.add(
                TtySession(
                    id=str(number), asset_id=applicant.id, user_id="u", username="u",
                    status=status, command="x", cols=1, rows=1, created_at=1,
                )
            )  # fmt: skip
    shown = await machines.agents.show(ADMIN, applicant.id)
    assert set(shown) == {
        "id", "name", "hostname", "labels", "allowed_users", "may_declare", "status", "linked",
        "key_fingerprint", "version", "address", "created_at", "updated_at", "last_seen_at",
        "static_info", "dynamic_info", "sessions",
    }  # fmt: skip
    assert (shown["linked"], shown["sessions"]) == (True, 2)
    items, _ = await machines.agents.page(ADMIN, AgentQuery(), 1, 10)
    assert items == [shown]
    assert await machines.agents.page(NOBODY, AgentQuery(), 1, 10) == ([], 0)


async def test_a_user_sees_only_machines_that_list_them(machines: Machines) -> None:
    mine, other = await machines.enrolled("mine"), await machines.enrolled("other")
    bob, eve = await machines.user("bob"), await machines.user("eve", "auditor")
    await machines.agents.update(ADMIN, mine.id, {"allowed_users": [bob.user_id]})
    assert await names(machines, bob) == ["mine"]
    assert await names(machines, eve) == ["mine", "other"]
    assert await names(machines, NOBODY) == []
    assert (await machines.agents.show(bob, mine.id))["name"] == "mine"
    assert (await machines.agents.require(bob, mine.id, "shell")).id == mine.id
    invisible = await refusal(machines.agents.show(bob, other.id), NotFound)
    unknown = await refusal(machines.agents.show(bob, new_id()), NotFound)
    odd = await refusal(machines.agents.show(bob, "../x\0"), NotFound)
    bodies = {(error.message, error.hint, error.code) for error in (invisible, unknown, odd)}
    assert len(bodies) == 1
    await refusal(machines.agents.metrics(bob, other.id), NotFound)
    await refusal(machines.agents.require(eve, other.id, "shell"), Forbidden)
    for subject, kind in ((bob, Forbidden), (eve, Forbidden), (NOBODY, NotFound)):
        await refusal(machines.agents.update(subject, mine.id, {"name": "x"}), kind)
        await refusal(machines.agents.delete(subject, mine.id), kind)


async def test_machines_are_found_by_id_or_name(machines: Machines) -> None:
    one = await machines.enrolled("Web")
    assert (await machines.agents.find(ADMIN, "wEB")).id == one.id
    assert (await machines.agents.find(ADMIN, one.id)).name == "Web"
    for unknown in ("nope", "a\0b", "", new_id()):
        await refusal(machines.agents.find(ADMIN, unknown), NotFound)
    await refusal(machines.agents.find(NOBODY, "web"), NotFound)
    two = await machines.enrolled("other")
    async with machines.database.session() as db:
        row = await db.get(Agent, two.id)
        assert row is not None
        row.name = "web"  # two approvals at the same moment can do this
    assert (await refusal(machines.agents.find(ADMIN, "web"), Conflict)).code == "ambiguous_name"
    view = await machines.agents.view(one.id)
    assert view is not None
    assert view.name == "Web"
    assert await machines.agents.view("x") is None
    assert await machines.agents.view(new_id()) is None


async def test_changes(machines: Machines) -> None:
    applicant = await machines.enrolled("box")
    await machines.enrolled("taken")
    bob = await machines.user("bob")
    removed: list[tuple[str, set[str]]] = []

    async def hook(agent_id: str, users: Collection[str]) -> None:
        removed.append((agent_id, set(users)))

    machines.agents.on_access_removed(hook)
    shown = await machines.agents.update(
        ADMIN,
        applicant.id,
        {"name": "new", "labels": {"b": "2", "a": "1"}, "allowed_users": [bob.user_id] * 2},
    )
    assert (shown["name"], shown["allowed_users"]) == ("new", [bob.user_id])
    assert list(shown["labels"]) == ["a", "b"]
    assert removed == []
    await machines.agents.update(ADMIN, applicant.id, {"name": "new", "allowed_users": []})
    assert removed == [(applicant.id, {bob.user_id})]
    assert (await machines.agents.update(ADMIN, applicant.id, {"status": "maintenance"}))[
        "status"
    ] == "maintenance"
    assert (await machines.agents.update(ADMIN, applicant.id, {"status": "online"}))[
        "status"
    ] == "offline", "lifted: what it really is"
    for bad, code in [
        ({"name": "a b"}, "bad_name"),
        ({"name": 5}, "bad_name"),
        ({"labels": {"a": 5}}, "bad_labels"),
        ({"allowed_users": "x"}, "bad_allowed_users"),
        ({"allowed_users": [new_id()]}, "bad_allowed_users"),
        ({"allowed_users": [5]}, "bad_allowed_users"),
        ({"allowed_users": ["x"] * 1001}, "bad_allowed_users"),
        ({"status": "offline"}, "bad_status"),
    ]:
        error = await refusal(machines.agents.update(ADMIN, applicant.id, bad), InvalidRequest)
        assert error.code == code
    error = await refusal(machines.agents.update(ADMIN, applicant.id, {"name": "TAKEN"}), Conflict)
    assert error.code == "name_taken"


async def test_whose_are_the_mappings_a_machine_declares(machines: Machines) -> None:
    """Whoever let it in, until they are gone and somebody else says that it may."""
    ida, eve = await machines.user("ida", "admin"), await machines.user("eve", "admin")
    applicant = Applicant(machines)
    answer = await applicant.apply()
    await machines.enrolments.approve(ida, answer["apply_id"])

    async def stored() -> tuple[bool, str | None]:
        row = await machines.agents.require(ida, applicant.id)
        return row.may_declare, row.let_in_by

    assert await stored() == (False, ida.user_id)
    shown = await machines.agents.update(eve, applicant.id, {"may_declare": True})
    assert shown["may_declare"] is True
    assert await stored() == (True, ida.user_id)
    async with machines.database.session() as db:
        row = await db.get(User, ida.user_id)
        assert row is not None
        row.disabled = True
    await machines.agents.update(eve, applicant.id, {"labels": {"a": "b"}})
    assert await stored() == (True, ida.user_id), "only the switch itself changes hands"
    await machines.agents.update(eve, applicant.id, {"may_declare": True})
    assert await stored() == (True, eve.user_id)
    await machines.agents.update(eve, applicant.id, {"may_declare": False})
    assert await stored() == (False, eve.user_id)


async def test_deletion_cuts_and_hides(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("underpass.control.agents.CUT_DEADLINE", 0.2)
    applicant = await machines.enrolled()
    await applicant.beat()
    cut: list[str] = []

    async def good(agent_id: str) -> None:
        cut.append(agent_id)

    async def bad(_agent_id: str) -> None:
        raise RuntimeError("a hook's own trouble")

    async def hangs(_agent_id: str) -> None:
        await asyncio.sleep(60)

    machines.agents.on_deleted(bad)
    machines.agents.on_deleted(good)
    news = machines.bus.subscribe(lambda message: message.topic == "agent")
    await machines.agents.delete(ADMIN, applicant.id)
    assert cut == [applicant.id]
    message = await news.next(1)
    assert message is not None
    assert message.data["change"] == "deleted"
    await refusal(machines.agents.show(ADMIN, applicant.id), NotFound)
    await refusal(machines.agents.delete(ADMIN, applicant.id), NotFound)
    assert await names(machines) == []
    assert await machines.secrets.of(applicant.id) is None
    assert machines.history.of(applicant.id) == []
    assert "agent.deleted" in await machines.event_types()

    another = await machines.enrolled()
    machines.agents.on_deleted(hangs)
    async with asyncio.timeout(3):
        await machines.agents.delete(ADMIN, another.id)


async def test_five_thousand_machines_list_quickly(machines: Machines) -> None:
    async with machines.database.session() as db:
        db.add_all(
            Agent(
                id=new_id(), name=f"m{number:04}", client_public_key="", key_fingerprint="",
                hostname=f"h{number}", labels={"n": str(number % 7)}, allowed_users=[],
                status="online", created_at=1, updated_at=1, is_deleted=False, static_info={},
                dynamic_info={}, agent_secret_key="",
            )
            for number in range(5000)
        )  # fmt: skip
    began = asyncio.get_running_loop().time()
    items, total = await machines.agents.page(ADMIN, AgentQuery(labels={"n": "3"}), 3, 50)
    assert (len(items), total) == (50, 714)
    assert asyncio.get_running_loop().time() - began < 2


def test_the_history_is_bounded() -> None:
    history = MetricHistory(max_agents=2)
    for number in range(MAX_POINTS + 10):
        history.add("a", number, {"cpu_percent": number, "load": "odd", "disks": {}})
    points = history.of("a")
    assert len(points) == MAX_POINTS
    assert points[-1]["cpu"] == MAX_POINTS + 9
    assert (points[-1]["load"], points[-1]["disk"], points[-1]["memory"]) == (None, None, None)
    history.add("b", 0, {"cpu_percent": True, "load": [], "disks": []})
    assert history.of("b")[0]["cpu"] is None
    history.add("c", 0, {})
    assert history.of("a") == []
    history.forget("b")
    history.forget("b")
    assert history.of("b") == []
