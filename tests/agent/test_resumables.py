"""Client and agent with links that die between them: what is resumed, by whom, and what is not."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from underpass.agent import resumables as module
from underpass.agent.openers import Opener
from underpass.agent.resumables import Resumables
from underpass.core.clock import ManualClock
from underpass.core.errors import InvalidRequest, Unavailable
from underpass.links.client_keeper import ClientKeeper
from underpass.links.link import Link, Opening, OpenRefused
from underpass.links.memory import memory_links
from underpass.links.stream import Stream, StreamReset
from underpass.wire.resume_claim import ResumeClaim

ADA = {"id": "ada", "username": "ada"}


class World:
    """An agent that echoes, a client, and links that can be cut."""

    def __init__(self, opener: Opener | None = None, **limits: Any) -> None:
        self.clock = ManualClock()
        self.resumables = Resumables(clock=self.clock, **limits)
        self.opened: list[str] = []
        self.accepted: list[Stream] = []
        self.user: dict[str, Any] = ADA
        self.target: str | None = None
        self.refuse: list[Exception] = []
        self.serve = self.resumables.wrap(opener or self.echo)
        self.links: list[tuple[Link, Link]] = []
        self.keeper = ClientKeeper(self.dial, patience=5, open_patience=5, jitter=lambda _a, _b: 0)
        self.changes: dict[str, Any] = {}

    async def dial(self) -> Link:
        client, agent = memory_links()

        async def opened(opening: Opening) -> None:
            # What a gateway does: it says who opens.
            opening.meta["user"] = self.user
            if "resume" in opening.meta:
                opening.meta["resume"] |= self.changes
            if self.target is not None:
                opening.target = self.target
            if self.refuse:
                raise self.refuse.pop()
            await self.serve(opening)

        agent.on_open(opened)
        agent.start()
        self.links.append((client, agent))
        return client

    async def echo(self, opening: Opening) -> None:
        self.opened.append(opening.target)
        stream = opening.accept()
        self.accepted.append(stream)
        while data := await stream.read():
            stream.write(data)
            await stream.drain()
        await stream.write_eof()
        await stream.close()

    async def cut(self) -> None:
        for end in self.links[-1]:
            await end.close("connection_lost")

    async def open(self, target: str = "tcp:h:1", **options: Any) -> Stream:
        return await self.keeper.open(target, {}, **options)


@asynccontextmanager
async def world(opener: Opener | None = None, **limits: Any) -> AsyncIterator[World]:
    made = World(opener, **limits)
    await made.keeper.start()
    try:
        async with asyncio.timeout(30):
            yield made
    finally:
        await made.keeper.close()
        await made.resumables.close()
        for pair in made.links:
            for end in pair:
                await end.close()
        assert len(made.keeper) == len(made.resumables) == 0
        assert len(made.keeper._supervisor) == len(made.resumables._supervisor) == 0
        assert made.resumables._timer is None or made.resumables._timer.cancelled()


async def exactly(stream: Stream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        got = await stream.read(count - len(data))
        assert got
        data += got
    return data


async def test_a_stream_goes_on_over_the_next_link() -> None:
    async with world() as w:
        stream = await w.open()
        for number in range(5):
            text = f"before and after cut {number}".encode()
            stream.write(text)
            await w.cut()
            stream.write(text)
            assert await exactly(stream, 2 * len(text)) == text * 2
        assert w.keeper.links == 6
        assert w.opened == ["tcp:h:1"]
        await stream.write_eof()
        assert await stream.read() == b""
        await stream.close()
        while len(w.keeper) or len(w.resumables):
            await asyncio.sleep(0)


async def test_what_is_not_to_be_resumed_ends_with_its_link() -> None:
    async with world() as w:
        stream = await w.open(resume=False)
        stream.write(b"x")
        assert await stream.read() == b"x"
        assert len(w.resumables) == 0
        await w.cut()
        with pytest.raises(StreamReset):
            await stream.read()
        again = await w.open(resume=False)  # the keeper has a new link meanwhile
        await again.close()


async def test_many_streams_through_many_cuts() -> None:
    async with world() as w:

        async def talk(number: int) -> None:
            stream = await w.open(f"tcp:h:{number + 1}")
            data = bytes((number + n) % 251 for n in range(40_000))
            for at in range(0, len(data), 4000):
                stream.write(data[at : at + 4000])
                assert await exactly(stream, 4000) == data[at : at + 4000]
            await stream.write_eof()
            assert await stream.read() == b""
            await stream.close()

        async def spoil() -> None:
            for _ in range(30):
                await asyncio.sleep(0.002)
                await w.cut()

        async with asyncio.TaskGroup() as group:
            spoiling = group.create_task(spoil())
            await asyncio.gather(*(talk(number) for number in range(30)))
            spoiling.cancel()
        assert sorted(w.opened) == sorted(f"tcp:h:{number + 1}" for number in range(30))


async def test_after_the_grace_the_agent_gives_up_and_the_client_hears_why() -> None:
    async with world() as w:
        stream = await w.open()
        w.refuse = [Unavailable("not now", code="agent_unlinked") for _ in range(9999)]
        await w.cut()
        while len(w.refuse) > 9990:
            await asyncio.sleep(0)
        kept = w.accepted[0]
        w.resumables.sweep()
        assert not kept.closed
        w.clock.advance(121)
        w.resumables.sweep()
        with pytest.raises(StreamReset):
            await kept.drain()
        w.refuse.clear()
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.code == "resume_expired"
        assert len(w.resumables) == 0
        w.clock.advance(121)
        w.resumables.sweep()
        assert not w.resumables._past


async def test_a_path_again_stops_the_clock() -> None:
    async with world() as w:
        stream = await w.open()
        await w.cut()
        stream.write(b"x")
        assert await stream.read() == b"x"
        w.clock.advance(1000)
        w.resumables.sweep()
        assert not w.accepted[0].closed


@pytest.mark.parametrize("what", ["secret", "user", "target"])
async def test_only_its_owner_resumes_a_stream(what: str) -> None:
    async with world() as w:
        stream = await w.open()
        if what == "user":
            w.user = {"id": "eve", "username": "ada"}
        elif what == "secret":
            w.changes = {"secret": "A" * 44}
        else:
            w.target = "tcp:127.0.0.1:22"
        await w.cut()
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.code == "resume_denied"
        assert not w.accepted[0].closed  # its owner may still come back
        assert w.opened == ["tcp:h:1"]


async def test_nobody_resumes_for_nobody() -> None:
    async with world() as w:
        w.user = {}
        with pytest.raises(OpenRefused) as caught:
            await w.open()
        assert caught.value.code == "invalid_resume"
        w.user = ADA
        w.changes = {"new": False}
        with pytest.raises(OpenRefused) as unknown:
            await w.open()
        assert unknown.value.code == "resume_unknown"
        w.changes = {"secret": ""}
        with pytest.raises(OpenRefused) as broken:
            await w.open()
        assert broken.value.code == "invalid_resume"


async def test_an_agent_that_was_restarted_knows_nothing() -> None:
    async with world() as w:
        stream = await w.open()
        await w.resumables.close()
        w.resumables = Resumables(clock=w.clock)
        w.serve = w.resumables.wrap(w.echo)
        await w.cut()
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.code in ("resume_unknown", "going_away")


async def test_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(max_streams=3, max_per_user=2) as w:
        first, second = await w.open(), await w.open()
        third = await w.open()  # one that ends with its path
        assert len(w.resumables) == len(w.keeper) == 2
        third.write(b"x")
        assert await third.read() == b"x"
        w.user = {"id": "bob"}
        await w.open()
        w.user = {"id": "cyd"}
        await w.open()
        assert len(w.resumables) == 3
        for stream in (first, second):
            stream.abort()
        while len(w.resumables) > 1:
            await asyncio.sleep(0)
        monkeypatch.setattr(module, "MAX_HELD", -1)
        await w.open()
        assert len(w.resumables) == 1


async def test_a_refusal_by_the_target_is_final_and_a_passing_one_is_not() -> None:
    async def refusing(opening: Opening) -> None:
        w.opened.append(opening.target)
        raise Unavailable("Nobody listens there.", code="connect_refused")

    async with world(refusing) as w:
        with pytest.raises(OpenRefused) as caught:
            await w.open()
        assert caught.value.code == "connect_refused"
        assert len(w.opened) == 1
        w.refuse = [Unavailable("soon", code="agent_unlinked")]
        with pytest.raises(OpenRefused):
            await w.open()
        assert len(w.opened) == 2
        assert len(w.resumables) == len(w.keeper) == 0


@pytest.mark.parametrize("how", ["nothing", "refuses", "breaks", "accepts"])
async def test_openers_that_do_odd_things(how: str) -> None:
    async def odd(opening: Opening) -> None:
        if how == "refuses":
            opening.refuse(InvalidRequest("no", code="odd"))
            opening.refuse(InvalidRequest("no", code="twice"))
        elif how == "breaks":
            raise RuntimeError("a bug")
        elif how == "accepts":
            opening.accept()
            with pytest.raises(RuntimeError):
                opening.accept()

    async with world(odd) as w:
        if how == "accepts":
            with pytest.raises(StreamReset):
                await (await w.open()).read()
        else:
            with pytest.raises(OpenRefused) as caught:
                await w.open()
            assert caught.value.code == ("odd" if how == "refuses" else "internal")
        while len(w.resumables) or len(w.keeper):
            await asyncio.sleep(0)


async def test_a_link_lost_while_the_target_is_reached() -> None:
    reached = asyncio.Event()
    tries: list[str] = []

    async def slow(opening: Opening) -> None:
        tries.append(opening.target)
        if len(tries) == 1:
            reached.set()
            await asyncio.Event().wait()
        opening.accept().write(b"there")
        await asyncio.Event().wait()

    async with world(slow) as w:
        opening = asyncio.ensure_future(w.open())
        await reached.wait()
        assert len(w.resumables) == 1
        await w.cut()
        stream = await opening
        assert await stream.read() == b"there"
        assert len(tries) == 2
        assert len(w.resumables) == 1
        stream.abort()


async def test_both_at_once_are_one_too_many() -> None:
    release = asyncio.Event()

    async def slow(opening: Opening) -> None:
        await release.wait()
        opening.accept()
        await asyncio.Event().wait()

    async with world(slow) as w:
        client, _ = w.links[0]
        claim = ResumeClaim("a" * 32, b"s" * 32, new=True)
        first = asyncio.ensure_future(client.open("tcp:h:1", claim.to_meta()))
        while not len(w.resumables):
            await asyncio.sleep(0)
        with pytest.raises(OpenRefused) as caught:
            await client.open("tcp:h:1", claim.to_meta())
        assert caught.value.code == "resume_busy"
        release.set()
        (await first).abort()
        lying = dataclasses.replace(claim, new=False, received=7)
        with pytest.raises(OpenRefused) as refused:
            await client.open("tcp:h:1", lying.to_meta())
        assert refused.value.code == "resumption"


async def test_an_agent_that_knows_nothing_of_resuming() -> None:
    async with world() as w:
        w.serve = w.echo  # takes the records for bytes and sends them back
        greeting = asyncio.create_task(w.open())
        while not w.accepted:
            await asyncio.sleep(0)
        w.accepted[0].write(b"220 mail.example.org ready\r\n")
        with pytest.raises(InvalidRequest) as caught:
            await greeting
        assert caught.value.code == "resume_unsupported"
        assert w.accepted[0].bytes_in == 0  # nothing of ours was sent to what does not understand


async def test_a_silent_one_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("underpass.links.client_keeper.GREETING", 0.01)
    async with world() as w:
        w.serve = w.echo
        with pytest.raises(OpenRefused) as caught:
            await w.open()
        assert caught.value.code == "resume_unsupported"
        assert len(w.keeper) == 0


async def test_the_end_that_the_client_missed_is_told_again() -> None:
    async with world() as w:
        stream = await w.open()
        stream.write(b"all of it")
        await stream.write_eof()
        assert await exactly(stream, 9) == b"all of it"
        kept = w.accepted[0]
        while not kept.is_over:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        await w.cut()  # perhaps before the client heard that the agent has its end
        assert await stream.read() == b""
        await stream.close()
        while len(w.keeper):
            await asyncio.sleep(0)


async def test_ending_all() -> None:
    async with world() as w:
        stream = await w.open()
        w.resumables.end_all("removed", "The machine was removed.")
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.code == "removed"
