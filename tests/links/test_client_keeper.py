"""The client's link is kept, given up when it must be, and nothing of it is left behind.

What becomes of the streams on it is in ``tests/agent/test_resumables.py``, with a real agent's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from underpass.core.errors import Unavailable
from underpass.links.client_keeper import ClientKeeper
from underpass.links.link import Link, Opening
from underpass.links.memory import memory_links
from underpass.links.resumable import ResumableStream
from underpass.links.stream import StreamReset
from underpass.wire.handshake import Refused
from underpass.wire.resume_records import encode_offsets


class Gateway:
    """Hands out links; *failures* come first."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.links: list[tuple[Link, Link]] = []
        self.openings: list[Opening] = []
        self.dials = 0

    async def dial(self) -> Link:
        self.dials += 1
        if self.failures:
            raise self.failures.pop(0)
        client, node = memory_links()

        async def opened(opening: Opening) -> None:
            self.openings.append(opening)
            opening.accept().send(encode_offsets(0, 0, hello=True))

        node.on_open(opened)
        node.start()
        self.links.append((client, node))
        return client


@asynccontextmanager
async def keeping(**options: Any) -> AsyncIterator[tuple[Gateway, ClientKeeper]]:
    gateway = Gateway()
    keeper = ClientKeeper(gateway.dial, jitter=lambda _a, _b: 0, **options)
    try:
        async with asyncio.timeout(20):
            yield gateway, keeper
    finally:
        await keeper.close()
        await keeper.close()
        assert len(keeper) == len(keeper._supervisor) == 0
        for ends in gateway.links:
            for end in ends:
                await end.close()


async def test_the_first_link_has_to_come_at_once() -> None:
    async with keeping() as (gateway, keeper):
        gateway.failures = [Unavailable("nobody there")]
        with pytest.raises(Unavailable):
            await keeper.start()
        assert gateway.dials == 1


async def test_a_lost_link_is_dialled_again_until_it_is_there() -> None:
    async with keeping() as (gateway, keeper):
        await keeper.start()
        first = await keeper.live()
        gateway.failures = [
            Unavailable("down"),
            Refused("later", code="too_many", retry_after=0.001),
            Refused("unsigned", code="unauthenticated", final=True),
        ]
        await gateway.links[0][1].close()
        await first.wait_closed()
        second = await keeper.live()
        assert second is not first
        assert (gateway.dials, keeper.links) == (5, 2)


async def test_a_gateway_that_goes_away_gets_no_new_streams() -> None:
    async with keeping() as (gateway, keeper):
        await keeper.start()
        await gateway.links[0][1].go_away("draining")
        while not gateway.links[0][0].going_away:
            await asyncio.sleep(0)
        waiting = asyncio.create_task(keeper.live())
        await asyncio.sleep(0)
        assert not waiting.done()
        await gateway.links[0][1].close()
        assert await waiting is gateway.links[1][0]


async def test_a_final_refusal_ends_everything() -> None:
    async with keeping() as (gateway, keeper):
        await keeper.start()
        stream = await keeper.open("tcp:h:1", {"agent": "box"})
        assert isinstance(stream, ResumableStream)
        assert gateway.openings[0].meta["agent"] == "box"
        gateway.failures = [
            Refused("signed out", code="unauthenticated", final=True, verified=True)
        ]
        await gateway.links[0][1].close()
        assert (await keeper.failed()).code == "unauthenticated"
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.code == "unauthenticated"


@pytest.mark.parametrize("resume", [False, True])
async def test_no_link_in_time(resume: bool) -> None:
    async with keeping(open_patience=0.01) as (gateway, keeper):
        await keeper.start()
        gateway.failures = [Unavailable("down")] * 100_000
        await gateway.links[0][0].close()
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as caught:
            await keeper.open("tcp:h:1", {}, resume=resume)
        assert caught.value.code == "open_timeout"


async def test_a_stream_is_given_up_when_patience_ends() -> None:
    async with keeping(patience=0.01) as (gateway, keeper):
        await keeper.start()
        stream = await keeper.open("tcp:h:1", {})
        gateway.failures = [Unavailable("down")] * 100_000
        await gateway.links[0][0].close()
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.code == "open_timeout"
        assert "0.01 seconds" in caught.value.message
