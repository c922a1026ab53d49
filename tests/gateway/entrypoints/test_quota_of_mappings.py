"""A person's quota at the entry points of their mappings: who is let in, and what ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from tests.gateway.entrypoints.test_tcp import open_port, refusals
from tests.gateway.entrypoints.world import (
    OWNER,
    UdpClient,
    UdpEcho,
    World,
    ask,
    echo,
    mapping,
    serving,
    until,
    world,
)
from underpass.core import metrics
from underpass.core.errors import TooManyRequests
from underpass.links.sockets import SocketStream


async def month_is_over(here: World) -> None:
    await here.allowances.flush()
    here.quota(monthly_traffic=1)
    await here.allowances.of(OWNER)._books.load(here.allowances.of(OWNER))


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(bytes(65536))
        await writer.drain()


class TestConnections:
    async def test_the_smaller_of_both_limits_holds_for_each_mapping(self) -> None:
        async with world() as here, serving(echo) as target:
            here.quota(max_connections_per_mapping=2)
            mine = await open_port(here, port=target, connections=1)
            free = await open_port(here, port=target, id="m-2")
            for port, most in ((mine, 1), (free, 2)):
                held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(most)]
                await until(lambda: here.tunnels.active)
                assert await ask(port, b"x") == b""
                for _, writer in held:
                    writer.close()
            await until(lambda: here.at_rest)

    async def test_parallel_connects_get_exactly_the_quota(self) -> None:
        async with world() as here, serving(echo) as target:
            here.quota(max_connections_per_mapping=5)
            port = await open_port(here, port=target)

            async def visit() -> asyncio.StreamWriter | None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with contextlib.suppress(ConnectionError):
                    writer.write(b"x")
                    if await reader.read(1):
                        return writer
                writer.close()
                return None

            async with asyncio.timeout(10):
                held = [one for one in await asyncio.gather(*(visit() for _ in range(30))) if one]
            assert len(held) == 5
            here.quota(max_connections_per_mapping=1)
            assert here.tunnels.active == 5  # who is in stays in
            here.quota()
            assert await ask(port, b"x") == b"x"
            for one in held:
                one.close()


class TestMonthlyTraffic:
    async def test_what_is_open_ends_and_nothing_more_comes_in(self) -> None:
        async with world() as here, serving(flood) as target:
            here.quota(monthly_traffic=2_000_000)
            port = await open_port(here, port=target)
            before, cuts = refusals("quota"), metrics.QUOTA_CUTS._value.get()

            async def download() -> int:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                got = 0
                with contextlib.suppress(ConnectionError):
                    while data := await reader.read(65536):
                        got += len(data)
                writer.close()
                return got

            async with asyncio.timeout(10):
                sizes = await asyncio.gather(*(download() for _ in range(8)))
            chunk = 256 << 10
            assert sum(sizes) <= 2_000_000 + chunk
            assert 2_000_000 <= here.allowances.of(OWNER).used <= 2_000_000 + chunk
            assert metrics.QUOTA_CUTS._value.get() == cuts + 8
            opened = len(here.opened)
            assert await ask(port, b"x") == b""
            assert len(here.opened) == opened
            assert refusals("quota") == before + 9
            await until(lambda: here.events.named("stream.denied"))
            details = here.events.named("stream.denied")[0]["details"]
            assert details["code"] == "quota_exceeded"
            assert "used up" in details["error"]
            await until(lambda: here.at_rest)

    async def test_it_works_again_once_raised(self) -> None:
        async with world() as here, serving(echo) as target:
            port = await open_port(here, port=target)
            assert await ask(port, b"12345") == b"12345"
            await month_is_over(here)
            assert await ask(port, b"12345") == b""
            here.quota(monthly_traffic=1000)
            assert await ask(port, b"12345") == b"12345"
            assert here.allowances.of(OWNER).used == 20

    async def test_nobody_gets_in_while_the_account_cannot_be_read(self) -> None:
        async with world() as here, serving(echo) as target:
            here.quota(monthly_traffic=1000)
            here.traffic.fails = True
            port = await open_port(here, port=target)
            assert await ask(port, b"") == b""
            assert here.opened == []
            here.traffic.fails = False
            assert await ask(port, b"x") == b"x"

    async def test_datagrams_are_dropped_and_flows_end(self) -> None:
        async with world() as here:
            target = UdpEcho()
            opened = await here.tunnels.open(mapping("udp", target.port))
            assert opened.public_port is not None
            client = UdpClient(opened.public_port)
            here.quota(monthly_traffic=2500)
            await here.allowances.of(OWNER).require()
            assert await client.ask(b"x" * 1000) == b"x" * 1000
            client.send(b"y" * 1000)
            await until(lambda: len(target.heard) == 2 and here.tunnels.active == 0)
            client.send(b"z")
            await asyncio.sleep(0.05)
            assert len(target.heard) == 2
            here.quota()
            while client.waiting:
                await client.next()
            assert await client.ask(b"w") == b"w"

    async def test_agents_that_listen_are_told_why(self) -> None:
        async with world() as here:
            entry_port = await open_port(here, port=1)
            assert entry_port
            entry = here.entry(mapping())
            await month_is_over(here)
            here.allowances.of(OWNER).begin(_Used(), lambda error: None)
            here.allowances.of(OWNER).refresh()
            with pytest.raises(TooManyRequests, match="used up"):
                entry._take_places(("192.0.2.7", 5))  # type: ignore[attr-defined]
            assert here.around.connections.taken == 0


class _Used:
    bytes_in, bytes_out = 5, 5


class TestFastPath:
    async def test_sockets_stay_bare_without_a_quota(self) -> None:
        async def pair() -> tuple[SocketStream, SocketStream]:
            loop = asyncio.get_running_loop()
            made = []
            for sock in socket.socketpair():
                made.append((await loop.create_connection(SocketStream, sock=sock))[1])
            return made[0], made[1]

        async with world() as here:
            await open_port(here, port=1)
            shape = here.entry(mapping()).shape
            near, far = await pair()
            for limits, bare in (
                ({"max_connections_per_mapping": 5, "max_mappings": 1}, True),
                ({"bandwidth": 10_000}, False), ({"monthly_traffic": 10}, False), ({}, True),
            ):  # fmt: skip
                here.quota(**limits)
                with shape.around(near, far) as wrapped:
                    assert (wrapped is near) == bare, limits
            near.abort()
            far.abort()
