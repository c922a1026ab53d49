"""Resumable streams: cut, joined again, paused, closed and given up; bytes and half-close kept."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from tests.links.loops import anyio_backend, links, read_all, socket_pair  # noqa: F401
from tests.links.resumed import Resumed, resumed
from underpass.core.errors import UnderpassError
from underpass.links import resumable
from underpass.links.link import Opening
from underpass.links.memory import memory_pair
from underpass.links.relay import relay
from underpass.links.resumable import ResumableStream
from underpass.links.stream import Stream, StreamReset
from underpass.wire.resume_records import ResumptionError
from underpass.wire.resumption import WINDOW


async def write_all(stream: Stream, data: bytes, chunk: int) -> None:
    for at in range(0, len(data), chunk):
        stream.write(data[at : at + chunk])
        await stream.drain()
        await asyncio.sleep(0)
    await stream.write_eof()


async def test_bytes_both_ways_through_many_cuts() -> None:
    chance = random.Random(5)
    up, down = chance.randbytes(6 << 20), chance.randbytes(5 << 20)
    async with resumed() as pair:

        async def spoil() -> None:
            for _ in range(40):
                before = pair.client.bytes_in + pair.agent.bytes_in
                while pair.client.bytes_in + pair.agent.bytes_in < before + 150_000:
                    await asyncio.sleep(0)
                    if pair.client.is_over or pair.agent.is_over:
                        return
                pair.cut()
                pair.join()

        async with asyncio.TaskGroup() as group:
            group.create_task(write_all(pair.client, up, 70_000))
            group.create_task(write_all(pair.agent, down, 9_000))
            at_agent = group.create_task(read_all(pair.agent))
            at_client = group.create_task(read_all(pair.client))
            spoiling = group.create_task(spoil())
            await asyncio.wait((at_agent, at_client))
            spoiling.cancel()
        assert hashlib.sha256(at_agent.result()).digest() == hashlib.sha256(up).digest()
        assert hashlib.sha256(at_client.result()).digest() == hashlib.sha256(down).digest()
        if not pair.client.has_path:
            pair.join()
        assert await pair.over() == (None, None)
        assert len(pair.owners[0].lost_paths) > 20
        await pair.client.close()
        await pair.agent.close()


async def test_half_close_is_kept_through_a_cut() -> None:
    async with resumed() as pair:
        pair.client.write(b"question")
        await pair.client.write_eof()
        pair.cut()
        pair.join()
        assert await read_all(pair.agent) == b"question"
        pair.cut()
        pair.agent.write(b"ans")
        pair.join()
        pair.agent.write(b"wer")
        await pair.agent.write_eof()
        assert await read_all(pair.client) == b"answer"
        assert await pair.over() == (None, None)
        assert (pair.client.bytes_out, pair.client.bytes_in) == (8, 6)


async def test_a_slow_reader_holds_back_its_writer_only() -> None:
    async with resumed() as pair:
        sent = 0
        while not pair.agent.full:
            pair.agent.write(bytes(65536))
            sent += 65536
            await asyncio.sleep(0)
        assert sent <= 2 * WINDOW
        for _ in range(30):  # the other direction does not even notice
            pair.client.write(bytes(1 << 20))
            await pair.client.drain()
            assert len(await read_all(pair.agent, 1 << 20)) == 1 << 20
        writable = asyncio.create_task(pair.agent.drain())
        await asyncio.sleep(0)
        assert not writable.done()
        assert len(await read_all(pair.client, sent)) == sent
        await asyncio.wait_for(writable, 5)


async def test_without_a_path_the_writer_is_stopped_and_goes_on_after() -> None:
    async with resumed() as pair:
        pair.cut()
        sent = 0
        while not pair.client.full:
            pair.client.write(bytes(65536))
            sent += 65536
        assert sent < WINDOW
        assert pair.client.held < WINDOW
        pair.join()
        await asyncio.wait_for(pair.client.drain(), 5)
        assert len(await read_all(pair.agent, sent)) == sent


async def test_a_paused_receiver_gets_no_more_than_the_window() -> None:
    class Slow:
        count = 0

        def data(self, chunk: bytes | memoryview) -> None:
            self.count += len(chunk)
            pair.agent.pause()

        def eof(self) -> None: ...

        def lost(self, error: UnderpassError) -> None: ...

        def writable(self) -> None: ...

    async with resumed() as pair:
        slow = Slow()
        pair.agent.attach(slow)
        sent = 0
        for _ in range(300):
            if not pair.client.full:
                pair.client.write(bytes(65536))
                sent += 65536
            await asyncio.sleep(0)
        assert WINDOW // 2 <= slow.count <= WINDOW
        assert sent < 3 * WINDOW
        while slow.count < sent:
            pair.agent.resume()
            await asyncio.sleep(0)
        assert slow.count == sent


async def test_closing_flushes_over_the_next_path() -> None:
    async with resumed() as pair:
        pair.cut()
        pair.client.write(b"last words")
        await pair.client.close()
        await pair.client.close()
        pair.client.abort("too late")
        pair.client.write(b"dropped")
        assert pair.owners[0].ends == []
        pair.join()
        assert await read_all(pair.agent) == b"last words"
        await pair.agent.close()
        assert await pair.over() == (None, None)
        with pytest.raises(StreamReset):
            await pair.client.read()


async def test_who_writes_to_a_closed_end_is_told() -> None:
    async with resumed() as pair:
        await pair.client.close()
        assert await pair.agent.read() == b""
        async with asyncio.timeout(5):
            while not pair.agent.closed:
                pair.agent.write(b"nobody reads this")
                await asyncio.sleep(0)
        client, agent = await pair.over()
        assert client is not None
        assert agent is not None
        assert client.code == agent.code == "closed"


async def test_a_closed_end_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "LINGER", 0.01)
    async with resumed() as pair:
        await pair.client.close()
        client, agent = await pair.over()
        assert client is not None
        assert client.code == "lingered"
        assert agent is not None


@pytest.mark.parametrize("blocked", [False, True])
async def test_giving_up_reaches_the_other_end(blocked: bool) -> None:
    async with resumed() as pair:
        if blocked:
            assert pair.path is not None
            pair.path.other._paused = True  # type: ignore[attr-defined] - a path that stands still
            pair.path.other.attach(_Idle())  # type: ignore[attr-defined]
            while not pair.path.full:
                pair.client.write(bytes(65536))
            pair.path.other._receiver = _PassLost(pair.agent)  # type: ignore[attr-defined]
        pair.client.abort("policy_denied", "No more.")
        with pytest.raises(StreamReset) as caught:
            await asyncio.wait_for(pair.agent.read(), 5)
        assert caught.value.code == "policy_denied"
        client, agent = await pair.over()
        assert client is not None
        assert agent is not None
        assert client.code == agent.code == "policy_denied"


class _Idle:
    def data(self, chunk: bytes | memoryview) -> None: ...

    def eof(self) -> None: ...

    def lost(self, error: UnderpassError) -> None: ...

    def writable(self) -> None: ...


class _PassLost(_Idle):
    def __init__(self, stream: ResumableStream) -> None:
        self._path = stream._path

    def lost(self, error: UnderpassError) -> None:
        assert self._path is not None
        self._path.lost(error)


@pytest.mark.parametrize(
    "code", ["permission_lost", "unauthenticated", "terminated", "quota_exceeded"]
)
async def test_a_path_that_was_taken_away_for_good(code: str) -> None:
    async with resumed() as pair:
        pair.cut(code)
        client, agent = await pair.over()
        assert client is not None
        assert agent is not None
        assert client.code == agent.code == code
        assert pair.owners[0].lost_paths == []


async def test_a_path_that_ends_or_is_replaced_is_just_a_path() -> None:
    async with resumed() as pair:
        assert pair.path is not None
        pair.path.finish()
        assert pair.owners[1].lost_paths == ["path_ended"]
        pair.join()
        first = pair.path
        pair.join()
        assert first.closed
        pair.client.write(b"still here")
        assert await pair.agent.read() == b"still here"


async def test_a_peer_that_breaks_the_rules() -> None:
    async with resumed() as pair:
        assert pair.path is not None
        pair.path.send(b"\x09\0\0\0")
        _, agent = await pair.over()
        assert agent is not None
        assert agent.code == "resumption"
    async with resumed() as pair:
        with pytest.raises(ResumptionError):
            pair.agent.accepted(lambda: memory_pair()[0], 99)
        assert pair.agent.is_over


async def test_settled_says_whether_the_agent_spoke() -> None:
    pair = Resumed()
    near, _ = memory_pair()
    pair.client.dialled(near)
    waiting = asyncio.create_task(pair.client.settled())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert not pair.client.greeted
    near._lost(UnderpassError("cut", code="link_lost"))  # type: ignore[attr-defined]
    assert await waiting is False
    pair.join()
    assert await pair.client.settled() is True
    pair.client.abort()
    other, _ = memory_pair()
    pair.client.dialled(other)
    assert other.closed
    await pair.over()


@pytest.mark.parametrize("carrier", ["memory", "tcp"])
async def test_relays_at_both_ends_over_links_that_come_and_go(carrier: str) -> None:
    """What a forward does: socket, relay, resumable, link, resumable, relay, socket."""
    data = random.Random(7).randbytes(12 << 20)
    pair = Resumed()

    async def opened(opening: Opening) -> None:
        pair.agent.accepted(opening.accept, opening.meta["received"])

    async with socket_pair() as (app, near), socket_pair() as (far, target):
        async with asyncio.TaskGroup() as group:
            group.create_task(relay(near, pair.client))
            group.create_task(relay(pair.agent, far))
            group.create_task(write_all(app, data, 65536))
            echo = group.create_task(read_all(target))
            while not echo.done():
                async with links(carrier, opened) as (a, _):
                    path = await a.open("tcp:x:1", {"received": pair.client.received})
                    pair.client.dialled(path)
                    goal = pair.agent.bytes_in + (3 << 20)
                    while pair.agent.bytes_in < min(goal, len(data)):
                        await asyncio.sleep(0.001)
                    if goal > len(data):
                        await asyncio.wait((echo,))
                        target.write(b"got it")
                        await target.write_eof()
                        assert await read_all(app) == b"got it"
                        await asyncio.wait_for(pair.over(), 10)
        assert echo.result() == data
    assert await pair.over() == (None, None)
    for owner in pair.owners:
        await owner.supervisor.close()
    assert pair.client.held == pair.agent.held == 0
