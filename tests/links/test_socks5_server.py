"""SOCKS5 and HTTP CONNECT on one stream: told apart, answered, refused, and never left hanging."""

from __future__ import annotations

import asyncio

import pytest

from tests.links.loops import anyio_backend, read_all, socket_pair  # noqa: F401
from underpass.core.errors import Forbidden, Unauthenticated, Unavailable, UnderpassError
from underpass.links.memory import memory_pair
from underpass.links.socks5_server import Request, negotiate
from underpass.links.stream import Stream
from underpass.wire.socks5 import ClientHandshake, Socks5Refused

CONNECT = b"CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\n"


async def good(username: str, password: str) -> bool:
    return (username, password) == ("ada", "secret")


async def shake(client: Stream, handshake: ClientHandshake) -> None:
    """Do the client's part; raises what the proxy refuses with."""
    while True:
        client.write(handshake.data_to_send())
        data = await client.read()
        assert data
        if handshake.feed(data):
            return


@pytest.mark.parametrize("login", [False, True])
async def test_socks5(login: bool) -> None:
    client, server = memory_pair()
    handshake = ClientHandshake(
        "2001:db8::1", 5432, *(("ada", "secret") if login else (None, None))
    )
    shaking = asyncio.create_task(shake(client, handshake))
    request = await negotiate(server, check=good if login else None)
    assert (request.protocol, request.command) == ("socks5", "connect")
    assert request.target == "tcp:[2001:db8::1]:5432"
    assert request.username == ("ada" if login else None)
    assert await request.accept() == b""
    await shaking
    server.write(b"first bytes")
    assert await client.read() == b"first bytes"


async def test_udp_associate_tells_where_to_send() -> None:
    client, server = memory_pair()
    handshake = ClientHandshake("0.0.0.0", 0, command="udp_associate")
    shaking = asyncio.create_task(shake(client, handshake))
    request = await negotiate(server)
    assert request.command == "udp_associate"
    await request.accept("127.0.0.1", 4242)
    await shaking


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_http_connect_with_bytes_behind_it(size: int) -> None:
    client, server = memory_pair()

    async def send() -> None:
        for at in range(0, len(CONNECT), size):
            client.write(CONNECT[at : at + size])
            await asyncio.sleep(0)

    sending = asyncio.create_task(send())
    request = await negotiate(server)
    await sending
    assert (request.protocol, request.target) == ("http", "tcp:db.internal:5432")
    client.write(b"ahead")
    ahead = await request.accept()
    assert (ahead or await server.read()) == b"ahead"
    assert (await client.read()).startswith(b"HTTP/1.1 200 ")


async def test_what_is_sent_ahead_in_one_piece_is_not_lost() -> None:
    client, server = memory_pair()
    client.write(CONNECT + b"ahead")
    request = await negotiate(server)
    assert await request.accept() == b"ahead"


@pytest.mark.parametrize(
    ("error", "status", "reply"),
    [
        (Forbidden("no"), b"403", 2),
        (Unavailable("no", code="connect_refused"), b"502", 5),
        (Unavailable("no", code="connect_timeout"), b"504", 6),
        (UnderpassError("no"), b"502", 1),
    ],
)
async def test_refusals(error: UnderpassError, status: bytes, reply: int) -> None:
    async with socket_pair() as (client, server):
        client.write(CONNECT)
        request = await negotiate(server)
        refusing = asyncio.create_task(request.refuse(error))
        assert (await read_all(client)).startswith(b"HTTP/1.1 " + status)
        await client.close()
        await refusing
        assert server.closed
    async with socket_pair() as (client, server):

        async def serve() -> None:
            await (await negotiate(server)).refuse(error)

        serving = asyncio.create_task(serve())
        with pytest.raises(Socks5Refused) as refused:
            await shake(client, ClientHandshake("h", 1))
        assert refused.value.reply == reply
        await client.close()
        await serving


@pytest.mark.parametrize("http", [False, True])
async def test_a_wrong_login(http: bool) -> None:
    async with socket_pair() as (client, server):
        failing = asyncio.create_task(negotiate(server, check=good))
        if http:
            client.write(CONNECT[:-2] + b"Proxy-Authorization: Basic YWRhOndyb25n\r\n\r\n")
            assert (await read_all(client)).startswith(b"HTTP/1.1 407 ")
        else:
            with pytest.raises(Socks5Refused) as refused:
                await shake(client, ClientHandshake("h", 1, "ada", "wrong"))
            assert refused.value.code == "login_refused"
        await client.close()
        with pytest.raises(Unauthenticated):
            await failing
        assert server.closed


@pytest.mark.parametrize(
    "data",
    [b"\x04\x01\0\x50\x01\x02\x03\x04\0", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x05\x01\x63"],
)
async def test_other_things_are_answered_and_closed(data: bytes) -> None:
    async with socket_pair() as (client, server):
        client.write(data)
        failing = asyncio.create_task(negotiate(server))
        await read_all(client)
        await client.close()
        with pytest.raises(UnderpassError):
            await failing
        assert server.closed


async def test_silence_and_absence_end_it() -> None:
    client, server = memory_pair()
    with pytest.raises(UnderpassError) as slow:
        await negotiate(server, timeout=0.01)
    assert slow.value.code == "handshake_timeout"
    assert server.closed
    client, server = memory_pair()
    client.finish()
    with pytest.raises(UnderpassError) as gone:
        await negotiate(server)
    assert gone.value.code == "no_request"
    assert server.closed


async def test_who_talks_on_after_a_refusal_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("underpass.links.socks5_server._FAREWELL", 0.01)
    client, server = memory_pair()
    client.write(CONNECT)
    request: Request = await negotiate(server)
    await request.refuse(Forbidden("no"))
    assert server.closed
