"""Compressed streams: bursts, ends, pressure, and what damaged records do to them."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from tests.links.loops import anyio_backend, links, read_all, socket_pair  # noqa: F401
from underpass.links.compression import compressed
from underpass.links.layers import COMPRESSIONS, Compression
from underpass.links.link import Opening
from underpass.links.memory import memory_pair
from underpass.links.relay import relay
from underpass.links.stream import Stream, StreamReset
from underpass.wire.compression import Encoder

CODECS: list[Any] = [name for name in COMPRESSIONS if name != "none"]
TEXT = b"".join(b"%d GET /page/%d HTTP/1.1\n" % (i, i * 7919 % 1000) for i in range(20_000))


def pair(codec: Compression = "zstd") -> tuple[Stream, Stream]:
    a, b = memory_pair()
    return compressed(a, codec), compressed(b, codec)


async def pour(stream: Stream, data: bytes, piece: int = 50_000) -> None:
    for start in range(0, len(data), piece):
        stream.write(data[start : start + piece])
        await stream.drain()
    await stream.write_eof()


async def test_none_is_the_stream_itself() -> None:
    stream, _ = memory_pair()
    assert compressed(stream, "none") is stream


@pytest.mark.parametrize("codec", CODECS)
async def test_both_ways_with_half_close(codec: Compression) -> None:
    near, far = pair(codec)
    question, answer = TEXT, os.urandom(700_000) + TEXT
    async with asyncio.TaskGroup() as group:
        group.create_task(pour(near, question))
        assert await read_all(far) == question
    async with asyncio.TaskGroup() as group:
        group.create_task(pour(far, answer, 70_001))
        assert await read_all(near) == answer
    assert (near.bytes_out, near.bytes_in) == (len(question), len(answer))
    await near.close()
    await far.close()


async def test_fewer_bytes_below() -> None:
    a, b = memory_pair()
    near, far = compressed(a, "zstd"), compressed(b, "zstd")
    async with asyncio.TaskGroup() as group:
        group.create_task(pour(near, TEXT, 100))
        assert await read_all(far) == TEXT
    assert b.bytes_in < len(TEXT) / 3


async def test_a_burst_goes_out_at_its_end() -> None:
    a, b = memory_pair()
    near, far = compressed(a, "zstd"), compressed(b, "zstd")
    for _ in range(100):
        near.write(b"a line of text\n")
    assert b.bytes_in == 0
    assert await far.read() == b"a line of text\n" * 100
    near.write(b"q")
    assert await asyncio.wait_for(far.read(), 1) == b"q"
    near.write(b"")
    near.write(b"last words")
    await near.close()
    near.write(b"too late")
    assert await read_all(far) == b"last words"
    with pytest.raises(StreamReset):
        await near.read()


async def test_an_abort_passes_with_its_code() -> None:
    near, far = pair()
    near.write(b"never sent")
    near.abort("gave_up")
    await asyncio.sleep(0)
    with pytest.raises(StreamReset) as caught:
        await far.read()
    assert caught.value.code == "gave_up"
    with pytest.raises(StreamReset):
        await near.drain()


async def test_through_links_sockets_and_a_relay() -> None:
    """User, gateway's relay with compression, link, agent's relay, service."""
    data = TEXT + os.urandom(1_000_000) + TEXT
    async with socket_pair() as (user, entry), socket_pair() as (service, opened):

        async def opener(opening: Opening) -> None:
            await relay(compressed(opening.accept(), "adaptive"), opened)

        async with links("tcp", opener) as (node, _agent):
            stream = compressed(await node.open("tcp:x:1"), "adaptive")
            async with asyncio.TaskGroup() as group:
                relaying = group.create_task(relay(entry, stream))
                group.create_task(pour(user, data))
                assert await read_all(service) == data
                group.create_task(pour(service, data[::-1], 10_000))
                assert await read_all(user) == data[::-1]
            assert relaying.result().error is None
            assert (relaying.result().a_to_b, relaying.result().b_to_a) == (len(data), len(data))


def records(data: bytes, codec: Any = "zstd") -> bytes:
    encoder = Encoder(codec)
    return b"".join(bytes(part) for part in encoder.put(data) + encoder.flush())


async def test_a_damaged_record_ends_the_stream() -> None:
    a, b = memory_pair()
    stream = compressed(a, "zstd")
    b.write(records(b"good"))
    b.write(b"\x09" * 100)
    assert await stream.read() == b"good"
    with pytest.raises(StreamReset) as caught:
        await stream.read()
    assert caught.value.code == "bad_compression"
    with pytest.raises(StreamReset) as caught:
        await b.read()
    assert caught.value.code == "bad_compression"
    assert stream.closed


async def test_an_end_within_a_record() -> None:
    a, b = memory_pair()
    stream = compressed(a, "zstd")
    b.write(records(TEXT)[:-1])
    await b.write_eof()
    with pytest.raises(StreamReset) as caught:
        await read_all(stream)
    assert caught.value.code == "bad_compression"


async def test_a_loss_below() -> None:
    a, b = memory_pair()
    stream = compressed(a, "zstd")
    b.write(records(b"good"))
    b.abort("gone")
    assert await stream.read() == b"good"
    with pytest.raises(StreamReset) as caught:
        await stream.read()
    assert caught.value.code == "gone"


class SlowReceiver:
    """Pauses after every piece, as a relay does whose target is full."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.pieces: list[bytes] = []
        self.told: list[str] = []

    def data(self, chunk: bytes | memoryview) -> None:
        self.pieces.append(bytes(chunk))
        self.stream.pause()

    def eof(self) -> None:
        self.told.append("eof")

    def lost(self, error: Any) -> None:
        self.told.append(error.code)

    def writable(self) -> None:
        self.told.append("writable")


async def test_what_expands_is_not_expanded_for_a_receiver_that_waits() -> None:
    a, b = memory_pair()
    stream = compressed(a, "zstd")
    receiver = SlowReceiver(stream)
    stream.attach(receiver)
    wire = records(bytes(50 << 20))
    assert len(wire) < 100_000
    b.write(wire)
    await b.write_eof()
    b.abort("gone")  # after the end: the receiver still gets everything
    for count in range(1, 801):
        assert len(receiver.pieces) == count
        assert stream.bytes_in == count << 16
        stream.resume()
    assert receiver.told == ["writable", "eof", "gone"]


async def test_a_receiver_that_goes_on_at_once() -> None:
    near, far = pair()

    class Hasty(SlowReceiver):
        def data(self, chunk: bytes | memoryview) -> None:
            super().data(chunk)
            self.stream.resume()

    hasty = Hasty(far)
    far.attach(hasty)
    near.write(bytes(500_000))
    await near.write_eof()
    assert b"".join(hasty.pieces) == bytes(500_000)
    assert hasty.told == ["eof"]


async def test_a_reader_that_stops_stops_the_writer() -> None:
    a, b = memory_pair()
    near, far = compressed(a, "zstd"), compressed(b, "zstd")
    block = os.urandom(65_536)
    sent = 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            while True:
                near.write(block)
                sent += len(block)
                await near.drain()
    assert sent < 1 << 20
    assert near.full
    assert far.bytes_in < 400_000
    assert await read_all(far, sent) == block * (sent // len(block))
    await asyncio.wait_for(near.drain(), 1)


async def test_what_is_buffered_is_pushed_in_order() -> None:
    near, far = pair("lz4")
    near.write(b"1" * 100_000)
    near.write(b"2" * 300_000)
    await near.write_eof()
    await asyncio.sleep(0)
    assert (await far.read(10)) == b"1" * 10
    other, sink = memory_pair()
    task = asyncio.ensure_future(relay(far, other))
    assert await read_all(sink) == b"1" * 99_990 + b"2" * 300_000
    await sink.write_eof()
    assert (await task).error is None


async def test_a_receiver_that_gives_up_in_the_middle() -> None:
    near, far = pair()

    class Quitter(SlowReceiver):
        def data(self, chunk: bytes | memoryview) -> None:
            self.pieces.append(bytes(chunk))
            self.stream.abort("enough")

    quitter = Quitter(far)
    near.write(bytes(500_000))
    far.attach(quitter)
    await asyncio.sleep(0)
    assert len(quitter.pieces) == 1
    assert set(quitter.told) == {"enough"}
    with pytest.raises(StreamReset) as caught:
        await near.read()
    assert caught.value.code == "enough"
