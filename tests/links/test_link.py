"""Links: opening, refusing, asking, telling, going away and ending, over memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.links.loops import AGENT, NODE, links, read_all
from tests.links.virtual_time import LoopClock, run_virtually
from underpass.core.clock import ManualClock
from underpass.core.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unavailable,
    UnderpassError,
)
from underpass.links.link import Link, LinkLost, Opening, OpenRefused
from underpass.links.memory import memory_links, memory_transports
from underpass.links.mux import MuxLimits
from underpass.links.outbox import CALM_TURN
from underpass.links.stream import StreamReset


async def echo(opening: Opening) -> None:
    stream = opening.accept()
    while data := await stream.read():
        stream.write(data)
        await stream.drain()
    await stream.write_eof()
    await stream.close()


async def test_open_echo_and_half_close() -> None:
    seen: list[Opening] = []

    async def handler(opening: Opening) -> None:
        seen.append(opening)
        await echo(opening)

    async with links(on_open=handler) as (a, b):
        stream = await a.open("tcp:db:1", {"user": {"id": 7}}, interactive=True)
        assert (seen[0].target, seen[0].meta, seen[0].interactive) == (
            "tcp:db:1", {"user": {"id": 7}}, True,
        )  # fmt: skip
        assert seen[0].link is b
        assert a.streams == b.streams == 1
        stream.write(bytearray(b"hello "))
        stream.write(memoryview(b"world"))
        await stream.write_eof()
        assert await read_all(stream) == b"hello world"
        assert await stream.read() == b""
        assert (stream.bytes_in, stream.bytes_out) == (11, 11)
        await stream.close()
        assert a.streams == 0
        assert a.rtt is not None
        assert a.carrier == "memory"


async def test_reads_give_no_more_than_asked_for() -> None:
    async with links(on_open=echo) as (a, _):
        stream = await a.open("x")
        stream.write(b"0123456789")
        await stream.write_eof()
        assert [await stream.read(4) for _ in range(4)] == [b"0123", b"4567", b"89", b""]
        with pytest.raises(ValueError, match="at least 1"):
            await stream.read(0)


@pytest.mark.parametrize(
    "error",
    [
        Forbidden("The policy says no.", code="policy", hint="Ask."),
        Conflict("Offline.", retry_after=3.0),
        UnderpassError("Odd.", code="odd"),
    ],
)
async def test_a_refusal_has_the_peers_words(error: UnderpassError) -> None:
    async def handler(opening: Opening) -> None:
        raise error

    async with links(on_open=handler) as (a, b):
        with pytest.raises(OpenRefused) as caught:
            await a.open("tcp:x:1")
        got = caught.value
        assert (got.code, got.message, got.hint, got.status, got.retry_after) == (
            error.code, error.message, error.hint, error.status, error.retry_after,
        )  # fmt: skip
        assert a.streams == b.streams == 0


async def test_an_opener_that_fails_or_forgets_answers_all_the_same() -> None:
    async def handler(opening: Opening) -> None:
        if opening.target == "fail":
            raise RuntimeError("a bug")
        if opening.target == "late":
            opening.accept()
            raise Forbidden("After the fact.")

    async with links(on_open=handler) as (a, _):
        for target in ("fail", "forget"):
            with pytest.raises(OpenRefused) as caught:
                await a.open(target)
            assert caught.value.status == 500
            assert "a bug" not in str(caught.value)
        stream = await a.open("late")
        await stream.close()


async def test_without_a_handler_nothing_is_opened() -> None:
    async with links() as (a, _):
        with pytest.raises(OpenRefused) as caught:
            await a.open("x")
        assert caught.value.code == "no_opener"


async def test_an_opening_is_answered_once() -> None:
    async def handler(opening: Opening) -> None:
        opening.accept()
        opening.refuse(Forbidden("Too late."))
        with pytest.raises(RuntimeError):
            opening.accept()

    async with links(on_open=handler) as (a, _):
        await (await a.open("x")).close()


async def test_openings_that_arrive_before_the_handler_wait_for_start() -> None:
    near, far = memory_transports()
    a = Link(near, NODE, dialler=True)
    opening = asyncio.ensure_future(a.open("x"))
    for _ in range(5):
        await asyncio.sleep(0)
    b = Link(far, AGENT, dialler=False)
    b.on_open(echo)
    b.start()
    b.start()
    await (await opening).close()
    await a.close()
    assert (await b.wait_closed()).code == "closed"
    await b.close()


async def test_open_gives_up_in_time_and_when_cancelled() -> None:
    gone: list[str] = []

    async def handler(opening: Opening) -> None:
        await asyncio.sleep(0.05)
        stream = opening.accept()
        try:
            await stream.read()
        except StreamReset as error:
            gone.append(error.code)

    async with links(on_open=handler) as (a, b):
        with pytest.raises(Unavailable) as caught:
            await a.open("x", timeout=0.01)
        assert caught.value.code == "open_timeout"
        task = asyncio.ensure_future(a.open("y"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert a.streams == 0
        async with asyncio.timeout(5):
            while len(gone) < 2:
                await asyncio.sleep(0.01)
        assert gone == ["open_timeout", "cancelled"]
        assert b.streams == 0


async def test_open_checks_what_it_is_given() -> None:
    async with links(on_open=echo, limits=MuxLimits(streams=1)) as (a, _):
        with pytest.raises(OpenRefused):
            await a.open("x" * 2000)
        with pytest.raises(InvalidRequest):
            await a.open("\udc80")
        with pytest.raises(TooLarge):
            await a.open("x", {"large": "y" * 70000})
        stream = await a.open("x")
        with pytest.raises(TooManyRequests):
            await a.open("x")
        stream.abort()


async def test_the_end_of_a_link_reaches_everybody() -> None:
    cancelled = asyncio.Event()

    async def handler(opening: Opening) -> None:
        if opening.target == "never":
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
        await echo(opening)

    async def slow(_link: Link, _body: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    async with links(on_open=handler) as (a, b):
        b.on_control("slow", slow)
        stream = await a.open("x")
        opening = asyncio.ensure_future(a.open("never"))
        question = asyncio.ensure_future(a.request("slow", {}))
        reading = asyncio.ensure_future(stream.read())
        while b.streams < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        await b.close("replaced", "Another link took over.")
        end = await a.wait_closed()
        assert (end.code, end.message) == ("replaced", "Another link took over.")
        for waiting in (opening, question):
            with pytest.raises(LinkLost):
                await waiting
        with pytest.raises(StreamReset) as caught:
            await reading
        assert caught.value.code == "link_lost"
        with pytest.raises(StreamReset):
            await stream.drain()
        assert stream.closed
        stream.write(b"dropped")
        await stream.write_eof()
        await asyncio.wait_for(cancelled.wait(), 5)
        assert a.closed
        assert b.closed
        with pytest.raises(LinkLost):
            await a.open("x")
        with pytest.raises(LinkLost):
            await a.request("x", {})
        a.notify("x", {})
        assert await a.wait_closed() == end


async def test_a_handler_may_close_its_own_link() -> None:
    async def handler(opening: Opening) -> None:
        await opening.link.close("enough")

    async with links(on_open=handler) as (a, b):
        with pytest.raises(LinkLost):
            await a.open("x")
        assert (await b.wait_closed()).code == "enough"


async def test_a_cut_connection_is_a_lost_link() -> None:
    near, far = memory_transports()
    a, b = Link(near, NODE, dialler=True), Link(far, AGENT, dialler=False)
    a.start()
    b.start()
    near.cut(ConnectionResetError("cut"))
    assert (await a.wait_closed()).code == "connection_lost"
    assert "cut" in (await b.wait_closed()).message
    await a.close()
    await b.close()


async def test_a_link_over_a_dead_transport_ends_at_once() -> None:
    near, far = memory_transports()
    near.abort()
    await asyncio.sleep(0)
    link = Link(far, AGENT, dialler=False)
    assert (await asyncio.wait_for(link.wait_closed(), 5)).code == "connection_lost"
    link.start()
    await link.close()


async def test_leftover_bytes_of_the_handshake_come_first() -> None:
    near, far = memory_transports()
    a = Link(near, NODE, dialler=True)
    opening = asyncio.ensure_future(a.open("x"))
    received: list[bytes] = []

    class Snoop:
        def feed(self, data: bytes) -> None:
            received.append(data)
            far.pause_reading()

        def pause_writing(self) -> None: ...
        def resume_writing(self) -> None: ...
        def lost(self, error: Exception | None) -> None: ...

    far.set_sink(Snoop())
    while not received:
        await asyncio.sleep(0)
    b = Link(far, AGENT, dialler=False, leftover=b"".join(received))
    b.on_open(echo)
    b.start()
    stream = await opening
    await stream.close()
    await a.close()
    await b.close()


async def test_nonsense_from_the_peer_ends_the_link() -> None:
    near, far = memory_transports()
    link = Link(far, AGENT, dialler=False, leftover=b"\xff" * 8)
    link.start()
    end = await link.wait_closed()
    assert end.code == "frame_too_large"
    near.abort()
    await link.close()


async def test_go_away() -> None:
    async with links(on_open=echo) as (a, b):
        told: list[str] = []
        a.on_gone_away(lambda end: told.append(end.message))
        stream = await a.open("x")
        await b.go_away("The gateway restarts.")
        while not told:
            await asyncio.sleep(0)
        assert told == ["The gateway restarts."]
        assert a.going_away
        assert b.going_away
        with pytest.raises(LinkLost) as caught:
            await a.open("y")
        assert caught.value.code == "going_away"
        stream.write(b"on")
        assert await stream.read() == b"on"
        await stream.close()


async def test_requests_are_answered_refused_and_bounded() -> None:
    async with links() as (a, b):

        async def double(link: Link, body: dict[str, Any]) -> dict[str, Any] | None:
            assert link is b
            if body.get("n") is None:
                return None
            if body["n"] < 0:
                raise NotFound("No such number.", code="no_number", hint="Try 1.")
            if body["n"] == 0:
                raise ZeroDivisionError
            return {"n": body["n"] * 2}

        b.on_control("double", double)
        assert await a.request("double", {"n": 21}) == {"n": 42}
        assert await a.request("double", {}) == {}
        answers = await asyncio.gather(*(a.request("double", {"n": n}) for n in range(1, 100)))
        assert [answer["n"] for answer in answers] == [n * 2 for n in range(1, 100)]
        with pytest.raises(NotFound) as caught:
            await a.request("double", {"n": -1})
        assert (caught.value.code, caught.value.hint) == ("no_number", "Try 1.")
        with pytest.raises(UnderpassError) as failed:
            await a.request("double", {"n": 0})
        assert failed.value.status == 500
        with pytest.raises(NotFound) as unknown:
            await a.request("nobody", {})
        assert unknown.value.code == "unknown_request"
        with pytest.raises(TooLarge):
            await a.request("double", {"x": "y" * (1 << 20)})
        with pytest.raises(TooLarge):
            a.notify("double", {"x": "y" * (1 << 20)})


async def test_large_bodies_pass() -> None:
    async with links() as (a, b):

        async def same(_link: Link, body: dict[str, Any]) -> dict[str, Any]:
            return body

        b.on_control("same", same)
        body = {"sessions": ["x" * 100] * 5000}
        assert await a.request("same", body) == body


async def test_requests_time_out_and_are_capped() -> None:
    never = asyncio.Event()

    async def slow(_link: Link, _body: dict[str, Any]) -> None:
        await never.wait()

    async with links() as (a, b):
        b.on_control("slow", slow)
        with pytest.raises(Unavailable) as caught:
            await a.request("slow", {}, timeout=0.01)
        assert caught.value.code == "request_timeout"
        waiting = [asyncio.ensure_future(a.request("slow", {})) for _ in range(256)]
        await asyncio.sleep(0.01)
        with pytest.raises(TooManyRequests):
            await a.request("slow", {})
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
        # The peer still works on them and takes no more.
        with pytest.raises(TooManyRequests):
            await a.request("slow", {}, timeout=5)
        never.set()


async def test_notices_are_taken_in_order_and_one_bad_one_stops_nothing() -> None:
    async with links() as (a, b):
        taken: list[int] = []

        async def take(_link: Link, body: dict[str, Any]) -> None:
            if body["n"] == 1:
                raise NotFound("Nothing.")
            if body["n"] == 2:
                raise ValueError("a bug")
            await asyncio.sleep(0)
            taken.append(body["n"])

        b.on_control("n", take)
        a.notify("unknown", {})
        for number in range(20):
            a.notify("n", {"n": number})
        async with asyncio.timeout(5):
            while len(taken) < 18:
                await asyncio.sleep(0.001)
        assert taken == [0, *range(3, 20)]


async def test_too_many_notices_end_the_link() -> None:
    async with links() as (a, b):
        never = asyncio.Event()

        async def stuck(_link: Link, _body: dict[str, Any]) -> None:
            await never.wait()

        b.on_control("n", stuck)
        for _ in range(1100):
            a.notify("n", {})
        assert (await a.wait_closed()).code == "too_many_notices"


async def test_a_silent_peer_is_given_up_by_the_links_own_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("underpass.links.link._TICK", 0.001)
    clock = ManualClock()
    near, _far = memory_transports()
    link = Link(near, NODE, dialler=True, clock=clock)
    link.start()
    ended = asyncio.ensure_future(link.wait_closed())
    seconds = 0
    async with asyncio.timeout(20):
        while not ended.done():
            clock.advance(1)
            seconds += 1
            await asyncio.sleep(0.003)
    assert ended.result().code == "peer_silent"
    assert seconds <= 40
    await link.close()


async def test_memory_links_know_who_they_talk_to() -> None:
    a, b = memory_links()
    assert (a.peer.role, b.peer.role) == ("node", "agent")
    assert a.id == b.id == "memory"
    assert not a.closed
    b.on_open(echo)
    b.start()
    stream = await a.open("x")
    stream.write(b"x")
    assert await stream.read() == b"x"
    stream.abort("done", "Enough.")
    with pytest.raises(StreamReset, match="Enough"):
        await stream.read()
    await a.close()
    await b.close()


async def test_a_stream_can_be_closed_with_bytes_unread() -> None:
    async def chatter(opening: Opening) -> None:
        stream = opening.accept()
        with pytest.raises(StreamReset):
            while True:
                stream.write(b"x" * 65536)
                await stream.drain()

    async with links(on_open=chatter) as (a, b):
        stream = await a.open("x")
        await stream.read()
        await stream.close()
        await stream.close()
        stream.abort()
        with pytest.raises(StreamReset):
            await stream.read()
        async with asyncio.timeout(5):
            while a.streams or b.streams:
                await asyncio.sleep(0.001)


async def test_two_readers_are_a_bug() -> None:
    async with links(on_open=echo) as (a, _):
        stream = await a.open("x")
        first = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await stream.read()
        first.cancel()
        await asyncio.wait([first])
        stream.write(b"still good")
        assert await stream.read() == b"still good"
        stream.abort()


@pytest.mark.parametrize("local", [True, False])
def test_bulk_rests_between_turns_while_somebody_types_to_the_same_machine(local: bool) -> None:
    size = 256 << 10

    async def scene() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        near, far = memory_transports()
        near.local = far.local = local
        a = Link(near, NODE, dialler=True, clock=LoopClock())
        b = Link(far, AGENT, dialler=False, clock=LoopClock())
        b.on_open(echo)
        a.start()
        b.start()
        typing = await a.open("shell", interactive=True)
        bulk = await a.open("bulk")
        began = loop.time()
        bulk.write(bytes(size))
        await bulk.write_eof()
        typing.write(b"k")
        assert await typing.read() == b"k"
        typed = loop.time() - began
        assert len(await read_all(bulk)) == size
        took = loop.time() - began
        await a.close()
        await b.close()
        return typed, took

    typed, took = run_virtually(scene())
    assert typed == 0.0
    turns = size // CALM_TURN
    assert (took > (turns - 2) * 0.001) == local
