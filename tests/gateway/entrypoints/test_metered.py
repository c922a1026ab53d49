"""Streams whose every chunk has to be let through."""

from __future__ import annotations

import asyncio

import pytest

from underpass.core.errors import UnderpassError
from underpass.gateway.entrypoints.metered import MeteredStream
from underpass.links.memory import memory_pair
from underpass.links.relay import relay
from underpass.links.stream import StreamReset


class Purse:
    def __init__(self, left: int) -> None:
        self.left = left
        self.asked: list[int] = []

    def take(self, count: int) -> bool:
        if self.left <= 0:
            return False
        self.asked.append(count)
        self.left -= count
        return True


async def test_both_ways_are_counted_and_kept_whole() -> None:
    user, near = memory_pair()
    far, target = memory_pair()
    purse = Purse(1000)
    async with asyncio.TaskGroup() as group, asyncio.timeout(5):
        work = group.create_task(relay(MeteredStream(near, purse.take), far))
        user.write(b"question")
        await user.write_eof()
        assert await target.read() == b"question"
        assert await target.read() == b""
        target.write(b"answer")
        await target.write_eof()
        assert await user.read() == b"answer"
        assert await user.read() == b""
    assert work.result().error is None
    assert 1000 - purse.left == sum(purse.asked) == len(b"question" + b"answer")


async def test_nothing_passes_once_it_is_used_up_not_even_an_end() -> None:
    user, near = memory_pair()
    far, target = memory_pair()
    metered = MeteredStream(near, Purse(10).take)
    async with asyncio.TaskGroup() as group, asyncio.timeout(5):
        group.create_task(relay(metered, far))
        user.write(b"x" * 15)  # the one chunk that may go too far
        assert await target.read() == b"x" * 15
        user.write(b"y")
        await user.write_eof()
        target.write(b"z")
        await target.write_eof()
        for _ in range(5):
            await asyncio.sleep(0)
        metered.abort("quota_exceeded", "It is used up.")
        for end in (user, target):
            with pytest.raises(UnderpassError) as raised:
                await end.read()
            assert raised.value.code == "quota_exceeded"


async def test_whoever_reads_and_writes_is_counted_too() -> None:
    user, near = memory_pair()
    metered = MeteredStream(near, Purse(3).take)
    user.write(b"abc")
    assert await metered.read() == b"abc"
    metered.write(b"d")
    user.write(b"e")
    with pytest.raises(StreamReset) as raised:
        await metered.read()
    assert raised.value.code == "quota_exceeded"
    assert (near.bytes_out, metered.refused) == (0, True)
