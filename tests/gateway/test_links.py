"""Links as the gateway holds them: caps, displacement, late ends, counts that return to zero."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.gateway.gateways import (
    ADMIN,
    AGENT_ID,
    NODE_PUBLIC,
    TOKEN,
    agent_identity,
    client_identity,
    gateway,
)
from underpass.control.guest_quota import PER_ADDRESS, PER_GUEST
from underpass.control.subject import Subject
from underpass.core import metrics
from underpass.core.errors import Conflict
from underpass.core.supervisor import Supervisor
from underpass.gateway.registry import LinkRegistry
from underpass.links.dial import dial
from underpass.links.link import Link, OpenRefused, Peer
from underpass.links.memory import memory_links
from underpass.wire.handshake import ClientIdentity, Refused


async def until(true: Callable[[], object], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.005)


def agent_link(agent_id: str = AGENT_ID) -> Link:
    _, far = memory_links(Peer("agent", agent_id, "web-1", "192.0.2.1:5", "1", frozenset()))
    return far


def gauge(role: str) -> float:
    return metrics.LINKS.labels(role)._value.get()


class TestRegistry:
    async def test_a_newer_link_displaces_the_older(self) -> None:
        async with Supervisor("t") as supervisor:
            registry = LinkRegistry(supervisor)
            news: list[tuple[str, ...]] = []
            registry.on_agent_linked(lambda link: news.append(("linked", link.peer.id)))
            registry.on_agent_lost(lambda agent_id, _link: news.append(("lost", agent_id)))
            registry.on_agent_displaced(lambda *_links: news.append(("displaced",)))
            older, newer = agent_link(), agent_link()
            assert registry.add_agent(older) is None
            assert registry.add_agent(newer) is older
            assert registry.agent(AGENT_ID) is newer
            assert news == [("linked", AGENT_ID), ("displaced",), ("linked", AGENT_ID)]
            await until(lambda: older.closed)
            # The late end of the older one changes nothing.
            assert not registry.remove(older)
            assert registry.agent(AGENT_ID) is newer
            assert gauge("agent") == 1
            assert registry.remove(newer)
            assert not registry.remove(newer)
            assert news[3:] == [("lost", AGENT_ID)]
            assert gauge("agent") == 0
            await newer.close()

    async def test_a_dead_link_is_no_link(self) -> None:
        async with Supervisor("t") as supervisor:
            registry = LinkRegistry(supervisor)
            link = agent_link()
            registry.add_agent(link)
            await link.close()
            assert registry.agent(AGENT_ID) is None
            assert list(registry.agents()) == [link]
            replaced: list[object] = []
            registry.on_agent_displaced(lambda *links: replaced.append(links))
            registry.add_agent(agent_link())
            assert replaced == []  # nobody was thrown out

    async def test_one_listeners_mistake_costs_nobody_else(self) -> None:
        async with Supervisor("t") as supervisor:
            registry = LinkRegistry(supervisor)
            seen: list[Link] = []

            def broken(_link: Link) -> None:
                raise ZeroDivisionError

            registry.on_agent_linked(broken)
            registry.on_agent_linked(seen.append)
            link = agent_link()
            registry.add_agent(link)
            assert seen == [link]
            assert await registry.close_agent(AGENT_ID, "deleted", "x")
            assert link.closed
            assert not await registry.close_agent("other", "deleted", "x")

    async def test_clients(self) -> None:
        async with Supervisor("t") as supervisor:
            registry = LinkRegistry(supervisor)
            _, link = memory_links(Peer("client", ADMIN.user_id, "ada", None, "1", frozenset()))
            registry.add_client(link, ADMIN)
            assert registry.subject_of(link) is ADMIN
            assert (registry.client_count, gauge("client")) == (1, 1)
            assert await registry.close_user("nobody", "x", "y") == 0
            assert await registry.close_user(ADMIN.user_id, "x", "y") == 1
            assert registry.remove(link)
            assert registry.subject_of(link) is None
            assert (registry.client_count, gauge("client")) == (0, 0)


class TestServer:
    async def test_displacement_is_an_event_and_the_old_link_learns_why(self) -> None:
        async with gateway() as node:
            first = await dial(node.url, agent_identity())
            first.start()
            await until(lambda: node.registry.agent_count)
            with node.bus.subscribe() as news:
                second = await dial(node.url, agent_identity(), pinned_key=NODE_PUBLIC)
                second.start()
                async with asyncio.timeout(5):
                    assert (await first.wait_closed()).code == "displaced"
                await until(lambda: node.events.named("agent.displaced"))
                message = await news.next(1)
                assert message is not None
                assert message.data == {"id": AGENT_ID, "agent_id": AGENT_ID, "linked": True}
            link = node.registry.agent(AGENT_ID)
            assert link is not None
            assert link.id == second.id
            assert node.router.is_linked(AGENT_ID)
            await second.close()
            await until(lambda: node.registry.agent_count == 0)
            assert not node.router.is_linked(AGENT_ID)

    async def test_guests_have_few_links_by_login_and_by_address(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "underpass.gateway.link_server.PER_ADDRESS", replace(PER_ADDRESS, links=3)
        )
        async with gateway() as node:
            for number in range(4):
                node.identities.known[f"g-{number}"] = Subject(f"guest:{number}", "g", "guest")

            async def link(token: str) -> Link:
                made = await dial(node.url, ClientIdentity(token, name="cli"))
                made.start()
                return made

            async def refused(token: str) -> None:
                made = await link(token)
                async with asyncio.timeout(5):
                    assert (await made.wait_closed()).code == "busy"

            links = [await link("g-0") for _ in range(PER_GUEST.links)]
            await until(lambda: node.registry.client_count == PER_GUEST.links)
            await refused("g-0")
            links.append(await link("g-1"))
            await until(lambda: node.registry.client_count == 3)
            await refused("g-2")
            links.append(await link(TOKEN))  # people are not concerned
            await until(lambda: node.registry.client_count == 4)
            await links[0].close()
            await until(lambda: node.registry.client_count == 3)
            monkeypatch.setattr("underpass.gateway.link_server.MAX_GUEST_LINKS", 2)
            await refused("g-2")
            monkeypatch.undo()
            links.append(await link("g-2"))
            await until(lambda: node.registry.client_count == 4)
            for one in links:
                await one.close()

    async def test_a_claim_without_the_secret_displaces_nobody(self) -> None:
        async with gateway() as node:
            link = await dial(node.url, agent_identity())
            link.start()
            await until(lambda: node.registry.agent_count)
            with pytest.raises(Refused):
                await dial(node.url, agent_identity(b"guess" * 7))
            assert not link.closed
            assert not node.events.named("agent.displaced")
            await link.close()

    async def test_unknown_and_wrong_secret_take_the_same_time(self) -> None:
        async with gateway() as node:
            loop = asyncio.get_running_loop()
            times: dict[str, float] = {}
            for name, identity in (
                ("wrong", agent_identity(b"x" * 32)),
                ("unknown", agent_identity(agent_id="2" * 36)),
            ):
                began = loop.time()
                with pytest.raises(Refused) as refused:
                    await dial(node.url, identity)
                times[name] = loop.time() - began
                assert refused.value.message == "The gateway does not know these credentials."
            assert min(times.values()) >= 0.2

    async def test_handshakes_are_capped_in_all_and_by_address(self) -> None:
        for caps in ({"max_handshakes": 2}, {"max_handshakes_per_address": 2}, {"max_links": 0}):
            async with gateway(**caps) as node:
                held = []
                if "max_links" not in caps:
                    for _ in range(2):
                        _, writer = await asyncio.open_connection("127.0.0.1", node.front.port)
                        writer.write(b"UNDPASS1")
                        held.append(writer)
                    await until(lambda node=node: node.link_server.handshakes == 2)
                with pytest.raises(Refused) as refused:
                    await dial(node.url, agent_identity(), pinned_key=NODE_PUBLIC)
                assert (refused.value.code, refused.value.retry_after) == ("busy", 2.0)
                assert not refused.value.final
                for writer in held:
                    writer.close()
                await until(lambda node=node: node.link_server.handshakes == 0)

    async def test_a_slow_handshake_ends_by_the_deadline(self) -> None:
        async with gateway(timeout=0.1) as node:
            reader, writer = await asyncio.open_connection("127.0.0.1", node.front.port)
            writer.write(b"UNDPASS1\x00")
            async with asyncio.timeout(5):
                assert b"timeout" in await reader.read()
            writer.close()
            assert node.link_server.handshakes == 0

    async def test_a_failing_database_is_told_as_such(self) -> None:
        async with gateway() as node:

            async def broken(_agent_id: str) -> bytes | None:
                raise OSError("the database is away")

            node.secrets.of = broken  # type: ignore[method-assign]
            with pytest.raises(Refused) as refused:
                await dial(node.url, agent_identity(), pinned_key=NODE_PUBLIC)
            assert (refused.value.code, refused.value.final) == ("internal", False)
            assert refused.value.retry_after == 5.0

    async def test_names_and_settings_reach_both_ends(self) -> None:
        async def name(_agent_id: str) -> str:
            return "the machine's name"

        found: list[object] = []
        async with gateway(agent_name=name, agent_settings={"heartbeat": 7}) as node:
            link = await dial(
                node.url, agent_identity(), on_established=lambda e: found.append(e.settings)
            )
            await until(lambda: node.registry.agent_count)
            (seen,) = node.registry.agents()
            assert seen.peer.name == "the machine's name"
            assert found == [{"heartbeat": 7}]
            await link.close()

    async def test_nobody_comes_in_while_draining(self) -> None:
        async with gateway() as node:
            await node.link_server.stop(1)
            with pytest.raises(Refused) as refused:
                await dial(node.url, agent_identity())
            assert refused.value.code == "going_away"

    async def test_a_machine_deleted_during_its_handshake_keeps_no_link(self) -> None:
        async with gateway() as node:
            known = node.secrets.known

            async def deleted_now(agent_id: str) -> bytes | None:
                return known.pop(agent_id, None)  # the handshake gets it, then it is gone

            node.secrets.of = deleted_now  # type: ignore[method-assign]
            link = await dial(node.url, agent_identity())
            async with asyncio.timeout(5):
                assert (await link.wait_closed()).code == "unknown_agent"
            await until(lambda: node.registry.agent_count == 0)

    async def test_a_client_is_served(self) -> None:
        served: list[object] = []
        async with gateway(serve_client=lambda link, subject: served.append(subject)) as node:
            link = await dial(node.url, client_identity(TOKEN))
            link.start()
            await until(lambda: node.registry.client_count)
            assert served
            await link.close()
            await until(lambda: node.registry.client_count == 0)

    async def test_only_one_event_a_minute_and_bounded_memory(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("underpass.gateway.link_server._MAX_REMEMBERED", 1)
        async with gateway() as node:
            node.link_server._told["elsewhere"] = 0.0
            for _ in range(2):
                with pytest.raises(Refused):
                    await dial(node.url, agent_identity(b"x" * 32))
            await until(lambda: node.events.named("link.refused"))
            (event,) = node.events.named("link.refused")
            assert event["rule"] == "not_enrolled"
            assert event["object_id"] == AGENT_ID
            assert list(node.link_server._told) == ["127.0.0.1"]


class TestRouter:
    async def test_going_away_is_unlinked(self) -> None:
        async with gateway() as node:
            link = await dial(node.url, agent_identity())
            link.start()
            await until(lambda: node.router.is_linked(AGENT_ID))
            await link.go_away("update")
            await until(lambda: not node.router.is_linked(AGENT_ID))
            with pytest.raises(Conflict):
                await node.router.request(AGENT_ID, "metrics", {})
            await link.close()

    async def test_the_agent_learns_for_whom_and_cannot_be_told_otherwise(self) -> None:
        async with gateway() as node:
            link = await dial(node.url, agent_identity())
            seen: list[object] = []

            async def opener(opening: object) -> None:
                seen.append(opening.meta)  # type: ignore[attr-defined]

            async def answer(_link: Link, body: dict[str, object]) -> dict[str, object]:
                return {"got": body}

            link.on_open(opener)
            link.on_control("metrics", answer)
            link.start()
            await until(lambda: node.router.is_linked(AGENT_ID))
            with pytest.raises(OpenRefused):
                await node.router.open(
                    AGENT_ID, "weird:x", on_behalf_of=ADMIN, meta={"user": "root", "a": 1}
                )
            assert seen == [{"user": {"id": "u-1", "username": "ada"}, "a": 1}]
            assert await node.router.request(AGENT_ID, "metrics", {"x": 1}) == {"got": {"x": 1}}
            await link.close()
