"""A link over TCP whose agent's end dials spares and whose node's end takes them, on one port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from underpass.links.carriers.holder import CARRIER, Carriers
from underpass.links.carriers.pool import SpareDesk, SparePool
from underpass.links.carriers.preface import SPARE_PREFACE
from underpass.links.carriers.stream import CarrierStream
from underpass.links.link import Link, Opening, Peer
from underpass.links.stream import Stream
from underpass.links.transports.connection import adopt, connect

KEY = b"k" * 32


@dataclass
class Joined:
    """Both ends and what is between them."""

    node: Link
    agent: Link
    desk: SpareDesk
    pool: SparePool
    port: int

    async def spare(self, count: int = 1) -> None:
        """Return when *count* spares are held; wishes for them until then."""
        async with asyncio.timeout(10):
            while len(self.pool) < count:
                self.pool._demand.wanted(hit=False)
                self.pool._ask()
                await asyncio.sleep(0.002)

    async def open(self, target: str = "x") -> CarrierStream:
        """A stream on a spare."""
        await self.spare()
        spare = self.pool.take()
        assert spare is not None
        stream = spare.claim()
        try:
            stream.hold(await self.node.open(target, {CARRIER: spare.ticket}))
        except BaseException:
            stream.abort()
            raise
        return stream


class _First(asyncio.Protocol):
    def __init__(self, desk: SpareDesk, arrived: asyncio.Future[Any]) -> None:
        self._desk = desk
        self._arrived = arrived
        self._transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(SPARE_PREFACE):
            self._desk.take(self._transport, data)
        else:
            self._arrived.set_result(adopt(self._transport, "tcp", data))


@asynccontextmanager
async def joined(
    opener: Callable[[Opening], Awaitable[None]],
    *,
    node_key: bytes = KEY,
    desk: SpareDesk | None = None,
    agent_idle: float = 90.0,
    **pool: Any,
) -> AsyncIterator[Joined]:
    """A link with *opener* at the agent's end."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[Any] = loop.create_future()
    desk = desk or SpareDesk()
    server = await loop.create_server(lambda: _First(desk, arrived), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Carriers(idle=agent_idle) as carriers:
        peer = Peer("node", "n", "node", f"127.0.0.1:{port}", "1", frozenset())
        agent = Link(await connect("127.0.0.1", port), peer, dialler=True, id="l-1")
        agent.on_open(carriers.serve(agent, KEY, opener))
        agent.start()
        peer = Peer("agent", "a", "agent", None, "1", frozenset({"dedicated"}))
        node = Link(await arrived, peer, dialler=False, id="l-1")
        node.start()
        made = desk.open(node, node_key, **pool)
        try:
            yield Joined(node, agent, desk, made, port)
        finally:
            desk.close(node)
            desk.stop()
            await agent.close()
            await node.close()
            server.close()
            for _ in range(3):
                await asyncio.sleep(0)


async def echo(opening: Opening) -> None:
    """An opener that sends back what comes."""
    await serve_echo(opening.accept())


async def serve_echo(stream: Stream) -> None:
    """Send back what comes."""
    while data := await stream.read():
        stream.write(data)
        await stream.drain()
    await stream.close()
