"""An agent's listening ports: items it understands, gateways of earlier versions, bad messages."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from underpass.agent.listeners import Listeners
from underpass.agent.listening_port import ListeningPort, Wanted
from underpass.agent.local_flow import LocalFlow
from underpass.agent.policy import Policy
from underpass.agent.policy_file import parse_policy
from underpass.control.agent_config import ConfigLog
from underpass.core.errors import Conflict, Forbidden, InvalidRequest
from underpass.links.datagram_socket import DatagramSocket
from underpass.links.link import Link, Opening, Peer
from underpass.links.memory import memory_links, memory_pair
from underpass.wire.datagrams import encode

GOOD: dict[str, Any] = {
    "name": "db", "version": 3, "protocol": "tcp", "source": {"port": 0}, "target": "tcp:h:1",
    "limits": {}, "options": {"compression": "none", "idle_timeout": None},
}  # fmt: skip


def links() -> tuple[Link, Link]:
    return memory_links(Peer("agent", "a", "box", None, "1", frozenset()))


async def no_link() -> Link:
    raise TimeoutError


class TestWanted:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"protocol": "http"},
            {"protocol": None},
            {"source": None},
            {"source": {}},
            {"source": {"port": 70000}},
            {"source": {"port_range": "9-8"}},
            {"source": {"port_range": "1-"}},
            {"source": {"port_range": "1000-2000"}},
            {"source": {"port": 1, "bind": 5}},
            {"options": {"idle_timeout": -1}},
            {"options": {"compression": "lzma"}},
            {"options": []},
            {"options": {"e2e": True}},
            {"options": {"e2e": 1, "machine": "m"}},
            {"options": {"e2e": True, "machine": 5}},
            {"options": {"e2e": True, "machine": "m"}, "protocol": "udp"},
            {"options": {"e2e": True, "machine": "m"}, "target": None},
            {"options": {"e2e": True, "machine": "m"}, "target": "tcp:h:x"},
        ],
    )
    def test_not_understood(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(InvalidRequest):
            Wanted.of(GOOD | wrong)

    def test_what_each_port_leads_to(self) -> None:
        item = GOOD | {"source": {"port_range": "8000-8002"}, "target": "tcp:[::1]:90"}
        assert Wanted.of(item).target_for(8002) == "tcp:[::1]:92"
        assert Wanted.of(GOOD).target_for(4711) == "tcp:h:1"
        unix = GOOD | {"protocol": "unix", "source": {"port": 1}, "target": "unix:/a"}
        assert Wanted.of(unix).target_for(4711) == "unix:/a"

    def test_what_is_newer_is_passed_over(self) -> None:
        wanted = Wanted.of(GOOD | {"source": {"port_range": "8000-8002"}, "new": 1})
        assert wanted.ports == (8000, 8001, 8002)


class TestListeningPort:
    async def test_denied_by_the_policy(self) -> None:
        policy = parse_policy("deny: [{kind: listen}]")
        with pytest.raises(Forbidden) as denied:
            ListeningPort("m", Wanted.of(GOOD), policy, no_link)
        assert denied.value.code == "policy_denied"

    async def test_a_range_is_all_or_none(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = int(taken.getsockname()[1])
            wide = GOOD | {"source": {"port_range": f"{port - 1}-{port}"}}
            with pytest.raises(Conflict):
                ListeningPort("m", Wanted.of(wide), Policy(), no_link)

    async def test_which_changes_keep_the_port(self) -> None:
        port = ListeningPort("m", Wanted.of(GOOD), Policy(), no_link)
        assert port.serves(Wanted.of(GOOD))
        assert port.serves(Wanted.of(GOOD | {"source": {"port": port.port}, "name": "x"}))
        assert not port.serves(Wanted.of(GOOD | {"source": {"port": port.port - 1}}))
        assert not port.serves(Wanted.of(GOOD | {"protocol": "udp"}))
        assert not port.serves(Wanted.of(GOOD | {"source": {"port": 0, "bind": "::1"}}))
        await port.close()
        await port.close()

    async def test_no_link_ends_the_connection_without_a_byte(self) -> None:
        port = ListeningPort("m", Wanted.of(GOOD), Policy(), no_link)
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
            assert await reader.read() == b""
        writer.close()
        await port.close()

    async def test_closing_ends_connections_that_have_not_begun(self) -> None:
        port = ListeningPort("m", Wanted.of(GOOD), Policy(), asyncio.Event().wait)  # type: ignore[arg-type]
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
            while not port.active:
                await asyncio.sleep(0)
            await port.close()
            with pytest.raises(ConnectionResetError):
                await reader.read()
        writer.close()
        assert not port.active

    async def test_on_every_address_each_datagram_says_which_it_came_to(self) -> None:
        """And its answers leave from there: a connected client hears nothing else."""
        asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        agent, node = links()

        async def opened(opening: Opening) -> None:
            asked.put_nowait(opening.meta)
            stream = opening.accept()
            stream.write(encode(b"answer"))
            await stream.read()
            await stream.close()

        async def linked() -> Link:
            return agent

        node.on_open(opened)
        agent.start()
        node.start()
        policy = parse_policy("allow: [{kind: listen, hosts: [0.0.0.0], ports: 1-65535}]")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("0.0.0.0", 0))
            free = probe.getsockname()[1]
        item = GOOD | {"protocol": "udp", "source": {"port": free, "bind": "0.0.0.0"}}
        port = ListeningPort("m", Wanted.of(item), policy, linked)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.2", port.port))
            client.send(b"question")
            async with asyncio.timeout(5):
                meta = await asked.get()
                while True:
                    try:
                        assert client.recv(100) == b"answer"
                        break
                    except BlockingIOError:
                        await asyncio.sleep(0.01)
        assert meta["local"] == ["127.0.0.2", port.port]
        await port.close()
        await agent.close()
        await node.close()


class TestLocalFlow:
    async def flow(self) -> tuple[LocalFlow, list[bytes]]:
        sent: list[bytes] = []

        class Sock(DatagramSocket):
            def __init__(self) -> None: ...

            def send(self, data: bytes, address: Any = None) -> bool:
                sent.append(data)
                return True

        return LocalFlow(Sock(), ("127.0.0.1", 5)), sent

    async def test_what_came_before_the_stream_is_kept_within_bounds(self) -> None:
        flow, sent = await self.flow()
        for number in range(70):
            flow.take(b"%d" % number)
        assert flow.dropped == 6
        ours, theirs = memory_pair()
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(flow.run(ours))
            assert (await theirs.read()).startswith(encode(b"0"))
            flow.take(b"x" * 65_508)  # longer than IPv4 can carry
            assert flow.dropped == 7
            theirs.write(encode(b"answer"))
            await theirs.write_eof()
        assert sent == [b"answer"]

    async def test_nonsense_from_the_gateway_ends_it(self) -> None:
        flow, sent = await self.flow()
        ours, theirs = memory_pair()
        theirs.write(b"\xff\xff")
        async with asyncio.timeout(5):
            await flow.run(ours)
        assert theirs.closed
        assert sent == []


class TestListeners:
    async def test_a_gateway_of_an_earlier_version(self) -> None:
        agent, node = links()
        agent.start()
        node.start()
        listeners = Listeners(Policy())
        async with asyncio.timeout(5):
            await listeners.linked(agent)
        assert len(listeners) == 0
        await listeners.close()
        await agent.close()
        await node.close()

    async def test_a_gap_makes_it_ask(self) -> None:
        agent, node = links()
        listeners = Listeners(Policy())
        log = ConfigLog("e")
        asked: list[Any] = []

        async def get(_link: Link, body: dict[str, Any]) -> dict[str, Any]:
            asked.append(body["version"])
            return log.since(body["epoch"], body["version"])

        async def states(_link: Link, body: dict[str, Any]) -> None:
            asked.append(body["states"])

        node.on_control("config.get", get)
        node.on_control("config.states", states)
        listeners.prepare(agent)
        agent.start()
        node.start()
        async with asyncio.timeout(5):
            await listeners.linked(agent)
            log.put("m1", GOOD)
            log.put("m2", GOOD | {"protocol": "carrier pigeon"})
            answer = await node.request("config.push", log.since("e", 1))
            assert answer == {"epoch": "e", "version": 0, "states": {}}
            while len(asked) < 4:
                await asyncio.sleep(0.01)
        assert asked[:3] == [0, {}, 0]
        assert asked[3]["m1"]["port"] > 0
        assert asked[3]["m1"]["version"] == 3
        assert "does not understand protocol" in asked[3]["m2"]["error"]
        assert len(listeners) == 1
        with pytest.raises(InvalidRequest):
            await node.request("config.push", {"version": "nonsense"})
        log.remove("m1")
        answer = await node.request("config.push", log.since("e", 2))
        assert answer["version"] == 3
        assert len(listeners) == 0
        await listeners.close()
        await agent.close()
        await node.close()
