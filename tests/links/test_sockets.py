"""Sockets as streams, on both loops, and that every transport is closed on every path."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.links.loops import (
    anyio_backend,  # noqa: F401
    links,
    open_descriptors,
    read_all,
    socket_pair,
    tls_contexts,
)
from underpass.core.errors import Unavailable
from underpass.links.link import Opening
from underpass.links.relay import relay
from underpass.links.sockets import SocketStream, connect_tcp, connect_unix
from underpass.links.stream import StreamReset


async def descriptors_left(before: list[str]) -> list[str]:
    """Sockets open that were not open *before*, given a moment to go."""
    left: list[str] = []
    for _ in range(300):
        left = [name for name in open_descriptors() if name not in before]
        if not left:
            break
        await asyncio.sleep(0.01)
    return left


def unclosed_sockets() -> list[SocketStream]:
    """Socket streams that are alive and whose transport nobody has closed."""
    gc.collect()
    return [
        thing
        for thing in gc.get_objects()
        if type(thing) is SocketStream and not thing._transport.is_closing()
    ]


async def test_bytes_ends_and_counts() -> None:
    async with socket_pair() as (near, far):
        near.write(b"question")
        await near.write_eof()
        await near.write_eof()
        assert await read_all(far) == b"question"
        far.write(b"")
        far.write(b"answer")
        await far.close()
        await far.close()
        assert await read_all(near) == b"answer"
        assert (near.bytes_in, near.bytes_out) == (6, 8)
        assert near.peer_address is not None
        assert near.peer_address[0] == "127.0.0.1"
        near.write(b"after the end")
        await near.close()
        with pytest.raises(StreamReset):
            await near.drain()


async def test_a_slow_reader_holds_back_the_writer() -> None:
    async with socket_pair() as (near, far):
        sent = 0
        try:
            async with asyncio.timeout(0.5):
                while True:
                    near.write(b"x" * 65536)
                    sent += 65536
                    await near.drain()
        except TimeoutError:
            pass
        assert sent < 30 << 20
        assert far.bytes_in <= 768 << 10
        assert len(await read_all(far, sent)) == sent


async def test_a_reset_by_the_peer_is_a_reset() -> None:
    async with socket_pair() as (near, far):
        sock: Any = near._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reading = asyncio.ensure_future(far.read())
        await asyncio.sleep(0)
        near.abort("gone")
        near.abort("twice")
        with pytest.raises(StreamReset) as caught:
            await asyncio.wait_for(reading, 5)
        assert caught.value.code == "connection_lost"
        far.write(b"dropped")
        far.finish()
        far.resume()
        with pytest.raises(StreamReset):
            await near.read()


async def test_where_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable) as caught:
            await connect_tcp("127.0.0.1", probe.getsockname()[1])
    assert caught.value.code == "connect_refused"
    with pytest.raises(Unavailable) as unknown:
        await connect_tcp("no-such-host.invalid", 1, timeout=10)
    assert unknown.value.code in ("connect_failed", "connect_timeout")
    with pytest.raises(Unavailable):
        await connect_unix("/nonexistent/socket")


async def test_connecting_has_a_deadline() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:  # fill the backlog: further connections hang
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            with pytest.raises(Unavailable) as caught:
                await connect_tcp("127.0.0.1", full.getsockname()[1], timeout=0.1)
            assert caught.value.code == "connect_timeout"
        finally:
            for one in waiting:
                one.close()


async def test_unix_sockets(tmp_path: Path) -> None:
    arrived: asyncio.Future[SocketStream] = asyncio.get_running_loop().create_future()
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: SocketStream(arrived.set_result), str(tmp_path / "s")
    )
    near = await connect_unix(str(tmp_path / "s"))
    far = await arrived
    near.write(b"x")
    assert await far.read() == b"x"
    assert near.peer_address is None
    await near.close()
    assert await far.read() == b""
    await far.close()
    server.close()


async def test_a_tls_socket_without_half_close_still_ends() -> None:
    server_tls, client_tls = tls_contexts()
    arrived: asyncio.Future[SocketStream] = asyncio.get_running_loop().create_future()
    server = await asyncio.get_running_loop().create_server(
        lambda: SocketStream(arrived.set_result), "127.0.0.1", 0, ssl=server_tls
    )
    _, near = await asyncio.get_running_loop().create_connection(
        SocketStream, "127.0.0.1", server.sockets[0].getsockname()[1],
        ssl=client_tls, server_hostname="localhost",
    )  # fmt: skip
    far = await arrived
    near.write(b"question")
    await near.write_eof()  # TLS cannot say that: nothing happens, nothing breaks
    assert await far.read() == b"question"
    far.write(b"answer")
    await far.close()
    assert await near.read() == b"answer"
    await near.close()
    server.close()


@pytest.mark.parametrize("who", ["user", "service", "both", "reset", "cancel"])
async def test_half_closed_transports_are_all_closed(who: str) -> None:
    """uvloop corrupts memory when a half-closed transport is dropped unclosed: count them."""
    loop = asyncio.get_running_loop()
    before = open_descriptors()

    async def service(stream: SocketStream) -> None:
        try:
            await stream.read()
            if who in ("service", "both"):
                await stream.write_eof()
            await stream.read()
        except StreamReset:
            pass
        finally:
            await stream.close()

    async with asyncio.TaskGroup() as group:
        services = await loop.create_server(
            lambda: SocketStream(lambda stream: group.create_task(service(stream))),
            "127.0.0.1", 0,
        )  # fmt: skip
        port = services.sockets[0].getsockname()[1]

        async def opener(opening: Opening) -> None:
            target = await connect_tcp("127.0.0.1", port)
            await relay(opening.accept(), target)

        async with links("tcp", opener) as (a, b):

            async def forward(stream: SocketStream) -> None:
                await relay(stream, await a.open("x"))

            forwards: list[asyncio.Task[None]] = []
            entry = await loop.create_server(
                lambda: SocketStream(
                    lambda stream: forwards.append(group.create_task(forward(stream)))
                ),
                "127.0.0.1", 0,
            )  # fmt: skip
            for _ in range(20):
                user = await connect_tcp("127.0.0.1", entry.sockets[0].getsockname()[1])
                user.write(b"hello")
                if who in ("user", "both"):
                    await user.write_eof()
                if who == "service":
                    await asyncio.wait_for(user.read(), 5)
                if who == "reset":
                    user.abort()
                if who == "cancel":
                    await asyncio.sleep(0.002)
                    forwards[-1].cancel()
                else:
                    await user.close()
                user.abort()
            async with asyncio.timeout(10):
                while a.streams or b.streams or not all(task.done() for task in forwards):
                    await asyncio.sleep(0.005)
            entry.close()
        services.close()
    assert not await descriptors_left(before)
    assert not unclosed_sockets()
