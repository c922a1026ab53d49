"""Which carrier a stream gets: the wish, what the link can, what the target's streams carried."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.gateways import (
    ADMIN,
    AGENT_ID,
    SECRET,
    Gateway,
    agent_identity,
    certificate,
    gateway,
)
from tests.links.loops import anyio_backend, read_all  # noqa: F401
from underpass.core import metrics
from underpass.core.errors import Forbidden
from underpass.links.carriers.demand import BULK_STREAM
from underpass.links.carriers.holder import Carriers
from underpass.links.carriers.pool import FEATURE, SparePool
from underpass.links.carriers.preface import SPARE_PREFACE, carrier_key
from underpass.links.carriers.stream import CarrierStream
from underpass.links.dial import dial
from underpass.links.link import Link, Opening, OpenRefused
from underpass.links.relay import relay
from underpass.links.sockets import SocketStream, connect_tcp
from underpass.links.stream import Stream, StreamReset
from underpass.links.trust import client_context

TARGET = "tcp:127.0.0.1:80"


async def until(true: Any, timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.002)


async def echo(opening: Opening) -> None:
    if opening.target.endswith(":9"):
        raise Forbidden("Not this one.", code="policy_denied")
    stream = opening.accept()
    while data := await stream.read():
        stream.write(data)
        await stream.drain()
    await stream.close()


@asynccontextmanager
async def linked(
    node: Gateway, *, features: frozenset[str] = frozenset({FEATURE}), **dialling: Any
) -> AsyncIterator[Link]:
    """An agent's link to *node*; the agent echoes, and dials spares."""
    async with Carriers() as carriers:
        link = await dial(node.url, agent_identity(), features=features, **dialling)
        link.on_open(carriers.serve(link, carrier_key(SECRET, link.id), echo))
        link.start()
        await until(lambda: node.registry.agent(AGENT_ID) is not None)
        try:
            yield link
        finally:
            await link.close()


async def open_(node: Gateway, target: str = TARGET, **more: Any) -> Stream:
    return await node.router.open(AGENT_ID, target, on_behalf_of=ADMIN, **more)


async def pool_of(node: Gateway) -> SparePool:
    link = node.registry.agent(AGENT_ID)
    assert link is not None
    await until(lambda: node.registry.spares.pool_of(link) is not None)
    pool = node.registry.spares.pool_of(link)
    assert pool is not None
    return pool


async def carry(stream: Stream, size: int) -> None:
    """Let *size* bytes go there and back, then end it."""
    data = os.urandom(size)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read_all(stream))
        for start in range(0, size, 65536):
            stream.write(data[start : start + 65536])
            await stream.drain()
        await stream.write_eof()
    assert reading.result() == data
    await stream.close()


class TestChoice:
    async def test_dedicated_as_soon_as_there_is_a_spare(self) -> None:
        async with gateway() as node, linked(node) as agent:
            pool = await pool_of(node)
            first = await open_(node, carrier="dedicated")
            assert not isinstance(first, CarrierStream)  # silently in the link
            await carry(first, 1000)
            await until(lambda: len(pool) == 1)
            second = await open_(node, carrier="dedicated")
            assert isinstance(second, CarrierStream)
            await carry(second, 3_000_000)
            await until(lambda: not agent.streams)

    async def test_mux_is_mux(self) -> None:
        async with gateway() as node, linked(node):
            pool = await pool_of(node)
            for _ in range(3):
                stream = await open_(node, carrier="mux")
                assert not isinstance(stream, CarrierStream)
                await carry(stream, 2 * BULK_STREAM)
            assert len(pool) == 0
            assert not node.registry.spares.tickets

    async def test_auto_follows_what_the_target_carried(self) -> None:
        async with gateway() as node, linked(node):
            pool = await pool_of(node)
            for _ in range(3):
                stream = await open_(node, "tcp:small:1")
                assert not isinstance(stream, CarrierStream)
                await carry(stream, 1000)
            await carry(await open_(node), 2 * BULK_STREAM)
            await carry(await open_(node), 2 * BULK_STREAM)  # wants a spare, finds none
            await until(lambda: len(pool) == 1)
            stream = await open_(node)
            assert isinstance(stream, CarrierStream)
            await carry(stream, 1000)
            for interactive, target in ((True, TARGET), (False, "tcp:small:1")):
                stream = await open_(node, target, interactive=interactive)
                assert not isinstance(stream, CarrierStream)
                stream.abort()
            for _ in range(20):
                await carry(await open_(node), 10)
            stream = await open_(node)
            assert not isinstance(stream, CarrierStream)
            stream.abort()

    @pytest.mark.parametrize("target", ["udp:127.0.0.1:53", "pty", "exec"])
    async def test_other_kinds_stay_in_the_link(self, target: str) -> None:
        async with gateway() as node, linked(node):
            pool = await pool_of(node)
            for _ in range(2):
                stream = await open_(node, target, carrier="dedicated")
                assert not isinstance(stream, CarrierStream)
                stream.abort()
            assert len(pool) == 0
            opens = metrics.STREAM_OPENS.labels(target.partition(":")[0], "ok").value
            assert opens >= 2

    async def test_unix_targets_may(self) -> None:
        async with gateway() as node, linked(node):
            pool = await pool_of(node)
            (await open_(node, "unix:/run/x", carrier="dedicated")).abort()
            await until(lambda: len(pool) == 1)
            stream = await open_(node, "unix:/run/x", carrier="dedicated")
            assert isinstance(stream, CarrierStream)
            stream.abort()


class TestWhoCan:
    async def test_not_without_the_feature(self) -> None:
        async with gateway() as node, linked(node, features=frozenset()) as agent:
            for _ in range(2):
                await carry(await open_(node, carrier="dedicated"), 1000)
            assert node.registry.spares.pool_of(agent) is None

    @pytest.mark.parametrize("way", ["tls", "websocket"])
    async def test_not_over_tls_and_websockets(self, way: str, tmp_path: Path) -> None:
        made = certificate(tmp_path) if way == "tls" else None
        transport = "tcp" if way == "tls" else "websocket"
        async with (
            gateway(tls=made) as node,
            linked(node, transport=transport, fingerprint=node.fingerprint) as agent,
        ):
            assert agent.carrier == way
            for _ in range(2):
                stream = await open_(node, carrier="dedicated")
                assert not isinstance(stream, CarrierStream)
                await carry(stream, 1000)
            assert not node.registry.spares.tickets


class TestTrouble:
    async def test_a_spare_that_broke_costs_nothing_but_itself(self) -> None:
        async with gateway() as node, linked(node):
            pool = await pool_of(node)
            (await open_(node, carrier="dedicated")).abort()
            await until(lambda: len(pool) == 1)
            ticket = pool._spares[0].ticket
            pool._spares[0].ticket = bytes(len(ticket))  # the agent knows no such spare
            stream = await open_(node, carrier="dedicated")
            assert not isinstance(stream, CarrierStream)
            await carry(stream, 1000)

    async def test_a_refusal_is_the_agents(self) -> None:
        async with gateway() as node, linked(node) as agent:
            pool = await pool_of(node)
            (await open_(node, carrier="dedicated")).abort()
            await until(lambda: len(pool) == 1)
            with pytest.raises(OpenRefused) as caught:
                await open_(node, "tcp:127.0.0.1:9", carrier="dedicated")
            assert caught.value.code == "policy_denied"
            await until(lambda: not agent.streams)

    async def test_the_openers_meta_cannot_name_a_spare(self) -> None:
        async with gateway() as node, linked(node):
            pool = await pool_of(node)
            (await open_(node, carrier="dedicated")).abort()
            await until(lambda: len(pool) == 1)
            meta = {"carrier": pool._spares[0].ticket}
            stream = await open_(node, meta=meta, carrier="mux")
            await carry(stream, 1000)
            assert len(pool) == 1

    async def test_codes_come_through(self) -> None:
        async with gateway() as node, linked(node) as agent:
            pool = await pool_of(node)
            (await open_(node, carrier="dedicated")).abort()
            await until(lambda: len(pool) == 1)
            stream = await open_(node, carrier="dedicated")
            await agent.close("going_away", "The agent is stopping.")
            with pytest.raises(StreamReset):
                await asyncio.wait_for(stream.read(), 5)
            await until(lambda: len(pool) == 0 and not node.registry.spares.tickets)
            assert node.registry.spares.pool_of(agent) is None


class TestOnePort:
    async def test_strangers_and_draining(self) -> None:
        async with gateway() as node:
            hello = SPARE_PREFACE + os.urandom(48)
            for data in (hello, hello[:8] + b"x" * 200):
                assert await answer(node, data) == b""
            node.link_server._draining = True
            assert await answer(node, hello) == b""
            # In pieces it is still told from HTTP.
            assert await answer(node, b"GET /hello HTTP/1.0\r\n\r\n") != b""
            assert (await answer(node, b"UNDS / HTTP/1.0\r\n\r\n", 99)).startswith(b"HTTP/1.1 ")

    async def test_none_in_tls(self, tmp_path: Path) -> None:
        made = certificate(tmp_path)
        async with gateway(tls=made) as node:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", node.front.port, ssl=client_context(made.fingerprint)
            )
            writer.write(SPARE_PREFACE + bytes(48))
            try:
                assert await asyncio.wait_for(reader.read(), 5) == b""
            except ConnectionError:
                pass
            writer.close()
            assert not node.registry.spares._greetings


async def answer(node: Gateway, data: bytes, step: int = 3) -> bytes:
    stream = await connect_tcp("127.0.0.1", node.front.port)
    try:
        for start in range(0, len(data), step):
            stream.write(data[start : start + step])
            await asyncio.sleep(0)
        return await read_all(stream)
    except StreamReset:
        return b""
    finally:
        stream.abort()


async def test_user_to_service_through_a_spare_is_spliced_at_the_gateway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved = 0
    really = os.splice

    def splice(*arguments: Any, **options: Any) -> int:
        nonlocal moved
        count = really(*arguments, **options)
        moved += count
        return count

    monkeypatch.setattr(os, "splice", splice)
    async with gateway() as node, linked(node), asyncio.TaskGroup() as group:
        pool = await pool_of(node)
        (await open_(node, carrier="dedicated")).abort()
        await until(lambda: len(pool) == 1)

        async def forward(user: Any) -> None:
            await relay(user, await open_(node, carrier="dedicated"))

        loop = asyncio.get_running_loop()
        entry = await loop.create_server(
            lambda: SocketStream(lambda user: group.create_task(forward(user)) and None),
            "127.0.0.1", 0,
        )  # fmt: skip
        user = await connect_tcp("127.0.0.1", entry.sockets[0].getsockname()[1])
        await carry(user, 20_000_000)
        entry.close()
    assert moved
