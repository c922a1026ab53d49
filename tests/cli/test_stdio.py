"""Our own stdin, stdout and stderr: pipes, files, ends, and readers that go away."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from underpass.cli.stdio import InputPipe, OutputPipe, StdioStream
from underpass.links.memory import memory_pair
from underpass.links.relay import relay
from underpass.links.stream import StreamReset

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


@pytest.fixture
def second() -> Iterator[Pipe]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


async def test_reads_to_the_end(pipe: Pipe, second: Pipe) -> None:
    os.write(pipe[1], b"hello")
    os.close(pipe[1])
    stream = StdioStream(pipe[0], second[1])
    assert await stream.read() == b"hello"
    assert await stream.read() == b""
    await stream.close()


async def test_a_plain_file_is_an_input_too(tmp_path: Path, second: Pipe) -> None:
    data = os.urandom(300_000)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        stream = StdioStream(file.fileno(), second[1])
        found = b""
        while piece := await stream.read():
            found += piece
        await stream.close()
    assert found == data


async def test_no_input_has_ended_already(second: Pipe) -> None:
    stream = StdioStream(None, second[1])
    assert await stream.read() == b""
    stream.abort()


async def test_a_closed_input_has_ended(second: Pipe) -> None:
    stream = StdioStream(999, second[1])
    assert await stream.read() == b""
    stream.abort()


async def test_what_is_written_comes_out_before_close_returns(pipe: Pipe, second: Pipe) -> None:
    stream = StdioStream(None, pipe[1])
    stream.write(b"one")
    stream.write(bytearray(b"two"))
    await stream.close()
    assert os.read(pipe[0], 100) == b"onetwo"
    stream.write(b"late")  # dropped


async def test_finish_lets_the_reader_see_the_end(pipe: Pipe) -> None:
    stream = StdioStream(None, pipe[1])
    stream.write(b"last")
    await stream.write_eof()
    await stream.flush()
    assert await asyncio.to_thread(os.read, pipe[0], 100) == b"last"
    assert await asyncio.wait_for(asyncio.to_thread(os.read, pipe[0], 100), 5) == b""
    stream.abort()


async def test_a_reader_that_goes_away_resets_the_stream(pipe: Pipe) -> None:
    stream = StdioStream(None, pipe[1])
    os.close(pipe[0])
    stream.write(b"x")
    with pytest.raises(StreamReset) as caught:
        for _ in range(1000):
            stream.write(b"x")
            await stream.drain()
            await asyncio.sleep(0.005)
    assert caught.value.code == "broken_pipe"
    await stream.close()


async def test_a_slow_reader_makes_it_full(pipe: Pipe) -> None:
    told: list[int] = []
    out = OutputPipe(pipe[1], told.append)
    out.write(b"x" * (1 << 20))
    assert out.full

    def read_all() -> int:
        count = 0
        while count < 1 << 20:
            count += len(os.read(pipe[0], 65536))
        return count

    reading = asyncio.create_task(asyncio.to_thread(read_all))
    await asyncio.wait_for(out.drain(), 10)
    await asyncio.wait_for(out.flush(), 10)
    assert await reading == 1 << 20
    assert sum(told) == 1 << 20
    out.stop()


async def test_pausing_holds_input_back(pipe: Pipe) -> None:
    got = asyncio.Queue[bytes]()
    keys = InputPipe(pipe[0], got.put_nowait)
    os.write(pipe[1], b"a")
    assert await asyncio.wait_for(got.get(), 5) == b"a"
    keys.pause()
    os.write(pipe[1], b"b")
    early = b""
    with contextlib.suppress(TimeoutError):
        early = await asyncio.wait_for(got.get(), 1)  # one piece may be under way, or none
    os.write(pipe[1], b"c")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(got.get(), 0.2)
    keys.resume()
    while len(early) < 2:
        early += await asyncio.wait_for(got.get(), 5)
    assert early == b"bc"
    keys.stop()


async def test_relay_carries_both_ways_and_keeps_the_half_close(pipe: Pipe, second: Pipe) -> None:
    near, far = memory_pair()
    data = os.urandom(2_000_000)
    task = asyncio.create_task(relay(StdioStream(pipe[0], second[1]), near))

    def feed() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(pipe[1], view) :]
        os.close(pipe[1])

    feeding = asyncio.create_task(asyncio.to_thread(feed))
    found = b""
    while piece := await asyncio.wait_for(far.read(), 10):
        found += piece
    assert found == data
    far.write(b"answer")
    await far.write_eof()
    assert await asyncio.to_thread(os.read, second[0], 100) == b"answer"
    result = await asyncio.wait_for(task, 10)
    await feeding
    assert (result.a_to_b, result.b_to_a, result.error) == (len(data), 6, None)
