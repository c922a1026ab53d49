"""Links as WebSockets inside the framework: requests in pieces, text messages, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import websockets
from fastapi import FastAPI

from tests.gateway.gateways import (
    ADMIN,
    AGENT_ID,
    NODE_PUBLIC,
    Gateway,
    agent_identity,
)
from underpass.gateway.http.links import router
from underpass.links.dial import dial
from underpass.links.link import Opening
from underpass.wire.handshake import Refused


@asynccontextmanager
async def house() -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway whose application has the route, behind a proxy that sends heads in pieces."""
    node = Gateway()
    app = FastAPI()
    app.include_router(router)
    app.state.services = SimpleNamespace(link_server=node.link_server)
    node.app = app  # type: ignore[assignment]
    node.front = node.make_front()
    await node.front.start()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", node.front.port)
        head = await reader.readuntil(b"\r\n\r\n")
        up_writer.write(head[:40])
        await asyncio.sleep(0.02)
        up_writer.write(head[40:])

        async def pump(a: asyncio.StreamReader, b: asyncio.StreamWriter) -> None:
            try:
                while data := await a.read(65536):
                    b.write(data)
                    await b.drain()
            except OSError:
                pass
            b.close()

        await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield node, f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    finally:
        await node.stop()
        proxy.close()


async def test_a_link_and_a_megabyte_through_it() -> None:
    async with house() as (node, url):
        link = await dial(url, agent_identity(), transport="websocket", pinned_key=NODE_PUBLIC)

        async def echo(opening: Opening) -> None:
            stream = opening.accept()
            while data := await stream.read():
                stream.write(data)
                await stream.drain()
            await stream.write_eof()

        link.on_open(echo)
        link.start()
        async with asyncio.timeout(10):
            while node.registry.agent(AGENT_ID) is None:
                await asyncio.sleep(0.01)
            seen = node.registry.agent(AGENT_ID)
            assert seen is not None
            assert seen.carrier == "websocket"
            assert (seen.peer.address or "").startswith("127.0.0.1")
            stream = await node.router.open(AGENT_ID, "tcp:h:1", on_behalf_of=ADMIN)
            sent = bytes(range(256)) * 4096

            async def send() -> None:
                for start in range(0, len(sent), 50_000):
                    stream.write(sent[start : start + 50_000])
                    await stream.drain()
                await stream.write_eof()

            got = bytearray()

            async def receive() -> None:
                while data := await stream.read():
                    got.extend(data)

            await asyncio.gather(send(), receive())
            assert bytes(got) == sent
        await link.close()


async def test_refusals_arrive() -> None:
    async with house() as (_node, url):
        with pytest.raises(Refused) as refused:
            await dial(url, agent_identity(b"x" * 32), transport="websocket")
        assert refused.value.code == "not_enrolled"


async def test_a_text_message_ends_it() -> None:
    async with house() as (node, url):
        async with websockets.connect(url.replace("http", "ws") + "/api/v1/link") as socket:
            await socket.send("hello")
            async with asyncio.timeout(5):
                with pytest.raises(websockets.ConnectionClosed):
                    await socket.recv()
        async with asyncio.timeout(5):
            while node.link_server.handshakes:
                await asyncio.sleep(0.01)
