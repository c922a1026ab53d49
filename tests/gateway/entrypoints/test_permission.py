"""The owner's permission: asked for rarely, forgotten at once when it may have changed."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.entrypoints.world import OWNER, FakeAgents, FakeUsers
from underpass.control.live import LiveBus
from underpass.core.clock import ManualClock
from underpass.core.errors import Forbidden, Unavailable
from underpass.gateway.entrypoints.permission import OwnerRights, action_for


class Asked:
    def __init__(self) -> None:
        self.users, self.agents = FakeUsers(), FakeAgents()
        self.clock, self.bus = ManualClock(), LiveBus()
        self.rights = OwnerRights(self.users, self.agents, self.clock, self.bus)

    async def may(self) -> bool:
        try:
            await self.rights.require(OWNER, "a-1", "forward")
        except Forbidden:
            return False
        return True


async def test_an_answer_lasts_two_seconds() -> None:
    asked = Asked()
    assert await asked.may()
    asked.agents.allowed.clear()
    asked.clock.advance(1.9)
    assert await asked.may()
    asked.clock.advance(0.2)
    assert not await asked.may()


async def test_many_at_once_are_one_question() -> None:
    asked = Asked()
    assert all(await asyncio.gather(*(asked.may() for _ in range(100))))
    assert asked.users.asked == 1


@pytest.mark.parametrize(
    ("topic", "data", "forgets"),
    [
        ("user", {"id": OWNER}, True),
        ("user", {"id": "u-9"}, False),
        ("agent", {"id": "a-1", "change": "updated"}, True),
        ("agent", {"id": "a-1", "change": "deleted"}, True),
        ("agent", {"id": "a-1", "change": "status"}, False),
        ("agent", {"id": "a-9", "change": "updated"}, False),
    ],
)
async def test_news_end_it(topic: str, data: dict[str, str], forgets: bool) -> None:
    asked = Asked()
    assert await asked.may()
    asked.agents.allowed.clear()
    asked.bus.publish(topic, data)
    assert await asked.may() is not forgets


async def test_news_while_the_question_is_under_way() -> None:
    asked = Asked()
    real = asked.agents.view

    async def view(agent_id: str):
        found = await real(agent_id)
        asked.agents.allowed.clear()
        asked.bus.publish("agent", {"id": agent_id, "change": "updated"})
        return found

    asked.agents.view = view  # type: ignore[method-assign]
    await asked.may()
    asked.agents.view = real  # type: ignore[method-assign]
    assert not await asked.may()  # the old answer was not kept


async def test_who_is_gone_or_disabled_may_nothing() -> None:
    for change in ({"disabled": True}, None):
        asked = Asked()
        asked.users.rows[OWNER]["role"] = "admin"
        assert await asked.may()
        asked.clock.advance(3)
        if change is None:
            asked.users.rows.clear()
        else:
            asked.users.rows[OWNER] |= change
        assert not await asked.may()


async def test_a_database_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("underpass.gateway.entrypoints.permission._TIMEOUT", 0.01)
    asked = Asked()

    async def hang(_user_id: str) -> dict[str, object]:
        return await asyncio.get_running_loop().create_future()

    asked.users.get = hang  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await asked.may()


@pytest.mark.parametrize(
    ("target", "action"),
    [
        ("tcp:127.0.0.1:22", "shell"),
        ("tcp:127.0.0.1:80", "forward"),
        ("unix:/x", "forward"),
        ("udp:127.0.0.1:22", "forward"),
        ("udp", "forward"),
    ],
)
def test_what_a_target_needs(target: str, action: str) -> None:
    assert action_for(target) == action
