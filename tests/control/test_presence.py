"""Presence: every transition by an injected clock, and what is written down for each."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from tests.control.machines import ADMIN, Machines
from underpass.control.presence import LINK_GRACE, Change, PresenceBoard
from underpass.core.errors import Unavailable
from underpass.store.db.database import Database
from underpass.store.db.models import Agent


def board(started_at: float = 0.0) -> PresenceBoard:
    return PresenceBoard(started_at)


def test_a_linked_machine_with_heartbeats_is_online() -> None:
    here = board()
    assert here.status("a") == "offline"
    assert here.linked("a", 0) == Change("a", "offline", "online")
    for now in range(0, 600, 30):
        assert here.heartbeat("a", now, "link") is None
        assert here.tick(now + 29) == []
    assert here.status("a") == "online"
    assert len(here) == 1


def test_three_missed_heartbeats_make_one_change() -> None:
    here = board()
    here.linked("a", 0)
    here.heartbeat("a", 10, "link")
    assert here.tick(99.9) == []
    assert here.tick(100) == [Change("a", "online", "offline")]
    assert here.tick(101) == []
    assert here.tick(1000) == []
    assert here.heartbeat("a", 1001, "link") == Change("a", "offline", "online")


def test_a_machine_without_its_link_is_degraded_after_a_moment() -> None:
    here = board()
    here.linked("a", 0)
    here.heartbeat("a", 0, "link")
    assert here.unlinked("a", 5) is None
    assert here.tick(5 + LINK_GRACE - 0.1) == []
    assert here.tick(5 + LINK_GRACE) == [Change("a", "online", "degraded")]
    assert here.heartbeat("a", 30, "link") is None
    assert here.linked("a", 40) == Change("a", "degraded", "online")


def test_a_quick_relink_is_no_news() -> None:
    here = board()
    here.linked("a", 0)
    assert here.unlinked("a", 1) is None
    assert here.linked("a", 5) is None
    assert here.tick(60) == []


def test_a_machine_that_was_offline_is_not_degraded_on_its_way_back() -> None:
    here = board()
    here.linked("a", 0)
    here.unlinked("a", 10)
    here.tick(10 + LINK_GRACE)
    assert here.tick(90) == [Change("a", "degraded", "offline")]
    # Its first heartbeat comes over HTTPS, before its link is there.
    assert here.heartbeat("a", 1000, "link") == Change("a", "offline", "online")
    assert here.linked("a", 1001) is None
    assert here.tick(1020) == []


def test_the_link_of_a_deleted_machine_ends_without_a_trace() -> None:
    here = board()
    here.linked("a", 0)
    here.forget("a")
    assert here.unlinked("a", 1) is None
    assert len(here) == 0


def test_a_degraded_machine_that_falls_silent_goes_offline() -> None:
    here = board()
    assert here.heartbeat("a", 0, "link") == Change("a", "offline", "online")
    assert here.tick(LINK_GRACE) == [Change("a", "online", "degraded")]
    assert here.tick(90) == [Change("a", "degraded", "offline")]


def test_poll_mode_needs_no_link() -> None:
    here = board()
    assert here.heartbeat("a", 0, "poll") == Change("a", "offline", "online")
    assert here.tick(89) == []
    assert here.heartbeat("a", 60, "link") is None, "from now on the link is awaited"
    assert here.tick(60 + LINK_GRACE) == [Change("a", "online", "degraded")]


def test_maintenance_holds_until_a_person_lifts_it() -> None:
    here = board()
    here.linked("a", 0)
    assert here.set_maintenance("a", True, 1) == Change("a", "online", "maintenance")
    assert here.set_maintenance("a", True, 2) is None
    assert here.unlinked("a", 3) is None
    assert here.heartbeat("a", 4, "link") is None
    assert here.tick(500) == []
    assert here.set_maintenance("a", False, 500) == Change("a", "maintenance", "offline")
    here.linked("a", 501)
    here.set_maintenance("a", True, 502)
    assert here.set_maintenance("a", False, 503) == Change("a", "maintenance", "online")


def test_a_restart_makes_no_storm() -> None:
    here = board(started_at=1000)
    for number in range(200):
        here.load(f"m{number}", "online")
    here.load("gone", "offline")
    here.load("half", "degraded")
    here.load("fixing", "maintenance")
    for now in range(1000, 1090, 5):
        assert here.tick(now) == []
    for number in range(199):
        assert here.linked(f"m{number}", 1010) is None
        assert here.heartbeat(f"m{number}", 1080, "link") is None
    assert here.tick(1089.9) == []
    assert here.tick(1090) == [Change("m199", "online", "offline"), Change("half", "degraded",
                                                                          "offline")]  # fmt: skip
    assert here.status("gone") == "offline"
    assert here.status("fixing") == "maintenance"
    assert here.set_maintenance("fixing", False, 1100) == Change("fixing", "maintenance", "offline")


def test_after_a_restart_a_heartbeat_without_link_gets_its_grace() -> None:
    here = board(started_at=0)
    here.load("a", "online")
    assert here.heartbeat("a", 30, "link") is None
    assert here.tick(44) == []
    assert here.tick(45) == [Change("a", "online", "degraded")]
    here.load("p", "online")
    assert here.heartbeat("p", 30, "poll") is None


def test_a_deleted_machine_is_forgotten() -> None:
    here = board()
    here.linked("a", 0)
    here.forget("a")
    here.forget("a")
    assert here.tick(1000) == []
    assert here.status("a") == "offline"


# -- the shell --------------------------------------------------------------------------------


@pytest.fixture
def machines(database: Database) -> Machines:
    return Machines(database)


async def test_changes_are_written_with_one_event_each(machines: Machines) -> None:
    applicant = await machines.enrolled()
    news = machines.bus.subscribe(lambda message: message.topic == "agent")
    machines.presence.linked(applicant.id)
    await machines.presence.tick()
    assert (await machines.agents.show(ADMIN, applicant.id))["status"] == "online"
    machines.clock.advance(90)
    for _ in range(5):
        await machines.presence.tick()
    assert (await machines.agents.show(ADMIN, applicant.id))["status"] == "offline"
    assert machines.presence.status(applicant.id) == "offline"
    types = await machines.event_types("agent.o")
    assert types == ["agent.offline", "agent.online"]
    seen = [await news.next(1) for _ in range(2)]
    assert [message.data["status"] for message in seen if message] == ["online", "offline"]


async def test_a_restart_takes_over_what_was_written(machines: Machines) -> None:
    applicant = await machines.enrolled()
    await applicant.beat(metrics={"mode": "poll"})
    restarted = machines.restarted()
    machines.clock.advance(3600)
    await restarted.presence.load()
    await restarted.presence.tick()
    assert restarted.presence.status(applicant.id) == "online"
    machines.clock.advance(89)
    await restarted.presence.tick()
    assert await machines.event_types("agent.off") == []
    machines.clock.advance(1)
    await restarted.presence.tick()
    again = machines.restarted()
    await again.presence.load()
    machines.clock.advance(300)
    await again.presence.tick()
    assert await machines.event_types("agent.off") == ["agent.offline"]


async def test_a_link_is_written_down_at_once_by_the_running_loop(machines: Machines) -> None:
    applicant = await machines.enrolled()
    news = machines.bus.subscribe(lambda message: message.topic == "agent")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(machines.presence.run())
        await asyncio.sleep(0.05)
        machines.presence.linked(applicant.id)
        message = await news.next(0.8)
        running.cancel()
    assert message is not None
    assert message.data["status"] == "online"
    assert (await machines.agents.show(ADMIN, applicant.id))["status"] == "online"


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("UPDATE", {}, Exception("gone")),
        Unavailable("The database is busy.", code="database_busy"),
    ],
)
async def test_what_could_not_be_written_is_written_later(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    first, second = await machines.enrolled("one"), await machines.enrolled("two")
    write = machines.presence._write

    async def broken(_changes: list[Change]) -> None:
        machines.presence.linked(second.id)  # more happens while the database is away
        raise error

    monkeypatch.setattr(machines.presence, "_write", broken)
    machines.presence.linked(first.id)
    await machines.presence.tick()
    machines.clock.advance(90)
    await machines.presence.tick()  # online and offline again: nothing left to say of it
    machines.presence.linked(second.id)
    monkeypatch.setattr(machines.presence, "_write", write)
    await machines.presence.tick()
    assert (await machines.agents.show(ADMIN, first.id))["status"] == "offline"
    assert (await machines.agents.show(ADMIN, second.id))["status"] == "online"
    assert await machines.event_types("agent.o") == ["agent.online"]


async def test_maintenance_through_the_shell(machines: Machines) -> None:
    applicant = await machines.enrolled()
    await machines.presence.set_maintenance(applicant.id, True)
    assert (await machines.agents.show(ADMIN, applicant.id))["status"] == "maintenance"
    machines.presence.unlinked(applicant.id)
    machines.presence.forget(applicant.id)
    async with machines.database.session() as db:
        await db.execute(update(Agent).values(status="online"))
    await machines.presence.load()
    assert machines.presence.status(applicant.id) == "online"
