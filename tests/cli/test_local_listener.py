"""Local ports: opened, counted, capped, and nothing left when they are closed."""

from __future__ import annotations

import asyncio
import socket

import pytest

from underpass.cli.local_listener import LocalListener, authority
from underpass.core.errors import Conflict, InvalidRequest, Unavailable, UnderpassError
from underpass.links.sockets import SocketStream, connect_tcp
from underpass.links.stream import StreamReset


class Told:
    def __init__(self) -> None:
        self.errors: list[tuple[str | None, str]] = []

    def __call__(self, peer: str | None, error: UnderpassError) -> None:
        self.errors.append((peer, error.code))


async def echo(stream: SocketStream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


async def test_connections_are_served_and_closed() -> None:
    listener = LocalListener(echo, Told())
    await listener.open("127.0.0.1", 0)
    assert listener.port > 0
    client = await connect_tcp("127.0.0.1", listener.port)
    client.write(b"hello")
    assert await client.read() == b"hello"
    assert len(listener) == 1
    await client.write_eof()
    assert await client.read() == b""  # closed by the listener, which the carrier forgot
    await client.close()
    while len(listener):
        await asyncio.sleep(0)
    await listener.close()
    await listener.close()


async def test_a_failure_ends_one_connection_and_is_told() -> None:
    async def fail(stream: SocketStream) -> None:
        raise Unavailable("no way", code="open_timeout")

    told = Told()
    listener = LocalListener(fail, told)
    await listener.open("127.0.0.1", 0)
    for _ in range(2):
        client = await connect_tcp("127.0.0.1", listener.port)
        with pytest.raises(StreamReset):
            await client.read()
        client.abort()
    assert [code for _, code in told.errors] == ["open_timeout"] * 2
    assert told.errors[0][0] is not None
    assert told.errors[0][0].startswith("127.0.0.1:")
    await listener.close()


async def test_too_many_are_turned_away() -> None:
    listener = LocalListener(echo, Told(), max_connections=1)
    await listener.open("127.0.0.1", 0)
    first = await connect_tcp("127.0.0.1", listener.port)
    first.write(b"x")
    assert await first.read() == b"x"
    second = await connect_tcp("127.0.0.1", listener.port)
    with pytest.raises(StreamReset):
        await second.read()
    second.abort()
    await listener.close()  # ends the first, too
    with pytest.raises(StreamReset):
        await first.read()
    first.abort()
    assert len(listener) == 0


async def test_where_one_cannot_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = LocalListener(echo, Told())
        with pytest.raises(Conflict) as caught:
            await listener.open("127.0.0.1", taken.getsockname()[1])
        assert caught.value.code == "port_in_use"
    with pytest.raises(InvalidRequest) as bad:
        await LocalListener(echo, Told()).open("192.0.2.1", 0)
    assert bad.value.code == "bad_bind"


def test_addresses() -> None:
    assert authority("::1", 80) == "[::1]:80"
    assert authority("127.0.0.1", 80) == "127.0.0.1:80"
