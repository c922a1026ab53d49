"""The one port: links and HTTP side by side, slow and rude clients, draining."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.gateway.gateways import AGENT_ID, Gateway, agent_identity, certificate, gateway
from underpass.gateway.front import PortUnavailable
from underpass.gateway.http.middleware import ForwardedHeaders
from underpass.links.dial import dial
from underpass.links.trust import client_context


@pytest.fixture(
    scope="module",
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def talk(
    node: Gateway, data: bytes, *, tls: ssl.SSLContext | None = None, pieces: int = 1
) -> bytes:
    """Send *data*, read until the gateway closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.front.port, ssl=tls)
    try:
        size = -(-len(data) // pieces) or 1
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            if pieces > 1:
                await asyncio.sleep(0.005)
        async with asyncio.timeout(5):
            try:
                return await reader.read()
            except ConnectionResetError:
                return b"<reset>"
    finally:
        writer.close()


GET = b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\n12345"


class TestHttp:
    @pytest.mark.parametrize("tls", [False, True])
    @pytest.mark.parametrize("pieces", [1, 7, 60])
    async def test_requests_arrive_whole(self, tls: bool, pieces: int, tmp_path: Path) -> None:
        made = certificate(tmp_path) if tls else None
        async with gateway(tls=made) as node:
            context = client_context(made.fingerprint) if made else None
            answer = await talk(node, GET, tls=context, pieces=pieces)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"GET /hello 0 127.0.0.1")
            assert b"\r\ndate: " in answer
            assert b"\r\nserver: " not in answer
            answer = await talk(node, POST, tls=context, pieces=pieces)
            assert answer.endswith(b"POST /hello 5 127.0.0.1")

    async def test_alpn_decides_before_a_byte_is_sent(self, tmp_path: Path) -> None:
        made = certificate(tmp_path)
        async with gateway(tls=made) as node:
            context = client_context(made.fingerprint, alpn=("http/1.1",))
            assert (await talk(node, GET, tls=context)).startswith(b"HTTP/1.1 200")
            # A link by ALPN that then speaks HTTP gets nothing.
            context = client_context(made.fingerprint, alpn=("underpass/1",))
            assert await talk(node, GET, tls=context) == b""

    async def test_keep_alive_and_pipelining(self) -> None:
        async with gateway() as node:
            keep = GET.replace(b"Connection: close\r\n", b"")
            answer = await talk(node, keep + keep + GET)
            assert answer.count(b"HTTP/1.1 200 OK") == 3

    async def test_websockets(self, tmp_path: Path) -> None:
        made = certificate(tmp_path)
        for tls in (None, made):
            async with gateway(tls=tls) as node:
                url = node.url.replace("http", "ws") + "/echo"
                context = client_context(made.fingerprint) if tls else None
                async with websockets.connect(url, ssl=context) as socket_:
                    await socket_.send("hello")
                    assert await socket_.recv() == "HELLO"

    async def test_rubbish_is_answered_with_400(self) -> None:
        async with gateway() as node:
            assert (await talk(node, b"\x00\x01\x02rubbish\r\n\r\n")).startswith(b"HTTP/1.1 400")

    async def test_heads_without_end_are_cut(self) -> None:
        async with gateway() as node:
            answer = await talk(node, b"GET / HTTP/1.1\r\nX: " + b"x" * (1 << 20))
            assert answer.startswith(b"HTTP/1.1 431") or answer == b"<reset>"
            # Large bodies and small heads are no trouble.
            body = b"z" * (1 << 20)
            head = POST.partition(b"Content-Length")[0] + b"Content-Length: %d\r\n\r\n" % len(body)
            assert (await talk(node, head + body)).endswith(b"POST /hello 1048576 127.0.0.1")


class TestSlowClients:
    async def test_silence_ends_by_the_deadline(self) -> None:
        node = Gateway()
        node.front = node.make_front(sniff_timeout=0.1, head_timeout=0.2)
        await node.front.start()
        try:
            assert await talk(node, b"") in (b"", b"<reset>")
            assert await talk(node, b"UNDP") in (b"", b"<reset>")
            assert await talk(node, b"GET / HT") in (b"", b"<reset>")
            # A second request that never ends, on a connection that was good before.
            keep = GET.replace(b"Connection: close\r\n", b"")
            answer = await talk(node, keep + b"GET /hello HTTP/1.1\r\nHo")
            assert answer.count(b"200 OK") == 1
            assert node.front.connections == 0
        finally:
            await node.stop()

    async def test_they_hold_up_nobody(self) -> None:
        async with gateway() as node:
            silent = [
                await asyncio.open_connection("127.0.0.1", node.front.port) for _ in range(50)
            ]
            half = [await asyncio.open_connection("127.0.0.1", node.front.port) for _ in range(50)]
            for _, writer in half:
                writer.write(b"UNDPASS1\x00")
            link = await dial(node.url, agent_identity())
            assert (await talk(node, GET)).startswith(b"HTTP/1.1 200")
            assert len(node.front.undecided) == 50
            await link.close()
            for _, writer in silent + half:
                writer.close()

    async def test_too_many_undecided_are_dropped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("underpass.gateway.front.MAX_UNDECIDED", 2)
        async with gateway() as node:
            held = [await asyncio.open_connection("127.0.0.1", node.front.port) for _ in range(2)]
            async with asyncio.timeout(5):
                while len(node.front.undecided) < 2:
                    await asyncio.sleep(0.01)
            assert await talk(node, b"") in (b"", b"<reset>")
            for _, writer in held:
                writer.close()


class TestLinkWebSocket:
    UPGRADE = (
        b"GET /api/v1/link%s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"
    )

    async def test_a_stray_get_goes_to_the_application(self) -> None:
        async with gateway() as node:
            get = GET.replace(b"/hello", b"/api/v1/link")
            assert (await talk(node, get)).startswith(b"HTTP/1.1 404")
            # In pieces, too: what is not all here is the application's.
            assert (await talk(node, self.UPGRADE % (b"", b""), pieces=3)).startswith(
                b"HTTP/1.1 403"
            )

    async def test_a_bad_upgrade_ends(self) -> None:
        async with gateway() as node:
            broken = (self.UPGRADE % (b"?x", b"")).replace(b"Sec-WebSocket-Key", b"X-Key")
            answer = await talk(node, broken)
            assert not answer.startswith(b"HTTP/1.1 101")
            assert node.link_server.handshakes == 0

    @pytest.mark.parametrize(
        ("trusted", "header", "address"),
        [
            (["127.0.0.1"], b"X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
            (["127.0.0.1"], b"X-Forwarded-For: 1.1.1.1, 203.0.113.9\r\n", "203.0.113.9"),
            ([], b"X-Forwarded-For: 203.0.113.9\r\n", "127.0.0.1"),
            (["127.0.0.1"], b"", "127.0.0.1"),
        ],
    )
    async def test_the_clients_address_behind_a_proxy(
        self, trusted: list[str], header: bytes, address: str
    ) -> None:
        node = Gateway()
        seen: list[str | None] = []
        node.front = node.make_front(forwarded=ForwardedHeaders(node.app, trusted).rewrite)
        node.front._on_link = lambda pipe, at: (seen.append(at), pipe.close())
        await node.front.start()
        try:
            answer = await talk(node, self.UPGRADE % (b"", header))
            assert answer.startswith(b"HTTP/1.1 101")
            assert seen == [address]
        finally:
            await node.stop()


class TestStartAndStop:
    async def test_a_port_in_use_is_one_clear_line(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            node = Gateway()
            node.front = node.make_front(port=taken.getsockname()[1])
            with pytest.raises(PortUnavailable, match="is in use"):
                await node.front.start()
            await node.stop()

    async def test_other_reasons(self) -> None:
        node = Gateway()
        node.front = node.make_front()
        node.front.host = "203.0.113.1"
        with pytest.raises(PortUnavailable, match=r"Can't listen on 203\.0\.113\.1"):
            await node.front.start()
        await node.stop()

    async def test_draining_lets_a_request_finish(self) -> None:
        async with gateway() as node:
            node.app.state.go_on = asyncio.Event()
            reader, writer = await asyncio.open_connection("127.0.0.1", node.front.port)
            writer.write(GET.replace(b"/hello", b"/slow"))
            async with asyncio.timeout(5):
                await reader.readuntil(b"first")
                stopping = asyncio.ensure_future(node.front.stop(5))
                with pytest.raises(OSError):
                    while True:
                        _, extra = await asyncio.open_connection("127.0.0.1", node.front.port)
                        extra.close()
                        await asyncio.sleep(0.01)
                node.app.state.go_on.set()
                assert b"second" in await reader.read()
                await stopping
            writer.close()
            assert node.front.connections == 0

    async def test_draining_ends_by_its_deadline(self) -> None:
        async with gateway() as node:
            node.app.state.go_on = asyncio.Event()
            reader, writer = await asyncio.open_connection("127.0.0.1", node.front.port)
            writer.write(GET.replace(b"/hello", b"/slow"))
            _, silent = await asyncio.open_connection("127.0.0.1", node.front.port)
            async with websockets.connect(node.url.replace("http", "ws") + "/echo") as echo:
                async with asyncio.timeout(5):
                    await reader.readuntil(b"first")
                    await node.front.stop(0.2)
                    with pytest.raises(websockets.ConnectionClosed) as closed:
                        await echo.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            assert node.front.connections == 0
            writer.close()
            silent.close()

    async def test_links_end_with_going_away(self) -> None:
        async with gateway() as node:
            link = await dial(node.url, agent_identity())
            link.start()
            assert node.registry.agent(AGENT_ID) is not None
            await node.link_server.stop(2)
            async with asyncio.timeout(5):
                assert (await link.wait_closed()).code == "going_away"
            assert node.registry.agent_count == 0
