"""Links over WebSockets: byte-exact bulk (the trap), refusals, messages of other frameworks."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

import pytest

from tests.links.loops import AGENT, NODE, PATH, anyio_backend, links, read_all  # noqa: F401
from tests.links.test_transports import Collector, echo, until
from underpass.core.errors import Unavailable
from underpass.links.link import Link, Opening
from underpass.links.transports.messages import MessageTransport
from underpass.links.transports.websocket import accept_websocket, connect_websocket

EACH = 12 << 20


async def sha_of(stream: Any) -> tuple[int, str]:
    digest, count = hashlib.sha256(), 0
    while data := await stream.read(1 << 18):
        digest.update(data)
        count += len(data)
    return count, digest.hexdigest()


@pytest.mark.parametrize("direction", ["to the server", "to the client", "both"])
async def test_eight_bulk_streams_are_byte_exact(direction: str) -> None:
    """The field notes' trap: framing broke on uvloop in every run of eight bulk streams."""
    blobs = [os.urandom(1 << 20) * (EACH >> 20) for _ in range(8)]
    sums = [(EACH, hashlib.sha256(blob).hexdigest()) for blob in blobs]
    received: dict[int, tuple[int, str]] = {}

    async def send(stream: Any, blob: bytes) -> None:
        for start in range(0, len(blob), 77_777):
            stream.write(blob[start : start + 77_777])
            await stream.drain()
        await stream.write_eof()

    async def handler(opening: Opening) -> None:
        stream = opening.accept()
        number = int(opening.target)
        async with asyncio.TaskGroup() as group:
            if direction != "to the server":
                group.create_task(send(stream, blobs[number]))
            if direction != "to the client":
                received[number] = await sha_of(stream)
        await stream.read()
        await stream.close()

    async with asyncio.timeout(90), links("websocket", handler) as (a, b):

        async def one(number: int) -> tuple[int, str] | None:
            stream = await a.open(str(number))
            got = None
            async with asyncio.TaskGroup() as group:
                if direction != "to the client":
                    group.create_task(send(stream, blobs[number]))
                if direction != "to the server":
                    got = await sha_of(stream)
            await stream.close()
            return got

        results = await asyncio.gather(*(one(number) for number in range(8)))
        if direction != "to the client":
            await until(lambda: len(received) == 8)
            assert [received[number] for number in range(8)] == sums
        if direction != "to the server":
            assert results == sums
        assert not a.closed
        assert not b.closed


async def test_messages_written_while_the_socket_is_full_keep_their_headers() -> None:
    """What broke the framing: a message that waits in the transport while others are sent."""
    async with Server() as server:
        near = await connect_websocket(f"ws://127.0.0.1:{server.port}{PATH}")
        far = await server.accepted
        await far.upgraded()
        for writer, reader in ((far, near), (near, far)):
            sink = Collector()
            reader.set_sink(sink)
            writer.set_sink(Collector())
            reader.pause_reading()
            sent = b"".join(bytes([number]) * (9000 + 1000 * number) for number in range(200))
            offset = 0
            for number in range(200):
                writer.write(sent[offset : offset + 9000 + 1000 * number])
                offset += 9000 + 1000 * number
                await asyncio.sleep(0)
            assert writer.writing_paused
            reader.resume_reading()
            await until(lambda sink=sink, sent=sent: len(sink.data) >= len(sent))
            assert sink.data == sent
        near.abort()
        far.abort()


class Server:
    """Accepts one WebSocket on a port of its own."""

    def __init__(self) -> None:
        self.accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Server:
        outer = self

        class Upgrade(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def data_received(self, data: bytes) -> None:
                outer.accepted.set_result(accept_websocket(self.transport, data, PATH))

        self.server = await asyncio.get_running_loop().create_server(Upgrade, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()


async def test_another_path_is_not_found() -> None:
    async with Server() as server:
        with pytest.raises(Unavailable) as caught:
            await connect_websocket(f"ws://127.0.0.1:{server.port}/elsewhere")
        assert caught.value.code == "websocket_refused"
        with pytest.raises(Unavailable):
            await asyncio.wait_for((await server.accepted).upgraded(), 5)


async def test_a_query_and_headers_do_no_harm() -> None:
    async with Server() as server:
        near = await connect_websocket(
            f"ws://127.0.0.1:{server.port}{PATH}?v=1", headers={"X-Test": "1"}
        )
        far = await server.accepted
        await far.upgraded()
        near.abort()
        far.abort()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"complete nonsense\r\n\r\n",
    ],
)
async def test_a_request_that_is_no_upgrade_is_refused(request_: bytes) -> None:
    async with Server() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request_)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert b" 400 " in answer.split(b"\r\n")[0]
        with pytest.raises(Unavailable):
            await asyncio.wait_for((await server.accepted).upgraded(), 5)
        writer.close()


async def test_a_server_that_hangs_up_is_refused() -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises((Unavailable, OSError)):
        await asyncio.wait_for(connect_websocket(f"ws://127.0.0.1:{port}{PATH}"), 5)
    server.close()
    with pytest.raises(OSError, match=r"(?i)refused|connect"):
        await connect_websocket(f"ws://127.0.0.1:{port}{PATH}")


async def test_a_text_message_ends_it() -> None:
    import picows

    async with Server() as server:
        near = await connect_websocket(f"ws://127.0.0.1:{server.port}{PATH}")
        far = await server.accepted
        sink = Collector()
        far.set_sink(sink)
        near.set_sink(Collector())
        near._socket.send(picows.WSMsgType.TEXT, b"not for a link")
        await until(lambda: sink.over)
        assert not sink.data


async def test_a_request_in_pieces_and_bytes_behind_it() -> None:
    async with Server() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = (
            f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        ).encode()
        writer.write(head[:50])
        far = await server.accepted
        sink = Collector()
        far.set_sink(sink)
        masked = b"\x82\x85\0\0\0\0hello" + b"\x02\x83\0\0\0\0 wo" + b"\x80\x83\0\0\0\0rld"
        writer.write(head[50:] + masked)
        await asyncio.wait_for(far.upgraded(), 5)
        await until(lambda: sink.data == b"hello world")
        far.write(b"answer")
        answer = await asyncio.wait_for(reader.readuntil(b"answer"), 5)
        assert b" 101 " in answer.split(b"\r\n")[0]
        writer.close()
        await until(lambda: sink.over)


async def test_messages_of_another_framework_carry_a_link() -> None:
    queues: tuple[asyncio.Queue[bytes], asyncio.Queue[bytes]] = (asyncio.Queue(4), asyncio.Queue(4))
    closed: list[str] = []

    def transport(mine: int) -> MessageTransport:
        async def close() -> None:
            closed.append(str(mine))
            await queues[mine].put(b"")

        return MessageTransport(queues[1 - mine].get, queues[mine].put, close, "192.0.2.1:5")

    near, far = transport(0), transport(1)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        runs = [group.create_task(near.run()), group.create_task(far.run())]
        a, b = Link(near, NODE, dialler=True), Link(far, AGENT, dialler=False)
        b.on_open(echo)
        b.start()
        stream = await a.open("x")
        assert far.peer_address == "192.0.2.1:5"
        blob = os.urandom(2_000_000)

        async def send() -> None:
            for start in range(0, len(blob), 50_000):
                stream.write(blob[start : start + 50_000])
                await stream.drain()
            await stream.write_eof()

        sending = group.create_task(send())
        assert await read_all(stream) == blob
        await sending
        await a.close()
        await runs[0]
        await runs[1]
        assert sorted(closed) == ["0", "1"]
        assert b.closed
        await b.close()


async def test_a_framework_that_raises_is_a_lost_connection() -> None:
    async def receive() -> bytes:
        raise ConnectionError("gone")

    async def send(_data: bytes) -> None:
        await asyncio.Event().wait()

    async def close() -> None: ...

    transport = MessageTransport(receive, send, close)
    sink = Collector()
    transport.set_sink(sink)
    transport.write(b"x")
    await asyncio.wait_for(transport.run(), 5)
    assert isinstance(sink.over[0], ConnectionError)


async def test_messages_are_bounded_both_ways() -> None:
    inbound: asyncio.Queue[bytes] = asyncio.Queue()
    stuck = asyncio.Event()

    async def send(_data: bytes) -> None:
        await stuck.wait()

    async def close() -> None: ...

    transport = MessageTransport(inbound.get, send, close)
    sink = Collector()
    transport.set_sink(sink)
    run = asyncio.ensure_future(transport.run())
    for _ in range(10):
        transport.write(b"x" * 10_000)
        await asyncio.sleep(0)
    assert sink.paused
    transport.pause_reading()
    for _ in range(5):
        inbound.put_nowait(b"in")
    for _ in range(20):
        await asyncio.sleep(0)
    assert not sink.data
    assert inbound.qsize() >= 3
    transport.resume_reading()
    stuck.set()
    await until(lambda: sink.data == b"in" * 5 and not sink.paused)
    transport.abort()
    await asyncio.wait_for(run, 5)
    assert sink.over == [None]
