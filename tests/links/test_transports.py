"""The carriers: the seam between handshake and link, batching, closing, on both loops."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from tests.links.loops import (
    CARRIERS,
    LINK_CARRIERS,
    NODE,
    anyio_backend,  # noqa: F401
    links,
    open_descriptors,
    read_all,
    transports,
)
from tests.links.test_sockets import descriptors_left
from underpass.core.errors import TooLarge, Unavailable
from underpass.links.link import Link, Opening
from underpass.links.transports.connection import (
    StreamTransport,
    address_of,
    adopt,
    is_local,
    tune_socket,
)
from underpass.links.transports.transport import Inbox, Transport, WriteBatch


class Collector:
    """A sink that keeps what it is fed."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.pieces = 0
        self.paused = False
        self.over: list[Exception | None] = []

    def feed(self, data: bytes) -> None:
        self.data += data
        self.pieces += 1

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def lost(self, error: Exception | None) -> None:
        self.over.append(error)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def echo(opening: Opening) -> None:
    stream = opening.accept()
    while data := await stream.read():
        stream.write(data)
        await stream.drain()
    await stream.close()


@pytest.mark.parametrize("carrier", LINK_CARRIERS)
async def test_a_link_over_it_carries_streams(carrier: str) -> None:
    before = open_descriptors()
    blob = os.urandom(3_000_000)
    async with links(carrier, echo) as (a, b):
        assert a.carrier == b.carrier == carrier
        stream = await a.open("x")

        async def send() -> None:
            for start in range(0, len(blob), 100_000):
                stream.write(blob[start : start + 100_000])
                await stream.drain()
            await stream.write_eof()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            got = group.create_task(read_all(stream))
        assert got.result() == blob  # half-close works, over TLS too
        await stream.close()
        await a.close("done", "Thank you.")
        assert (await asyncio.wait_for(b.wait_closed(), 5)).code == "done"
    assert not await descriptors_left(before)


@pytest.mark.parametrize("carrier", LINK_CARRIERS)
async def test_handshake_bytes_and_link_bytes_may_come_in_one_piece(carrier: str) -> None:
    async with transports(carrier) as (near, far):
        near_inbox, far_inbox = Inbox(near), Inbox(far)
        near.write(b"HELLO")
        near.write(b"!")
        async with asyncio.timeout(5):
            hello = b""
            while len(hello) < 6:
                hello += await far_inbox.read()
            assert hello == b"HELLO!"
            far.write(b"WELCOME")
            # The acceptor starts at once; its frames follow in the same piece.
            b = Link(far, NODE, dialler=False, leftover=far_inbox.detach())
            b.on_open(echo)
            b.start()
            answer = b""
            while len(answer) < 7:
                answer += await near_inbox.read()
            near_inbox.unread(answer[7:])
            assert answer[:7] == b"WELCOME"
            a = Link(near, NODE, dialler=True, leftover=near_inbox.detach())
            stream = await a.open("x")
            stream.write(b"over the link")
            assert await stream.read() == b"over the link"
            stream.abort()
            await a.close()
            await b.close()


@pytest.mark.parametrize("carrier", LINK_CARRIERS)
async def test_nothing_is_fed_before_there_is_a_sink_or_while_paused(carrier: str) -> None:
    async with transports(carrier) as (near, far):
        near.write(b"first ")
        await asyncio.sleep(0.05)
        sink = Collector()
        far.pause_reading()
        far.set_sink(sink)
        near.write(b"second ")
        await asyncio.sleep(0.05)
        assert not sink.data
        far.resume_reading()
        far.resume_reading()
        await until(lambda: sink.data == b"first second ")
        far.pause_reading()
        far.pause_reading()
        near.write(b"third")
        await asyncio.sleep(0.05)
        assert sink.data == b"first second "
        far.resume_reading()
        await until(lambda: sink.data == b"first second third")


@pytest.mark.parametrize("carrier", LINK_CARRIERS)
async def test_close_delivers_and_tells_both_ends(carrier: str) -> None:
    async with transports(carrier) as (near, far):
        here, there = Collector(), Collector()
        near.set_sink(here)
        far.set_sink(there)
        near.write(b"last words")
        near.close()
        near.close()
        near.write(b"dropped")
        near.writelines([b"dropped"])
        await until(lambda: there.over and here.over)
        assert there.data == b"last words"
        assert near.closing
        assert far.closing
        near.abort()
        far.close()
        late = Collector()
        far.set_sink(late)
        assert len(late.over) == 1
        near.pause_reading()
        near.resume_reading()


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_abort_ends_at_once(carrier: str) -> None:
    async with transports(carrier) as (near, far):
        here, there = Collector(), Collector()
        near.set_sink(here)
        far.set_sink(there)
        near.write(b"x" * 10_000_000)
        near.abort()
        near.abort()
        await until(lambda: there.over and here.over)
        assert len(there.data) < 10_000_000


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_abort_after_a_close_that_had_to_flush_first_is_harmless(carrier: str) -> None:
    async with transports(carrier) as (near, far):
        here, there = Collector(), Collector()
        near.set_sink(here)
        far.set_sink(there)
        for _ in range(160):
            near.write(b"x" * 62_500)
        near.close()
        await until(lambda: here.over and there.over)
        assert len(there.data) == 10_000_000
        near.abort()
        near.abort()


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_a_peer_that_does_not_read_pauses_the_writer(carrier: str) -> None:
    async with transports(carrier) as (near, far):
        here, there = Collector(), Collector()
        near.set_sink(here)
        far.set_sink(there)
        far.pause_reading()
        sent = 0
        async with asyncio.timeout(20):
            while not here.paused:
                near.writelines([b"x" * 30_000, b"y" * 30_000])
                sent += 60_000
                await asyncio.sleep(0)
        assert near.writing_paused
        assert sent < 30 << 20
        late = Collector()
        near.set_sink(late)
        assert late.paused
        far.resume_reading()
        await until(lambda: len(there.data) == sent and not late.paused)


@pytest.mark.parametrize("carrier", LINK_CARRIERS)
async def test_small_writes_of_one_turn_leave_in_one_piece(carrier: str) -> None:
    async with transports(carrier) as (near, far):
        sink = Collector()
        far.set_sink(sink)
        near.set_sink(Collector())
        for number in range(200):
            near.write(b"%03d " % number)
        await until(lambda: len(sink.data) == 800)
        assert sink.pieces == 1


async def test_small_frames_of_many_streams_leave_in_one_write() -> None:
    async with links("memory", echo) as (a, b):
        streams = [await a.open(str(number)) for number in range(50)]
        transport: Any = a._transport
        before = transport.writes
        for stream in streams:
            stream.write(b"small")
        for stream in streams:
            assert await stream.read() == b"small"
            stream.abort()
        assert transport.writes - before <= 2
        assert b.streams >= 0


async def test_a_batch_hands_over_early_when_it_is_large() -> None:
    pieces: list[int] = []
    batch = WriteBatch(lambda data: pieces.append(len(data)))
    for _ in range(250):
        batch.add(b"x" * 1024)
    assert pieces == [128 << 10]
    batch.extend([b"x" * 1024] * 200)
    assert pieces == [128 << 10, 322 << 10]
    batch.extend([b"x"] * 5)
    assert batch.size == 5
    await asyncio.sleep(0)
    assert pieces == [128 << 10, 322 << 10, 5]
    batch.extend([memoryview(b"last")])
    batch.end(flush=True)
    assert pieces[3:] == [4]
    batch.add(b"x")
    batch.extend([b"x"])
    await asyncio.sleep(0)
    assert len(pieces) == 4


async def test_a_batch_can_forget() -> None:
    pieces: list[bytes] = []
    batch = WriteBatch(pieces.append)
    batch.add(b"x")
    batch.end(flush=False)
    await asyncio.sleep(0)
    assert not pieces


async def test_a_batch_copies_small_buffers_only() -> None:
    joined: list[bytes] = []
    gathered: list[int] = []
    batch = WriteBatch(joined.append, lambda parts: gathered.append(len(parts)))
    batch.extend([b"header", memoryview(bytes(60_000))])
    await asyncio.sleep(0)
    batch.extend([b"a", memoryview(b"b"), b"c"])
    await asyncio.sleep(0)
    assert (joined, gathered) == ([b"abc"], [2])


async def test_an_inbox_is_bounded_and_knows_the_end() -> None:
    async with transports("tcp") as (near, far):
        inbox = Inbox(far, limit=100)
        near.write(b"x" * 5000)
        with pytest.raises(TooLarge):
            await asyncio.wait_for(inbox.read(), 5)
    async with transports("tcp") as (near, far):
        inbox = Inbox(far)
        waiting = asyncio.ensure_future(inbox.read())
        await asyncio.sleep(0)
        near.close()
        with pytest.raises(Unavailable) as caught:
            await asyncio.wait_for(waiting, 5)
        assert caught.value.code == "connection_lost"


async def test_a_connection_somebody_else_accepted_can_be_adopted() -> None:
    arrived: asyncio.Future[StreamTransport] = asyncio.get_running_loop().create_future()

    class FirstLook(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def data_received(self, data: bytes) -> None:
            arrived.set_result(adopt(self.transport, "tcp", data))

    server = await asyncio.get_running_loop().create_server(FirstLook, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"UNDPASS1")
    pipe = await arrived
    sink = Collector()
    pipe.set_sink(sink)
    writer.write(b" and more")
    await until(lambda: sink.data == b"UNDPASS1 and more")
    assert pipe.peer_address is not None
    assert pipe.peer_address.startswith("127.0.0.1:")
    writer.close()
    await until(lambda: sink.over)
    del reader
    server.close()


async def test_a_large_read_lets_others_have_their_turn() -> None:
    """A full read pauses until the next turn instead of reading on (libuv: up to 32 times)."""
    async with transports("tcp") as (near, far):
        near.set_sink(Collector())
        turns: list[int] = []
        loop = asyncio.get_running_loop()
        turn = 0

        def count() -> None:
            nonlocal turn
            turn += 1
            if not far.closing:
                loop.call_soon(count)

        class Sink(Collector):
            def feed(self, data: bytes) -> None:
                super().feed(data)
                turns.append(turn)

        sink = Sink()
        far.set_sink(sink)
        loop.call_soon(count)
        for _ in range(40):
            near.write(b"x" * 100_000)
            await asyncio.sleep(0)
        await until(lambda: len(sink.data) == 4_000_000)
        assert max(turns.count(number) for number in set(turns)) <= 2


def test_every_transport_is_a_transport() -> None:
    assert issubclass(StreamTransport, Transport)


async def test_nothing_can_be_written_before_there_is_a_connection() -> None:
    pipe = StreamTransport()
    with pytest.raises(RuntimeError):
        pipe.write(b"x")
    with pytest.raises(RuntimeError):
        pipe.writelines([b"x"])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (("192.0.2.1", 80), "192.0.2.1:80"),
        (("2001:db8::1", 80, 0, 0), "[2001:db8::1]:80"),
        ("", None),
        (None, None),
    ],
)
async def test_addresses_are_shown_as_host_and_port(name: Any, shown: str | None) -> None:
    class Named(asyncio.BaseTransport):
        def get_extra_info(self, what: str, default: Any = None) -> Any:
            return name if what == "peername" else default

    assert address_of(Named()) == shown
    tune_socket(Named())


async def test_flush_does_not_wait_for_the_end_of_the_turn() -> None:
    batch: list[bytes] = []
    collects = WriteBatch(batch.append)
    collects.flush()
    collects.add(b"one")
    collects.add(b"two")
    assert not batch
    collects.flush()
    assert batch == [b"onetwo"]
    await asyncio.sleep(0)
    collects.flush()
    assert batch == [b"onetwo"]


@pytest.mark.parametrize(
    ("here", "there", "local"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 4711), True),
        (("::1", 80, 0, 0), ("::1", 4711, 0, 0), True),
        (("192.0.2.1", 80), ("192.0.2.1", 4711), True),
        (("192.0.2.1", 80), ("192.0.2.2", 4711), False),
        ("", "", False),
        (None, None, False),
    ],
)
def test_ends_with_one_address_are_on_one_machine(here: Any, there: Any, local: bool) -> None:
    class Connected(asyncio.Transport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return {"sockname": here, "peername": there}.get(name, default)

    assert is_local(Connected()) is local
