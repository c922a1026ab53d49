"""SOCKS5 and HTTP CONNECT mappings: where clients get out, and what they are told when not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.gateway.entrypoints.world import (
    UdpClient,
    UdpEcho,
    World,
    after_the_end,
    echo,
    mapping,
    serving,
    until,
    world,
)
from tests.links.loops import anyio_backend  # noqa: F401
from underpass.control.mapping import Source
from underpass.core import metrics
from underpass.core.errors import Forbidden
from underpass.wire.proxy_protocol import encode_v2
from underpass.wire.socks5 import ClientHandshake, Connected, Socks5Refused, build_udp, parse_udp

LOGIN = {"username": "ada", "password": "pass word"}


async def open_port(here: World, **options: Any) -> int:
    opened = await here.tunnels.open(mapping("socks5", target_host=None, **options))
    assert opened.public_port is not None
    return opened.public_port


class Proxied:
    """A client's connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.bound: Connected

    async def shake(self, handshake: ClientHandshake, ahead: bytes = b"") -> None:
        async with asyncio.timeout(5):
            while True:
                self.writer.write(handshake.data_to_send() + ahead)
                data = await self.reader.read(1024)
                assert data, "the proxy hung up"
                if done := handshake.feed(data):
                    (self.bound,) = done
                    return


@asynccontextmanager
async def through(
    port: int, *target: Any, first: bytes = b"", host: str = "127.0.0.1", **more: Any
) -> AsyncIterator[Proxied]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        made = Proxied(reader, writer)
        writer.write(first)
        await made.shake(ClientHandshake(*target, **more))
        yield made
    finally:
        writer.close()


async def reply_of(port: int, *target: Any, **more: Any) -> int | None:
    with pytest.raises(Socks5Refused) as refused:
        async with through(port, *target, **more):
            pass
    return refused.value.reply


class TestConnect:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    async def test_bytes_and_half_close(self, host: str) -> None:
        async with world() as here, serving(after_the_end) as target:
            port = await open_port(here)
            async with through(port, host, target) as client:
                client.writer.write(b"x" * 100_000)
                client.writer.write_eof()
                assert await client.reader.read(-1) == b"100000:" + b"x" * 100_000
            await until(lambda: here.at_rest)

    async def test_ipv6(self) -> None:
        async with world() as here, serving(echo, "::1") as target:
            async with through(await open_port(here), "::1", target, host="::1") as client:
                client.writer.write(b"six")
                assert await client.reader.read(10) == b"six"
            assert here.opened[0][0] == f"tcp:[::1]:{target}"

    async def test_names_are_the_agents_to_resolve(self) -> None:
        async with world() as here, serving(echo) as target:
            async with through(await open_port(here), "localhost", target):
                assert here.opened[0][0] == f"tcp:localhost:{target}"

    async def test_with_a_login(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, **LOGIN)
            async with through(port, "127.0.0.1", target, **LOGIN) as client:
                client.writer.write(b"in")
                assert await client.reader.read(10) == b"in"

    @pytest.mark.parametrize("login", [{}, {"username": "ada", "password": "guess"}])
    async def test_not_without_it(self, login: Any) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, **LOGIN)
            assert await reply_of(port, "127.0.0.1", target, **login) is None
            assert here.opened == []
            await until(lambda: here.at_rest)

    async def test_guessing_ends(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, **LOGIN)
            for _ in range(10):
                await reply_of(port, "127.0.0.1", target, username="ada", password="guess")
            # Now not even the right one, until the minute is over.
            await reply_of(port, "127.0.0.1", target, **LOGIN)
            (event,) = here.events.named("stream.denied")
            assert event["details"]["reason"] == "login"

    async def test_replies_say_why(self) -> None:
        async with world() as here:
            port = await open_port(here)
            with socket.create_server(("127.0.0.1", 0)) as probe:
                free = probe.getsockname()[1]
            assert await reply_of(port, "127.0.0.1", free) == 5
            assert await reply_of(port, "169.254.169.254", 80) == 2
            assert await reply_of(port, "203.0.113.1", 80) == 2
            assert await reply_of(port, "no.such.name.invalid", 80) == 4
            await here.cut_agent(here.links[1])
            assert await reply_of(port, "127.0.0.1", free) == 1
            here.agents.allowed.clear()
            here.around.rights._known.clear()
            assert await reply_of(port, "127.0.0.1", free) == 2
            await until(lambda: here.at_rest)

    async def test_bind_is_not_offered(self) -> None:
        async with world() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", await open_port(here))
            writer.write(b"\5\1\0" + b"\5\2\0\1\x7f\0\0\1\0\x50")
            got = await asyncio.wait_for(reader.readexactly(12), 5)
            assert got[:2] == b"\5\0"
            assert got[3] == 7
            writer.close()

    async def test_a_client_that_says_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("underpass.gateway.entrypoints.socks5.HANDSHAKE_TIMEOUT", 0.02)
        async with world() as here:
            port = await open_port(here)
            for data in (b"", b"\5", b"CONNECT "):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(data)
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(-1), 5) == b""
                writer.close()
            await until(lambda: here.at_rest)

    async def test_behind_a_balancer(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, accept_proxy_protocol=True)
            header = encode_v2(("203.0.113.9", 4711), ("198.51.100.1", 443))
            async with through(port, "127.0.0.1", target, first=header) as client:
                client.writer.write(b"x")
                assert await client.reader.read(10) == b"x"
            assert here.opened[0][1]["source"] == "203.0.113.9:4711"

    async def test_only_loopback_is_open_to_everybody(self) -> None:
        async with world() as here:
            with pytest.raises(Forbidden) as refused:
                await open_port(here, source=Source(bind="0.0.0.0"))
            assert refused.value.code == "login_needed"
            assert len(here.tunnels) == 0
            here.tunnels._own_address = "0.0.0.0"
            with pytest.raises(Forbidden):
                await open_port(here)
            assert await open_port(here, source=Source(bind="127.0.0.1"))


class TestHttpConnect:
    async def _ask(self, port: int, head: bytes) -> tuple[bytes, Proxied]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        return answer.split(b" ")[1], Proxied(reader, writer)

    async def test_on_the_same_port(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here)
            where = b"127.0.0.1:%d" % target
            head = b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\nahead" % (where, where)
            status, client = await self._ask(port, head)
            assert status == b"200"
            assert await client.reader.readexactly(5) == b"ahead"
            client.writer.write(b"more")
            assert await client.reader.readexactly(4) == b"more"
            client.writer.close()
            await until(lambda: here.at_rest)

    async def test_statuses(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, **LOGIN)
            where = b"127.0.0.1:%d" % target
            head = b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n" % (where, where)
            login = base64.b64encode(b"ada:pass word")
            good = b"Proxy-Authorization: Basic %s\r\n\r\n" % login
            wrong = b"Proxy-Authorization: Basic %s\r\n\r\n" % base64.b64encode(b"ada:x")
            for asked, expected in (
                (head + good, b"200"),
                (head + b"\r\n", b"407"),
                (head + wrong, b"407"),
                (b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
                (head.replace(where, b"169.254.169.254:80") + good, b"403"),
            ):
                status, client = await self._ask(port, asked)
                assert status == expected
                client.writer.close()
            await until(lambda: here.at_rest)


class TestUdpAssociate:
    async def test_datagrams_there_and_back(self) -> None:
        async with world() as here:
            target, other = UdpEcho(), UdpEcho()
            port = await open_port(here)
            async with through(port, "0.0.0.0", 0, command="udp_associate") as control:
                assert control.bound == Connected("127.0.0.1", port)
                client = UdpClient(control.bound.port)
                for size in (0, 1, 1400, 60_000):
                    answer = await client.ask(build_udp("127.0.0.1", target.port, b"d" * size))
                    assert parse_udp(answer) == ("127.0.0.1", target.port, b"d" * size)
                answer = await client.ask(build_udp("localhost", other.port, b"name"))
                assert parse_udp(answer) == ("127.0.0.1", other.port, b"name")
                assert here.tunnels.live("m-1").active == 1
                client.sock.close()
            await until(lambda: here.at_rest)
            target.sock.close()
            other.sock.close()

    async def test_it_dies_with_its_connection(self) -> None:
        async with world() as here:
            target = UdpEcho()
            port = await open_port(here)
            client = UdpClient(port)
            datagram = build_udp("127.0.0.1", target.port, b"x")
            async with through(port, "0.0.0.0", 0, command="udp_associate"):
                await client.ask(datagram)
            await until(lambda: here.at_rest)
            before = metrics.DATAGRAMS_DROPPED.labels("unknown")._value.get()
            client.send(datagram)
            await until(
                lambda: metrics.DATAGRAMS_DROPPED.labels("unknown")._value.get() == before + 1
            )
            assert len(target.heard) == 1
            client.sock.close()
            target.sock.close()

    async def test_two_at_a_time_from_one_host(self) -> None:
        async with world() as here:
            target = UdpEcho()
            port = await open_port(here)
            first, second = UdpClient(port), UdpClient(port)
            datagram = build_udp("127.0.0.1", target.port, b"x")
            async with through(port, "0.0.0.0", 0, command="udp_associate"):
                async with through(port, "0.0.0.0", second.address[1], command="udp_associate"):
                    assert await second.ask(datagram) == datagram  # it said its port
                    assert await first.ask(datagram) == datagram
                await until(lambda: here.tunnels.active == 1)
                assert await first.ask(datagram) == datagram
            first.sock.close()
            second.sock.close()
            target.sock.close()

    async def test_only_the_controls_host_is_heard(self) -> None:
        async with world() as here:
            target = UdpEcho()
            port = await open_port(here)
            datagram = build_udp("127.0.0.1", target.port, b"x")
            stranger, client = UdpClient(port, "::1"), UdpClient(port)
            async with through(port, "0.0.0.0", 0, command="udp_associate"):
                before = here.tunnels.live("m-1").dropped
                stranger.send(datagram)
                await until(lambda: here.tunnels.live("m-1").dropped == before + 1)
                assert await client.ask(datagram) == datagram
            assert len(target.heard) == 1
            stranger.sock.close()
            client.sock.close()
            target.sock.close()

    async def test_fragments_and_rubbish_are_dropped_alone(self) -> None:
        async with world() as here:
            target = UdpEcho()
            port = await open_port(here)
            good = build_udp("127.0.0.1", target.port, b"x")
            client = UdpClient(port)
            async with through(port, "0.0.0.0", 0, command="udp_associate"):
                for bad in (b"", b"\0\0\1" + good[3:], b"\1" + good[1:], good[:5]):
                    client.send(bad)
                client.send(build_udp("169.254.169.254", 80, b"x"))
                assert await client.ask(good) == good
            assert len(target.heard) == 1
            client.sock.close()
            target.sock.close()

    async def test_flows_run_out(self) -> None:
        async with world() as here:
            here.around.flows.limit = 0
            assert await reply_of(await open_port(here), "0.0.0.0", 0, command="udp_associate")
            await until(lambda: here.at_rest)
