"""Descriptors wait, end and close without leaving a watcher behind."""

from __future__ import annotations

import asyncio
import os

import pytest

from underpass.agent.terminals.descriptor import Descriptor


@pytest.fixture
async def pipe() -> tuple[Descriptor, Descriptor]:
    reader, writer = os.pipe()
    return Descriptor(reader), Descriptor(writer)


async def test_read_waits_for_bytes(pipe: tuple[Descriptor, Descriptor]) -> None:
    reader, writer = pipe
    assert reader.read_now(10) is None
    async with asyncio.TaskGroup() as group:
        read = group.create_task(reader.read(3))
        await asyncio.sleep(0)
        assert writer.write_now(b"hello") == 5
    assert read.result() == b"hel"
    assert await reader.read(10) == b"lo"
    writer.close()
    assert await reader.read(10) == b""
    reader.close()


async def test_a_full_pipe_takes_nothing_until_it_is_read(
    pipe: tuple[Descriptor, Descriptor],
) -> None:
    reader, writer = pipe
    while writer.write_now(bytes(65536)):
        pass
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(writer.writable())
        await asyncio.sleep(0)
        assert not waiting.done()
        reader.read_now(65536)
    reader.close()
    assert writer.write_now(b"x") is None
    writer.close()


async def test_close_wakes_who_waits_and_is_idempotent(
    pipe: tuple[Descriptor, Descriptor],
) -> None:
    reader, writer = pipe
    while writer.write_now(bytes(65536)):
        pass
    other_reader, other_writer = os.pipe()
    idle = Descriptor(other_reader)
    async with asyncio.TaskGroup() as group:
        read = group.create_task(idle.read(1))
        group.create_task(writer.writable())
        await asyncio.sleep(0)
        idle.close()
        writer.close()
        writer.close()
    assert read.result() == b""
    assert writer.closed
    assert writer.fileno() == -1
    assert writer.write_now(b"x") is None
    assert idle.read_now(1) == b""
    await idle.readable()
    await writer.writable()
    os.close(other_writer)
    reader.close()


async def test_other_errors_are_not_hidden(pipe: tuple[Descriptor, Descriptor]) -> None:
    reader, writer = pipe
    with pytest.raises(OSError, match="Bad file"):
        writer.read_now(1)
    with pytest.raises(OSError, match="Bad file"):
        reader.write_now(b"x")
    reader.close()
    writer.close()


async def test_a_cancelled_wait_leaves_no_watcher(pipe: tuple[Descriptor, Descriptor]) -> None:
    reader, writer = pipe
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await reader.readable()
    assert not asyncio.get_running_loop().remove_reader(reader.fileno())
    reader.close()
    writer.close()
