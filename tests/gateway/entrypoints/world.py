"""Entry points with real sockets in front and an agent with its real openers behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.gateway.entrypoints.account import FakeQuotas, FakeTraffic
from tests.gateway.gateways import AGENT_ID, FakeEvents
from underpass.agent.openers import dispatch
from underpass.agent.openers.tcp import tcp_opener, unix_opener
from underpass.agent.openers.udp import udp_opener
from underpass.agent.policy import Policy
from underpass.control.access import AgentView
from underpass.control.live import LiveBus
from underpass.control.mapping import Limits, Mapping, Options, Source
from underpass.core import metrics
from underpass.core.clock import Clock, SystemClock
from underpass.core.errors import NotFound
from underpass.core.supervisor import Supervisor
from underpass.gateway.agent_streams import AgentStreams
from underpass.gateway.entrypoints.admission import AddressRules, Places
from underpass.gateway.entrypoints.allowances import Allowances
from underpass.gateway.entrypoints.entry_point import EntryPoint, Surroundings
from underpass.gateway.entrypoints.permission import OwnerRights
from underpass.gateway.entrypoints.refusals import Refusals
from underpass.gateway.registry import LinkRegistry
from underpass.gateway.router import Router
from underpass.gateway.tunnels import Tunnels
from underpass.links.datagram_socket import Address, DatagramSocket
from underpass.links.link import Link, Opening, Peer
from underpass.links.memory import memory_links

OWNER = "u-2"


async def until(true: Callable[[], object], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.005)


class FakeUsers:
    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {
            OWNER: {"username": "bob", "role": "user", "disabled": False}
        }
        self.asked = 0
        self.fails = False

    async def get(self, user_id: str) -> dict[str, Any]:
        self.asked += 1
        if self.fails:
            raise OSError("the database is away")
        if user_id not in self.rows:
            raise NotFound("There is no such user.")
        return self.rows[user_id]


class FakeAgents:
    def __init__(self) -> None:
        self.allowed = {OWNER}

    async def view(self, agent_id: str) -> AgentView | None:
        return AgentView(agent_id, "web-1", frozenset(self.allowed))


class FakeMappings:
    """The store, in memory."""

    def __init__(self) -> None:
        self.stored: list[Mapping] = []
        self.statuses: list[tuple[str, str, str | None]] = []
        self.usage: list[dict[str, Any]] = []
        self.fails = False
        self.adding = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def active(self) -> list[Mapping]:
        return self.stored

    async def set_status(self, mapping_id: str, status: str, error: str | None = None) -> bool:
        self.statuses.append((mapping_id, status, error))
        return True

    async def add_usage(self, mapping_id: str, **usage: Any) -> None:
        self.adding += 1
        try:
            await self.answers.wait()
        finally:
            self.adding -= 1
        if self.fails:
            raise OSError("the database is away")
        self.usage.append({"id": mapping_id, **usage})


class World:
    """A node's entry points and one agent, which is linked from the start."""

    def __init__(
        self, supervisor: Supervisor, clock: Clock, balancers: AddressRules | None
    ) -> None:
        self.events = FakeEvents()
        self.users = FakeUsers()
        self.agents = FakeAgents()
        self.bus = LiveBus()
        self.registry = LinkRegistry(supervisor)
        self.mappings = FakeMappings()
        self.opened: list[tuple[str, dict[str, Any]]] = []
        self.links: list[Link] = []
        self.gate: asyncio.Event | None = None
        self.traffic = FakeTraffic()
        self.allowances = Allowances(FakeQuotas(), self.traffic, clock, self.bus)
        self.around = Surroundings(
            router=Router(self.registry),
            rights=OwnerRights(self.users, self.agents, clock, self.bus),
            refusals=Refusals(self.events, clock, supervisor),  # type: ignore[arg-type]
            clock=clock,
            connections=Places(1000),
            flows=Places(2000),
            balancers=balancers,
            allowances=self.allowances,
        )
        self.tunnels = Tunnels(
            self.mappings, self.around, bus=self.bus, clock=clock, registry=self.registry,
            own_address="127.0.0.1",
        )  # fmt: skip
        self.keys: dict[str, str] = {}
        self.agent_streams = AgentStreams(self.registry, self.tunnels.at_agent, self.key_of)
        self._openers = dispatch(
            {
                "tcp": tcp_opener(Policy()),
                "unix": unix_opener(Policy()),
                "udp": udp_opener(Policy()),
            }
        )

    def quota(self, **limits: int | None) -> None:
        """The owner's, from now on."""
        self.bus.publish("quota", {"user_id": OWNER, "limits": limits})

    def link_agent(self, agent_id: str = AGENT_ID) -> Link:
        agent, node = memory_links(Peer("agent", agent_id, "web-1", None, "1", frozenset()))
        agent.on_open(self._opened)
        agent.start()
        self.registry.add_agent(node)
        node.start()
        self.links += [agent, node]
        return node

    async def key_of(self, agent_id: str) -> str | None:
        """The key on record of each machine."""
        return self.keys.get(agent_id)

    async def cut_agent(self, node: Link) -> None:
        await node.close("link_lost", "The cable was cut.")
        self.registry.remove(node)

    async def _opened(self, opening: Opening) -> None:
        self.opened.append((opening.target, opening.meta))
        if self.gate is not None:
            await self.gate.wait()
        await self._openers(opening)

    def entry(self, mapping: Mapping) -> EntryPoint:
        return self.tunnels._open[mapping.id].entry

    @property
    def at_rest(self) -> bool:
        """Whether nothing is left of what was open."""
        gauges = [
            metrics.MAPPING_CONNECTIONS.labels(protocol).value
            for protocol in ("tcp", "udp", "socks5")
        ] + [metrics.STREAMS.labels(kind).value for kind in ("tcp", "udp")]
        return not (
            any(gauges)
            or self.tunnels.active
            or self.around.connections.taken
            or self.around.flows.taken
            or any(link.streams for link in self.links)
        )


@asynccontextmanager
async def world(
    *, agent: bool = True, clock: Clock | None = None, balancers: AddressRules | None = None
) -> AsyncIterator[World]:
    async with Supervisor("t") as supervisor:
        made = World(supervisor, clock or SystemClock(), balancers)
        if agent:
            made.link_agent()
        try:
            yield made
        finally:
            await made.tunnels.stop()
            await made.allowances.stop()
            for link in made.links:
                await link.close()


def mapping(protocol: Any = "tcp", port: int = 0, **more: Any) -> Mapping:
    """A mapping of bob's to *port* on the agent's machine; options and limits by their names."""
    limits = {k: more.pop(k) for k in ("bandwidth", "connections", "burst") if k in more}
    source = more.pop("source", Source())
    known = {name: more.pop(name) for name in list(more) if name in Options.__dataclass_fields__}
    base: dict[str, Any] = {
        "id": "m-1", "name": "m", "user_id": OWNER, "target_agent_id": AGENT_ID,
        "target_host": "127.0.0.1", "target_port": port,
    } | more  # fmt: skip
    return Mapping(
        protocol=protocol, source=source, limits=Limits(**limits), options=Options(**known), **base
    )


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """A TCP server for as long as the context lasts; its port."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(guarded, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers only once it has read everything: it needs a half-close."""
    data = await reader.read(-1)
    writer.write(b"%d:" % len(data) + data)
    await writer.drain()


async def ask(port: int, data: bytes, host: str = "127.0.0.1") -> bytes:
    """Send *data*, end, and read to the end."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(data)
            with contextlib.suppress(OSError):  # ended over there already
                writer.write_eof()
            return await reader.read(-1)
        finally:
            writer.close()


class UdpEcho:
    """Answers every datagram with itself."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.heard: list[tuple[bytes, Address]] = []
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((host, port))
        self.port = int(sock.getsockname()[1])
        self.sock = DatagramSocket(sock, self._received)

    def _received(self, data: bytes, address: Address) -> None:
        self.heard.append((data, address))
        self.sock.send(data, address)


class UdpClient:
    """Somebody with a socket of their own."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((host, port))
        self.address = sock.getsockname()
        self.sock = DatagramSocket(sock, lambda data, _: self._queue.put_nowait(data))

    def send(self, data: bytes) -> None:
        assert self.sock.send(data)

    async def next(self, timeout: float = 5.0) -> bytes:
        async with asyncio.timeout(timeout):
            return await self._queue.get()

    async def ask(self, data: bytes) -> bytes:
        self.send(data)
        return await self.next()

    @property
    def waiting(self) -> int:
        return self._queue.qsize()
