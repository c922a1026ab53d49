"""Trunks over a stream and over a WebSocket carry the same messages and name their ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from underpass.agent.terminals.trunk import StreamTrunk, TrunkLost, WebSocketTrunk
from underpass.links.memory import memory_pair
from underpass.wire.terminal import Ack, Ping, Pong, Resize, encode_control, frame, frames
from underpass.wire.terminal import FrameType as T


async def test_messages_over_a_stream() -> None:
    near, far = memory_pair()
    trunk = StreamTrunk(near)
    far.write(frame(T.BYTES, b"abc") + frame(T.STDERR, b"no") + frame(T.STDIN_EOF))
    far.write(frame(T.CONTROL, b"junk") + frame(T.CONTROL, encode_control(Resize(5, 6))))
    assert await trunk.receive() == b"abc"
    assert await trunk.receive() == Resize(5, 6)
    await trunk.send(b"x" * 70_000)
    await trunk.send(Ack(3))
    expected = b"".join(frames(T.BYTES, b"x" * 70_000)) + frame(T.CONTROL, encode_control(Ack(3)))
    got = b""
    while len(got) < len(expected):
        got += await far.read()
    assert got == expected
    await far.write_eof()
    assert await trunk.receive() is None
    await trunk.finish()
    assert await far.read() == b""
    await trunk.close()


async def test_a_stream_that_breaks() -> None:
    near, far = memory_pair()
    trunk = StreamTrunk(near)
    far.abort("link_lost", "cut")
    with pytest.raises(TrunkLost) as caught:
        await trunk.receive()
    assert not caught.value.let_go
    with pytest.raises(TrunkLost):
        await trunk.send(b"x")


async def test_a_gateway_that_lets_go_says_so() -> None:
    near, far = memory_pair()
    far.abort("trunk_closed", "")
    with pytest.raises(TrunkLost) as caught:
        await StreamTrunk(near).receive()
    assert caught.value.let_go


@pytest.mark.parametrize("data", [b"\x00\x00\x00\x05ab", b"\x00\xff\xff\xff"])
async def test_cut_or_absurd_frames_lose_the_trunk(data: bytes) -> None:
    near, far = memory_pair()
    far.write(data)
    await far.write_eof()
    trunk = StreamTrunk(near)
    with pytest.raises(TrunkLost):
        while await trunk.receive():
            pass


async def test_abort_reaches_the_peer() -> None:
    near, far = memory_pair()
    StreamTrunk(near).abort("replaced", "newer")
    with pytest.raises(Exception, match="newer"):
        await far.read()


@pytest.fixture
async def sockets() -> AsyncIterator[tuple[WebSocketTrunk, ServerConnection]]:
    arrived: asyncio.Queue[ServerConnection] = asyncio.Queue()
    done = asyncio.Event()

    async def keep(connection: ServerConnection) -> None:
        arrived.put_nowait(connection)
        await done.wait()

    async with serve(keep, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}") as connection:
            yield WebSocketTrunk(connection), await arrived.get()
        done.set()


async def test_messages_over_a_websocket(
    sockets: tuple[WebSocketTrunk, ServerConnection],
) -> None:
    trunk, gateway = sockets
    await gateway.send(b"abc")
    await gateway.send(b"")
    await gateway.send("junk")
    await gateway.send(encode_control(Ping(1)).decode())
    assert await trunk.receive() == b"abc"
    assert await trunk.receive() == Ping(1)
    await trunk.send(b"\xff\x00")
    await trunk.send(Pong(1))
    await trunk.finish()
    assert await gateway.recv() == b"\xff\x00"
    assert await gateway.recv() == '{"type":"pong","t":1}'
    await gateway.close(1000)
    assert await trunk.receive() is None
    with pytest.raises(TrunkLost):
        await trunk.send(b"late")
    await trunk.close()


async def test_a_websocket_that_breaks(
    sockets: tuple[WebSocketTrunk, ServerConnection],
) -> None:
    trunk, gateway = sockets
    gateway.transport.abort()
    with pytest.raises(TrunkLost):
        await trunk.receive()


async def test_a_websocket_given_up_here(
    sockets: tuple[WebSocketTrunk, ServerConnection],
) -> None:
    trunk, gateway = sockets
    trunk.abort("replaced", "")
    with pytest.raises(Exception, match="close"):
        await gateway.recv()
