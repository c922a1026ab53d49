"""Where agents hand in what they declare: only over their newest link, and asked for it again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from tests.gateway.gateways import AGENT_ID
from underpass.control.live import LiveBus
from underpass.core.errors import Conflict, Forbidden
from underpass.core.supervisor import Supervisor
from underpass.gateway.declaration_desk import AGAIN, DECLARE, DeclarationDesk
from underpass.gateway.registry import LinkRegistry
from underpass.links.link import Link, Peer
from underpass.links.memory import memory_links


class Deciding:
    """In the place of ``control.declared.Declarations``."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Any]] = []
        self.failure: Forbidden | None = None

    async def take(self, agent_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.taken.append((agent_id, dict(body)))
        if self.failure is not None:
            raise self.failure
        return {"mappings": []}


class Desk:
    def __init__(self) -> None:
        self.supervisor, self.bus = Supervisor("test"), LiveBus()
        self.registry = LinkRegistry(self.supervisor)
        self.deciding = Deciding()
        DeclarationDesk(self.registry, self.deciding, self.bus)  # type: ignore[arg-type]
        self.links: list[Link] = []
        self.again = asyncio.Event()

    def link(self) -> Link:
        agent, node = memory_links(Peer("agent", AGENT_ID, "box", None, "1", frozenset()))

        async def asked(_link: Link, _body: dict[str, Any]) -> None:
            self.again.set()

        agent.on_control(AGAIN, asked)
        agent.start()
        self.registry.add_agent(node)
        node.start()
        self.links += [agent, node]
        return agent


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    for link in made.links:
        await link.close("done", "The test is over.")
    await made.supervisor.close()


async def test_what_an_agent_declares_is_its_own(desk: Desk) -> None:
    agent = desk.link()
    assert await agent.request(DECLARE, {"mappings": []}) == {"mappings": []}
    assert desk.deciding.taken == [(AGENT_ID, {"mappings": []})]
    desk.deciding.failure = Forbidden("No.", code="may_not_declare", hint="Ask.")
    with pytest.raises(Forbidden) as refused:
        await agent.request(DECLARE, {"mappings": []})
    assert (refused.value.code, refused.value.hint) == ("may_not_declare", "Ask.")


async def test_an_older_link_declares_nothing(desk: Desk) -> None:
    agent, node = desk.link(), desk.links[1]
    desk.registry.remove(node)
    with pytest.raises(Conflict):
        await agent.request(DECLARE, {"mappings": []})
    assert desk.deciding.taken == []


async def test_who_is_changed_is_asked_again(desk: Desk) -> None:
    desk.bus.publish("agent", {"id": AGENT_ID, "change": "updated"})  # nobody is there
    desk.link()
    desk.bus.publish("agent", {"id": AGENT_ID, "change": "online"})
    desk.bus.publish("agent", {"id": "another", "change": "updated"})
    for _ in range(20):
        await asyncio.sleep(0)
    assert not desk.again.is_set()
    desk.bus.publish("agent", {"id": AGENT_ID, "change": "updated"})
    async with asyncio.timeout(5):
        await desk.again.wait()
