"""Shaped streams on a loop with virtual time: byte-exact, in order, and nothing piles up."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.links.loops import read_all
from tests.links.virtual_time import LoopClock, run_virtually
from underpass.links.memory import memory_pair
from underpass.links.relay import relay
from underpass.links.shaping import TokenBucket, shaped
from underpass.links.stream import Stream, StreamReset

KB = 1000


def bucket(rate: float | None, burst: float | None = None) -> TokenBucket:
    return TokenBucket(rate, burst, LoopClock())


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run the test on a loop with virtual time."""

    def run(**arguments: Any) -> None:
        run_virtually(test(**arguments))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    run.__signature__ = __import__("inspect").signature(test)  # type: ignore[attr-defined]
    run.pytestmark = getattr(test, "pytestmark", [])  # type: ignore[attr-defined]
    return run


async def timed(awaitable: Any) -> tuple[Any, float]:
    loop = asyncio.get_running_loop()
    start = loop.time()
    return await awaitable, loop.time() - start


async def pour(stream: Stream, data: bytes, piece: int = 20_000) -> None:
    for start in range(0, len(data), piece):
        stream.write(data[start : start + piece])
        await stream.drain()
    await stream.write_eof()


class Notes:
    """A receiver that notes what it is told and when."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.received = bytearray()

    def data(self, chunk: bytes | memoryview) -> None:
        self.received += chunk

    def eof(self) -> None:
        self.told.append("eof")

    def lost(self, error: Exception) -> None:
        self.told.append(error)

    def writable(self) -> None:
        self.told.append("writable")


@virtually
async def test_without_buckets_nothing_is_in_between() -> None:
    stream, _ = memory_pair()
    assert shaped(stream) is stream


@virtually
async def test_50_kb_at_10_kb_a_second_in() -> None:
    near, far = memory_pair()
    data = os.urandom(50 * KB)
    far.write(data)
    await far.write_eof()
    got, seconds = await timed(read_all(shaped(near, inbound=[bucket(10 * KB)])))
    assert got == data
    assert seconds == pytest.approx(4.5, abs=0.01)


@virtually
async def test_50_kb_at_10_kb_a_second_out() -> None:
    near, far = memory_pair()
    data = os.urandom(50 * KB)
    stream = shaped(near, outbound=[bucket(10 * KB)])
    async with asyncio.TaskGroup() as group:
        group.create_task(pour(stream, data))
        got, seconds = await timed(read_all(far))
    assert got == data
    assert seconds == pytest.approx(4.5, abs=0.01)


@virtually
async def test_both_ways_have_limits_of_their_own() -> None:
    near, far = memory_pair()
    stream = shaped(near, inbound=[bucket(10 * KB)], outbound=[bucket(100 * KB)])
    async with asyncio.TaskGroup() as group:
        group.create_task(pour(stream, b"o" * 200 * KB))
        group.create_task(pour(far, b"i" * 50 * KB))
        out = group.create_task(timed(read_all(far)))
        into = group.create_task(timed(read_all(stream)))
    assert out.result() == (b"o" * 200 * KB, pytest.approx(1.5, abs=0.01))
    assert into.result() == (b"i" * 50 * KB, pytest.approx(4.5, abs=0.01))
    assert (stream.bytes_in, stream.bytes_out) == (50 * KB, 200 * KB)


@virtually
async def test_only_one_way_is_limited() -> None:
    near, far = memory_pair()
    stream = shaped(near, inbound=[bucket(10 * KB)])
    stream.write(b"o" * 100 * KB)
    await stream.write_eof()
    assert (await timed(read_all(far)))[1] == 0
    near, far = memory_pair()
    stream = shaped(near, outbound=[bucket(10 * KB)])
    far.write(b"i" * 100 * KB)
    await far.write_eof()
    assert (await timed(read_all(stream)))[1] == 0


@virtually
async def test_the_smallest_of_several_limits_counts() -> None:
    near, far = memory_pair()
    far.write(b"x" * 50 * KB)
    await far.write_eof()
    limits = [bucket(1000 * KB), bucket(10 * KB), bucket(None), bucket(20 * KB)]
    _, seconds = await timed(read_all(shaped(near, inbound=limits)))
    assert seconds == pytest.approx(4.5, abs=0.01)


@virtually
async def test_streams_share_a_limit_fairly() -> None:
    shared = bucket(40 * KB)
    pairs = [memory_pair() for _ in range(4)]
    readers = []
    async with asyncio.TaskGroup() as group:
        for near, far in pairs:
            group.create_task(pour(far, b"x" * 100 * KB))
            readers.append(group.create_task(timed(read_all(shaped(near, inbound=[shared])))))
    seconds = [reader.result()[1] for reader in readers]
    # 400 KB in all. The first one got the burst of 20 KB; apart from it each had its quarter.
    assert max(seconds) == pytest.approx(9.5, abs=0.02)
    assert min(seconds) == pytest.approx(8.0, abs=0.02)


@virtually
async def test_a_new_rate_counts_at_once_for_what_waits() -> None:
    limit = bucket(1 * KB)
    near, far = memory_pair()
    far.write(b"x" * 61_024)
    await far.write_eof()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(timed(read_all(shaped(near, inbound=[limit]))))
        await asyncio.sleep(10)
        limit.rate = 100 * KB
    # 11,024 bytes in the first ten seconds, 50,000 in half a second (and 0.25 s to notice).
    assert 10.4 <= reading.result()[1] <= 10.8


@virtually
async def test_a_lifted_limit_lets_everything_go() -> None:
    limit = bucket(1)
    near, far = memory_pair()
    far.write(b"x" * 50 * KB)
    await far.write_eof()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(timed(read_all(shaped(near, inbound=[limit]))))
        await asyncio.sleep(5)
        limit.rate = None
    assert reading.result()[1] <= 5.25


@virtually
async def test_a_relay_through_limits_keeps_order_and_half_close() -> None:
    user, a = memory_pair()
    b, service = memory_pair()
    limit = bucket(100 * KB)
    task = asyncio.ensure_future(relay(shaped(a, inbound=[limit], outbound=[bucket(50 * KB)]), b))
    question, answer = os.urandom(300 * KB), os.urandom(200 * KB)
    async with asyncio.TaskGroup() as group:
        group.create_task(pour(user, question))
        got, seconds = await timed(read_all(service))
    assert got == question
    assert seconds == pytest.approx(2.5, abs=0.02)
    async with asyncio.TaskGroup() as group:
        group.create_task(pour(service, answer))
        got, seconds = await timed(read_all(user))
    assert got == answer
    assert seconds == pytest.approx(3.5, abs=0.02)
    result = await task
    assert (result.a_to_b, result.b_to_a, result.error) == (300 * KB, 200 * KB, None)


@virtually
async def test_the_writer_is_held_back() -> None:
    near, far = memory_pair()
    stream = shaped(near, outbound=[bucket(10 * KB)])
    notes = Notes()
    stream.attach(notes)
    stream.write(b"x" * 5 * KB)
    assert not stream.full
    stream.write(b"x" * 64 * KB)
    assert stream.full
    assert stream.bytes_out == 69 * KB
    reading = asyncio.ensure_future(read_all(far))
    _, seconds = await timed(stream.drain())
    assert seconds == pytest.approx(6.4, abs=0.01)
    assert notes.told == ["writable"]
    stream.abort()
    with pytest.raises(StreamReset):
        await reading


@virtually
async def test_the_peer_is_held_back() -> None:
    near, far = memory_pair()
    stream = shaped(near, inbound=[bucket(10 * KB)])
    written = 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            while True:
                far.write(b"x" * 8 * KB)
                written += 8 * KB
                await far.drain()
    # Nobody reads: the shaped stream's buffer fills to its mark, then the pipe to its own.
    assert written < 400 * KB
    assert stream.bytes_in <= 105 * KB


@virtually
async def test_a_stream_below_that_is_full_gets_no_more() -> None:
    near, far = memory_pair()
    stream = shaped(near, outbound=[bucket(10_000 * KB)])
    for _ in range(40):
        stream.write(b"x" * 50 * KB)
    await asyncio.sleep(5)
    assert near.bytes_out < 250 * KB
    assert stream.full
    await stream.write_eof()
    assert await read_all(far) == b"x" * 2000 * KB


@virtually
async def test_the_reader_stops_and_goes_on() -> None:
    near, far = memory_pair()
    stream = shaped(near, inbound=[bucket(10 * KB)])
    notes = Notes()
    far.write(b"x" * 30 * KB)
    await far.write_eof()
    stream.attach(notes)
    stream.pause()
    await asyncio.sleep(10)
    before = len(notes.received)
    assert before == 5 * KB
    stream.resume()
    await asyncio.sleep(10)
    assert len(notes.received) == 30 * KB
    assert notes.told == ["eof"]


@virtually
async def test_close_sends_what_was_written() -> None:
    near, far = memory_pair()
    stream = shaped(near, outbound=[bucket(1 * KB, 1 * KB)])
    stream.write(b"x" * 41 * KB)
    reading = asyncio.ensure_future(read_all(far))
    far.write(b"nobody reads this any more")
    closing = asyncio.ensure_future(timed(stream.close()))
    await asyncio.sleep(1)
    far.write(b"nor this")
    _, seconds = await closing
    assert seconds == pytest.approx(40, abs=0.1)
    assert await reading == b"x" * 41 * KB
    assert stream.closed
    stream.write(b"too late")
    with pytest.raises(StreamReset):
        await stream.read()
    await stream.close()


@virtually
async def test_close_gives_up_when_nobody_reads() -> None:
    near, far = memory_pair()
    stream = shaped(near, outbound=[bucket(1000 * KB)])
    for _ in range(20):
        stream.write(b"x" * 50 * KB)
    _, seconds = await timed(stream.close())
    assert 30 <= seconds <= 32
    with pytest.raises(StreamReset, match="did not take"):
        await read_all(far)


@virtually
async def test_a_cancelled_close_aborts() -> None:
    near, far = memory_pair()
    stream = shaped(near, outbound=[bucket(1 * KB)])
    stream.write(b"x" * 50 * KB)
    closing = asyncio.ensure_future(stream.close())
    await asyncio.sleep(1)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(StreamReset):
        await read_all(far)


@virtually
async def test_the_peer_leaves_while_it_closes() -> None:
    near, far = memory_pair()
    stream = shaped(near, outbound=[bucket(1 * KB)])
    stream.write(b"x" * 50 * KB)
    closing = asyncio.ensure_future(stream.close())
    await asyncio.sleep(1)
    far.abort("gone")
    assert (await timed(closing))[1] == 0


@virtually
async def test_an_abort_gives_reservations_back() -> None:
    shared = bucket(1 * KB)
    near, far = memory_pair()
    stream = shaped(near, inbound=[shared])
    far.write(b"x" * 50 * KB)
    await asyncio.sleep(1)
    stream.abort("enough")
    with pytest.raises(StreamReset) as caught:
        await far.read()
    assert caught.value.code == "enough"
    assert shared.wait(shared.reserve(0)) == 0


@virtually
async def test_a_loss_after_the_end_waits_for_what_came_before() -> None:
    near, far = memory_pair()
    stream = shaped(near, inbound=[bucket(10 * KB)])
    far.write(b"x" * 30 * KB)
    await far.write_eof()
    notes = Notes()
    stream.attach(notes)
    far.abort("gone")
    assert not stream.full
    await stream.drain()
    await asyncio.sleep(10)
    assert len(notes.received) == 30 * KB
    assert notes.told[:2] == ["writable", "eof"]
    assert notes.told[2].code == "gone"


@virtually
async def test_a_loss_before_the_end_comes_at_once() -> None:
    near, far = memory_pair()
    stream = shaped(near, inbound=[bucket(10 * KB)], outbound=[bucket(10 * KB)])
    far.write(b"x" * 30 * KB)
    stream.write(b"y" * 30 * KB)
    far.abort("gone")
    with pytest.raises(StreamReset):
        await stream.drain()
    assert not shaped(near, outbound=[bucket(1)]).full
