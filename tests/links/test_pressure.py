"""Back-pressure end to end, and how much bulk a keystroke has to wait for. Over real sockets."""

from __future__ import annotations

import asyncio
import statistics

import psutil
import pytest

from tests.links.loops import anyio_backend, links  # noqa: F401
from underpass.links.link import Link, Opening
from underpass.links.memory import memory_pair
from underpass.links.mux import MuxLimits
from underpass.links.relay import relay
from underpass.links.stream import Stream

MIB = 1 << 20


class Sinks:
    """An opener whose streams are read, counted and thrown away, or not read at all."""

    def __init__(self) -> None:
        self.received: dict[str, int] = {}
        self.go = asyncio.Event()

    async def __call__(self, opening: Opening) -> None:
        stream = opening.accept()
        self.received[opening.target] = 0
        if opening.target.startswith("stuck"):
            await self.go.wait()
        while data := await stream.read():
            self.received[opening.target] += len(data)
            if opening.target.startswith("keys"):
                stream.write(data)


async def flood(stream: Stream, total: int | None = None) -> int:
    sent = 0
    block = bytes(64 << 10)
    while total is None or sent < total:
        stream.write(block)
        sent += len(block)
        await stream.drain()
    return sent


@pytest.mark.parametrize("carrier", ["tcp", "tls", "websocket"])
async def test_stuck_readers_hold_memory_flat_and_stall_nobody(carrier: str) -> None:
    sinks = Sinks()
    async with links(carrier, sinks) as (a, b), asyncio.TaskGroup() as group:
        stuck = [await a.open(f"stuck {number}") for number in range(4)]
        floods = [group.create_task(flood(stream)) for stream in stuck]
        free = await a.open("free")
        await asyncio.wait_for(flood(free, 16 * MIB), 60)
        before = psutil.Process().memory_info().rss
        await asyncio.wait_for(flood(free, 96 * MIB), 60)
        grown = psutil.Process().memory_info().rss - before
        assert grown < 16 * MIB
        for stream in stuck:  # what is under way is bounded by windows and queues
            assert stream.bytes_out < 3 * MIB
        assert sum(stream._buffered for stream in _channels(b)) < 4 * MIB
        sinks.go.set()
        before_go = [stream.bytes_out for stream in stuck]
        async with asyncio.timeout(30):
            while any(
                stream.bytes_out < old + 4 * MIB
                for stream, old in zip(stuck, before_go, strict=True)
            ):
                await asyncio.sleep(0.01)
        for task in floods:
            task.cancel()


def _channels(link: Link) -> list[object]:
    return [stream.sink for stream in link._mux.streams.values()]


async def test_two_links_joined_by_a_relay_hold_back_the_first_sender() -> None:
    """A gateway joins a client's link with an agent's: pressure passes through both muxes."""
    sinks = Sinks()
    async with links("tcp", sinks) as (gateway, agent):

        async def join(opening: Opening) -> None:
            remote = await gateway.open(opening.target)
            await relay(opening.accept(), remote)

        async with links("tcp", join) as (client, _), asyncio.TaskGroup() as group:
            stream = await client.open("stuck")
            flooding = group.create_task(flood(stream))
            settled, before = 0, -1
            async with asyncio.timeout(30):
                while settled < 10:
                    await asyncio.sleep(0.02)
                    settled = settled + 1 if stream.bytes_out == before else 0
                    before = stream.bytes_out
            assert before < 4 * MIB
            other = await client.open("free")
            await asyncio.wait_for(flood(other, 32 * MIB), 30)
            sinks.go.set()
            async with asyncio.timeout(30):
                while sinks.received["stuck"] < before:
                    await asyncio.sleep(0.01)
            flooding.cancel()
        assert not agent.closed


@pytest.mark.parametrize("carrier", ["tcp", "tls", "websocket"])
async def test_a_keystroke_waits_for_little_bulk(carrier: str) -> None:
    """Counted in bytes, not in seconds: bulk that arrives between a keystroke and its echo."""
    sinks = Sinks()
    async with links(carrier, sinks) as (a, _), asyncio.TaskGroup() as group:
        keys = await a.open("keys", interactive=True)
        floods = []
        for number in range(4):
            stream = await a.open(f"bulk {number}")
            floods.append(group.create_task(flood(stream)))

        def bulk() -> int:
            return sum(count for name, count in sinks.received.items() if name[0] == "b")

        async with asyncio.timeout(60):
            while bulk() < 20 * MIB:
                await asyncio.sleep(0.005)
            waited: list[int] = []
            for _ in range(50):
                before = bulk()
                keys.write(b"k")
                assert await keys.read() == b"k"
                waited.append(bulk() - before)
        assert statistics.median(waited) <= 384 << 10
        for task in floods:
            task.cancel()


async def test_the_windows_of_a_link_share_a_budget() -> None:
    sinks = Sinks()
    limits = MuxLimits(link_window=MIB)
    async with links("memory", sinks, limits=limits) as (a, b), asyncio.TaskGroup() as group:
        streams = [await a.open(f"stuck {number}") for number in range(50)]
        floods = [group.create_task(flood(stream)) for stream in streams]
        for _ in range(300):
            await asyncio.sleep(0)
        held = sum(stream._buffered for stream in _channels(b))
        assert held <= MIB + 50 * (16 << 10)
        for task in floods:
            task.cancel()


async def test_a_slow_reader_in_memory_holds_back_its_writer() -> None:
    near, far = memory_pair()
    sent = 0
    try:
        async with asyncio.timeout(0.1):
            sent = await flood(near)
    except TimeoutError:
        pass
    assert near.bytes_out <= 256 << 10
    while far.bytes_in and far._buffered:
        await far.read()
    await asyncio.wait_for(near.drain(), 5)
    await far.close()
    near.write(b"nobody reads this")
    assert sent == 0
