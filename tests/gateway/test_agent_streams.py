"""Mappings whose source is an agent: pushed, listened for, carried, counted, refused and cut."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.gateway.entrypoints.world import (
    OWNER,
    UdpClient,
    UdpEcho,
    World,
    after_the_end,
    ask,
    echo,
    mapping,
    serving,
    until,
    world,
)
from tests.gateway.gateways import AGENT_ID
from underpass.agent.listeners import Listeners
from underpass.agent.policy import Policy
from underpass.control.mapping import Mapping, Source
from underpass.core.clock import ManualClock
from underpass.core.errors import Conflict, Unavailable, UnderpassError
from underpass.gateway.config_push import FEATURE
from underpass.links.link import Link, OpenRefused, Peer
from underpass.links.memory import memory_links

FAR = "22222222-2222-4222-8222-222222222222"


class Far:
    """The machine that listens."""

    def __init__(self, here: World) -> None:
        self.here = here
        self.listeners = Listeners(Policy(), retry=0.0)
        self.agent: Link
        self.node: Link

    async def link(self, features: frozenset[str] = frozenset({FEATURE})) -> Link:
        self.agent, self.node = memory_links(Peer("agent", FAR, "far", None, "1", features))
        self.listeners.prepare(self.agent)
        self.agent.start()
        self.here.registry.add_agent(self.node)
        self.node.start()
        await self.listeners.linked(self.agent)
        self.here.links += [self.agent, self.node]
        return self.agent

    async def cut(self) -> None:
        await self.here.cut_agent(self.node)
        await self.agent.wait_closed()


@asynccontextmanager
async def far(
    *, linked: bool = True, clock: ManualClock | None = None
) -> AsyncIterator[tuple[World, Far]]:
    async with world(clock=clock) as here:
        machine = Far(here)
        if linked:
            await machine.link()
        try:
            yield here, machine
        finally:
            await machine.listeners.close()


def at_far(protocol: Any = "tcp", port: int = 0, at: int = 0, **more: Any) -> Mapping:
    return mapping(protocol, port, source=Source("agent", at, None, FAR, more.pop("bind", None)),
                   **more)  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TestConnections:
    async def test_from_one_machine_to_another(self) -> None:
        async with far() as (here, machine), serving(after_the_end) as target:
            opened = await here.tunnels.open(at_far("tcp", target))
            assert opened.status == "active"
            assert opened.public_port is None
            assert await ask(opened.source.port, b"x" * 300_000) == b"300000:" + b"x" * 300_000
            assert here.opened[-1][0] == f"tcp:127.0.0.1:{target}"
            assert here.opened[-1][1]["source"].startswith("127.0.0.1:")
            assert here.opened[-1][1]["user"]["id"] == OWNER
            live = here.tunnels.live("m-1")
            assert (live.total_connections, live.bytes_sent, live.bytes_received) == (
                1, 300_000, 300_007,
            )  # fmt: skip
            await until(lambda: here.at_rest and not machine.listeners.active)

    @pytest.mark.parametrize("compression", ["zstd", "adaptive"])
    async def test_compressed(self, compression: str) -> None:
        async with far() as (here, machine), serving(echo) as target:
            opened = await here.tunnels.open(at_far("tcp", target, compression=compression))
            assert await ask(opened.source.port, b"y" * 500_000) == b"y" * 500_000
            await until(lambda: machine.agent.streams == 0)

    async def test_refused_by_the_target(self) -> None:
        async with far() as (here, machine):
            opened = await here.tunnels.open(at_far("tcp", free_port()))
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", opened.source.port)
                assert await reader.read() == b""  # without ending our own direction
                writer.close()
            await until(lambda: here.at_rest and not machine.listeners.active)

    async def test_limits_are_the_gateways(self) -> None:
        async with far() as (here, machine), serving(echo) as target:
            opened = await here.tunnels.open(at_far("tcp", target, connections=1))
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.source.port)
            writer.write(b"a")
            assert await reader.read(1) == b"a"
            assert await ask(opened.source.port, b"b") == b""
            await here.tunnels.change(at_far("tcp", target, opened.source.port, connections=2))
            assert await ask(opened.source.port, b"b") == b"b"
            writer.write(b"c")
            assert await reader.read(1) == b"c"  # it was not dropped by the change
            writer.close()
            await until(lambda: here.at_rest and not machine.listeners.active)

    async def test_denied_source(self) -> None:
        async with far() as (here, _), serving(echo) as target:
            opened = await here.tunnels.open(at_far("tcp", target, deny_ips=("127.0.0.0/8",)))
            assert await ask(opened.source.port, b"b") == b""

    async def test_owner_lost_the_permission(self) -> None:
        async with far() as (here, machine), serving(echo) as target:
            opened = await here.tunnels.open(at_far("tcp", target))
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.source.port)
            writer.write(b"a")
            assert await reader.read(1) == b"a"
            here.agents.allowed.clear()
            here.bus.publish("agent", {"id": FAR, "change": "updated"})
            await here.tunnels.recheck()
            async with asyncio.timeout(5):
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            writer.close()
            assert await ask(opened.source.port, b"b") == b""
            await until(lambda: not machine.listeners.active)

    async def test_socks5(self) -> None:
        async with far() as (here, machine), serving(echo) as target:
            opened = await here.tunnels.open(
                at_far("socks5", target_host=None, target_port=None, username="u", password="p")
            )
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", opened.source.port)
                writer.write(b"\5\1\2\1\1u\1p\5\1\0\1\x7f\0\0\1" + target.to_bytes(2, "big"))
                assert (await reader.readexactly(14))[:6] == b"\5\2\1\0\5\0"
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                writer.close()
            await until(lambda: here.at_rest and not machine.listeners.active)


class TestDatagrams:
    async def test_boundaries_sources_and_the_end(self) -> None:
        async with far() as (here, machine):
            target = UdpEcho()
            opened = await here.tunnels.open(at_far("udp", target.port))
            one, two = UdpClient(opened.source.port), UdpClient(opened.source.port)
            for data in (b"", b"x", b"z" * 65_507):
                assert await one.ask(data) == data
            assert await two.ask(b"second") == b"second"
            live = here.tunnels.live("m-1")
            assert (live.active, live.bytes_sent) == (2, 65_514)
            assert here.agent_streams.sources == 2
            await here.tunnels.close("m-1", "done")
            await until(lambda: not machine.listeners.active and not here.agent_streams.sources)
            assert here.at_rest
            for each in (one.sock, two.sock, target.sock):
                each.close()

    async def test_idle_flows_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with far() as (here, machine):
            target = UdpEcho()
            opened = await here.tunnels.open(at_far("udp", target.port, idle_timeout=0.05))
            client = UdpClient(opened.source.port)
            assert await client.ask(b"x") == b"x"
            (port,) = machine.listeners._open.values()
            port.expire()
            assert port.active == 1
            (flow,) = port._flows.values()
            flow.moved_at -= 1
            port.expire()
            await until(lambda: not port.active and not here.agent_streams.sources)
            assert await client.ask(b"y") == b"y"  # a new one
            client.sock.close()
            target.sock.close()

    async def test_socks5_association(self) -> None:
        async with far() as (here, _):
            target = UdpEcho()
            opened = await here.tunnels.open(at_far("socks5", target_host=None, target_port=None))
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", opened.source.port)
                writer.write(b"\5\1\0\5\3\0\1\0\0\0\0\0\0")
                answer = await reader.readexactly(12)
                assert answer[:6] == b"\5\0\5\0\0\1"
                assert answer[6:] == b"\x7f\0\0\1" + opened.source.port.to_bytes(2, "big")
                client = UdpClient(opened.source.port)
                head = b"\0\0\0\1\x7f\0\0\1" + target.port.to_bytes(2, "big")
                assert await client.ask(head + b"hello") == head + b"hello"
                writer.close()
            client.sock.close()
            await until(lambda: not here.tunnels.active)
            target.sock.close()


class TestWhoMayOpen:
    async def test_only_its_own_mappings(self) -> None:
        async with far() as (here, machine), serving(echo) as target:
            await here.tunnels.open(at_far("tcp", target))
            await here.tunnels.open(mapping("tcp", target, id="m-2"))
            meta = {"source": ["127.0.0.1", 5], "local": ["127.0.0.1", 6]}
            other = here.links[0]  # the target's agent
            for link, wanted, code in (
                (other, "mapping:m-1", "no_such_mapping"),
                (machine.agent, "mapping:m-2", "no_such_mapping"),
                (machine.agent, "mapping:nope", "no_such_mapping"),
                (machine.agent, "tcp:127.0.0.1:22", "invalid_target"),
                (machine.agent, "exec", "invalid_target"),
            ):
                with pytest.raises(OpenRefused) as refused:
                    await link.open(wanted, meta)
                assert refused.value.code == code
            await here.tunnels.close("m-1", "gone")
            with pytest.raises(OpenRefused):
                await machine.agent.open("mapping:m-1", meta)

    @pytest.mark.parametrize(
        "meta",
        [
            {},
            {"source": ["localhost", 5]},
            {"source": ["127.0.0.1", 70000]},
            {"source": ["127.0.0.1"]},
            {"source": "127.0.0.1:5"},
            {"local": None},
            {"datagrams": True},
            {"layers": {"e2e": True}},
            {"layers": {"compression": "lzma"}},
        ],
    )
    async def test_nonsense(self, meta: dict[str, Any]) -> None:
        async with far() as (here, machine), serving(echo) as target:
            await here.tunnels.open(at_far("tcp", target))
            good = {"source": ["127.0.0.1", 5], "local": ["127.0.0.1", 6]}
            with pytest.raises(OpenRefused) as refused:
                await machine.agent.open("mapping:m-1", good | meta if meta else {})
            assert refused.value.status == 400
            assert here.at_rest


class TestEncrypted:
    async def test_never_in_clear(self) -> None:
        """Not even when the machine that listens would have it so."""
        async with far() as (here, machine), serving(echo) as target:
            await here.tunnels.open(at_far("tcp", target, e2e=True))
            meta = {"source": ["127.0.0.1", 5], "local": ["127.0.0.1", 6]}
            with pytest.raises(OpenRefused) as refused:
                await machine.agent.open("mapping:m-1", meta)
            assert refused.value.code == "invalid_layers"
            assert here.at_rest

    async def test_whose_key_is_told_to_whom(self) -> None:
        async with far() as (here, machine), serving(echo) as target:
            await here.tunnels.open(at_far("tcp", target, e2e=True))
            here.keys[AGENT_ID] = "sha256:" + "ab" * 32
            told = await machine.agent.request("mapping.key", {"mapping": "m-1"})
            assert told == {"machine": AGENT_ID, "key_fingerprint": here.keys[AGENT_ID]}
            for nonsense in ({}, {"mapping": "m-2"}, {"mapping": ["m-1"]}):
                with pytest.raises(UnderpassError) as refused:
                    await machine.agent.request("mapping.key", nonsense)
                assert refused.value.code == "no_such_mapping"
            await here.tunnels.open(mapping(port=target, id="m-3"))
            with pytest.raises(UnderpassError):
                await machine.agent.request("mapping.key", {"mapping": "m-3"})


class TestPush:
    async def test_port_in_use_is_told_and_tried_again(self) -> None:
        async with far() as (here, machine), serving(echo) as target:
            blocker = socket.create_server(("127.0.0.1", 0))
            port = int(blocker.getsockname()[1])
            opened = await here.tunnels.open(at_far("tcp", target, port))
            assert opened.status == "error"
            assert f"TCP port {port} is in use on the machine" in str(opened.error)
            machine.listeners.retry()
            await here.tunnels.tell_states()
            assert here.mappings.statuses == []
            blocker.close()
            machine.listeners.retry()
            await until(lambda: here.tunnels._states)
            await here.tunnels.tell_states()
            assert here.mappings.statuses == [("m-1", "active", None)]
            assert await ask(port, b"now") == b"now"

    async def test_policy_says_where(self) -> None:
        async with far() as (here, _):
            opened = await here.tunnels.open(at_far("tcp", 80, free_port(), bind="0.0.0.0"))
            assert opened.status == "error"
            assert "may not listen" in str(opened.error)

    async def test_away_for_fifty_changes(self) -> None:
        async with far() as (here, machine), serving(echo) as target:
            kept = await here.tunnels.open(at_far("tcp", target))
            reader, writer = await asyncio.open_connection("127.0.0.1", kept.source.port)
            await machine.cut()
            ports = [free_port() for _ in range(25)]
            for number, port in enumerate(ports):
                await here.tunnels.open(at_far("tcp", target, port, id=f"m{number}"))
            for number in range(25):
                if number % 5:
                    await here.tunnels.close(f"m{number}", "gone")
            before = here.tunnels.config_push.version(FAR)[0]
            assert before >= 46
            assert len(machine.listeners) == 1
            await machine.link()
            assert len(machine.listeners) == 6
            assert here.tunnels.config_push.version(FAR) == (before, before)
            for number in range(0, 25, 5):
                assert await ask(ports[number], b"hi") == b"hi"
            writer.close()
            await reader.read()

    async def test_a_restarted_gateway_leaves_ports_open(self) -> None:
        async with far() as (here, machine), serving(echo) as target:
            opened = await here.tunnels.open(at_far("tcp", target))
            (before,) = machine.listeners._open.values()
            await machine.cut()
            async with world() as successor:
                await successor.tunnels.open(at_far("tcp", target, opened.source.port))
                machine.here = successor
                await machine.link()
                (after,) = machine.listeners._open.values()
                assert after is before
                assert await ask(opened.source.port, b"again") == b"again"

    async def test_connections_wait_for_the_link(self) -> None:
        async with far() as (here, machine), serving(echo) as target:
            opened = await here.tunnels.open(at_far("tcp", target))
            await machine.cut()
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(ask(opened.source.port, b"patient"))
                await until(lambda: machine.listeners.active)
                await machine.link()
            assert asking.result() == b"patient"

    async def test_moved_and_forgotten(self) -> None:
        async with far() as (here, machine), serving(echo) as target:
            first, second = free_port(), free_port()
            await here.tunnels.open(at_far("tcp", target, first))
            await here.tunnels.close("m-1", "moved")
            await here.tunnels.open(at_far("tcp", target, second))
            assert await ask(second, b"x") == b"x"
            with pytest.raises(ConnectionRefusedError):
                await ask(first, b"x")
            machine.listeners.forget()
            with pytest.raises(ConnectionRefusedError):
                await ask(second, b"x")

    async def test_what_cannot_be(self) -> None:
        async with far(linked=False) as (here, machine):
            with pytest.raises(Conflict) as unlinked:
                await here.tunnels.open(at_far("tcp", 80))
            assert unlinked.value.code == "agent_unlinked"
            await machine.link(frozenset())
            with pytest.raises(Unavailable) as old:
                await here.tunnels.open(at_far("tcp", 80, 8080))
            assert old.value.code == "source_not_offered"
            assert not len(here.tunnels)

    async def test_a_message_that_was_lost_is_pushed_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("underpass.gateway.config_push.PUSH_TIMEOUT", 0.05)
        monkeypatch.setattr("underpass.gateway.config_push.RETRY", 0.01)
        async with far() as (here, machine), serving(echo) as target:
            heard = machine.listeners._pushed
            lost = 0

            async def deaf(link: Link, body: dict[str, Any]) -> dict[str, Any]:
                nonlocal lost
                lost += 1
                if lost == 1:
                    await asyncio.sleep(60)
                return await heard(link, body)

            machine.agent.on_control("config.push", deaf)
            opened = await here.tunnels.open(at_far("tcp", target))
            assert await ask(opened.source.port, b"x") == b"x"
            assert lost >= 2

    async def test_half_a_list_is_told_to_nobody(self) -> None:
        async with far(linked=False) as (here, machine), serving(echo) as target:
            here.mappings.stored = [
                at_far("tcp", target, free_port(), id=f"m{number}") for number in range(3)
            ]
            push = here.tunnels.config_push
            with push.holding():
                async with asyncio.TaskGroup() as group:
                    linking = group.create_task(machine.link())
                    await until(lambda: push.can_listen(FAR))
                    await asyncio.sleep(0.05)
                    assert not linking.done()
                    await here.tunnels.start()
            assert len(machine.listeners) == 3
            for stored in here.mappings.stored:
                assert await ask(stored.source.port, b"x") == b"x"
