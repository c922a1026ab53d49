"""The relay between every two kinds of streams, on both loops: bytes, ends, losses, pressure."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.links.loops import anyio_backend, links, read_all, socket_pair  # noqa: F401
from underpass.links.link import Opening
from underpass.links.memory import memory_pair
from underpass.links.relay import RelayResult, relay
from underpass.links.stream import Stream, StreamReset

KINDS = ["memory", "socket", "link"]
PAIRS = [(a, b) for a in KINDS for b in KINDS]


@asynccontextmanager
async def pipe(kind: str) -> AsyncIterator[tuple[Stream, Stream]]:
    """Two joined streams; the first is for the test, the second for the relay."""
    if kind == "memory":
        yield memory_pair()
    elif kind == "socket":
        async with socket_pair() as (near, far):
            yield near, far
    else:
        arrived: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
        done = asyncio.Event()

        async def handler(opening: Opening) -> None:
            arrived.set_result(opening.accept())
            await done.wait()

        async with links("tcp", handler) as (a, b):
            near = await a.open("x")
            yield near, await arrived
            near.abort()
            for _ in range(200):
                if not (a.streams or b.streams):
                    break
                await asyncio.sleep(0.005)
            assert a.streams == b.streams == 0
            done.set()


@asynccontextmanager
async def relayed(
    left: str, right: str, **options: Any
) -> AsyncIterator[tuple[Stream, Stream, asyncio.Task[RelayResult]]]:
    """A relay in the middle of two pipes: user end, service end, and the relay's task."""
    async with AsyncExitStack() as stack:
        user, a = await stack.enter_async_context(pipe(left))
        service, b = await stack.enter_async_context(pipe(right))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(relay(a, b, **options))
            try:
                yield user, service, task
            finally:
                task.cancel()
        assert a.closed
        assert b.closed


async def pour(stream: Stream, data: bytes, piece: int = 50_000) -> None:
    for start in range(0, len(data), piece):
        stream.write(data[start : start + piece])
        await stream.drain()
    await stream.write_eof()


@pytest.mark.parametrize(("left", "right"), PAIRS)
async def test_bytes_pass_both_ways_and_half_close_is_kept(left: str, right: str) -> None:
    forth, back = os.urandom(700_001), os.urandom(1_300_003)
    async with relayed(left, right) as (user, service, task):
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(user, forth))
            at_service = group.create_task(read_all(service))
        assert at_service.result() == forth
        assert not task.done()
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(service, back))
            at_user = group.create_task(read_all(user))
        assert at_user.result() == back
        assert await asyncio.wait_for(task, 5) == RelayResult(len(forth), len(back))


@pytest.mark.parametrize(("left", "right"), PAIRS)
async def test_both_ways_at_once(left: str, right: str) -> None:
    forth, back = os.urandom(2_000_000), os.urandom(2_000_000)
    async with relayed(left, right) as (user, service, task):
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(user, forth))
            group.create_task(pour(service, back, 7001))
            at_service = group.create_task(read_all(service))
            at_user = group.create_task(read_all(user))
        assert (at_service.result(), at_user.result()) == (forth, back)
        assert (await asyncio.wait_for(task, 5)).error is None


@pytest.mark.parametrize(("left", "right"), PAIRS)
async def test_an_abort_on_one_side_ends_the_other(left: str, right: str) -> None:
    async with relayed(left, right) as (user, service, task):
        user.write(b"hello")
        assert await service.read() == b"hello"
        user.abort("gave_up")
        result = await asyncio.wait_for(task, 5)
        assert (result.a_to_b, result.b_to_a) == (5, 0)
        assert result.error is not None
        assert result.error.code == ("connection_lost" if left == "socket" else "gave_up")
        with pytest.raises(StreamReset):
            await asyncio.wait_for(service.read(), 5)


@pytest.mark.parametrize(("left", "right"), PAIRS)
async def test_a_cancelled_relay_leaves_nothing_open(left: str, right: str) -> None:
    async with relayed(left, right) as (user, service, task):
        user.write(b"x")
        assert await service.read() == b"x"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(("left", "right"), PAIRS)
async def test_a_reader_that_stops_stops_the_writer(left: str, right: str) -> None:
    async with relayed(left, right) as (user, service, _task):
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                user.write(b"x" * 65536)
                sent += 65536
                await user.drain()

        async with asyncio.TaskGroup() as group:
            flooding = group.create_task(flood())
            settled, before = 0, -1
            while settled < 5:
                await asyncio.sleep(0.02)
                settled = settled + 1 if sent == before else 0
                before = sent
            flooding.cancel()
        stuck_at = sent
        assert stuck_at < 40 << 20
        # It goes on where it stopped as soon as somebody reads.
        assert await read_all(service, stuck_at) == b"x" * stuck_at


async def test_what_was_buffered_before_the_relay_passes_first() -> None:
    user, a = memory_pair()
    b, service = memory_pair()
    user.write(b"early ")
    await user.write_eof()
    service.write(b"greeting")
    await service.write_eof()
    result = await asyncio.wait_for(relay(a, b), 5)
    assert (result.a_to_b, result.b_to_a, result.error) == (6, 8, None)
    assert await read_all(service) == b"early "
    assert await read_all(user) == b"greeting"


async def test_a_stream_lost_before_the_relay_ends_it_at_once() -> None:
    user, a = memory_pair()
    b, service = memory_pair()
    user.abort("gone")
    result = await asyncio.wait_for(relay(a, b), 5)
    assert result.error is not None
    assert result.error.code == "gone"
    with pytest.raises(StreamReset):
        await service.read()


class Recorder:
    def __init__(self) -> None:
        self.forth = bytearray()
        self.back = bytearray()

    def a_to_b(self, data: bytes) -> None:
        assert type(data) is bytes
        self.forth += data

    def b_to_a(self, data: bytes) -> None:
        assert type(data) is bytes
        self.back += data


@pytest.mark.parametrize("kind", KINDS)
async def test_a_tap_sees_every_byte(kind: str) -> None:
    tap = Recorder()
    forth, back = os.urandom(300_000), os.urandom(400_000)
    async with relayed(kind, kind, tap=tap) as (user, service, task):
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(user, forth))
            group.create_task(pour(service, back))
            group.create_task(read_all(service))
            group.create_task(read_all(user))
        await asyncio.wait_for(task, 5)
    assert (bytes(tap.forth), bytes(tap.back)) == (forth, back)


async def test_a_stream_that_pushes_cannot_be_read() -> None:
    user, a = memory_pair()
    b, _service = memory_pair()
    task = asyncio.ensure_future(relay(a, b))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await a.read()
    user.abort()
    await task


async def test_a_stream_somebody_reads_cannot_push() -> None:
    _user, a = memory_pair()
    b, _service = memory_pair()
    reading = asyncio.ensure_future(a.read())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await relay(a, b)
    with pytest.raises(StreamReset):
        await reading
    assert b.closed
