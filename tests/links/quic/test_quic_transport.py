"""Links over QUIC: byte-exact streams, half-close, resets, pressure, losses, moves, and ends."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from tests.e2e.udp_cable import UdpCable
from tests.links.loops import (
    AGENT,
    NODE,
    anyio_backend,  # noqa: F401
    links,
    open_descriptors,
    quic_transports,
    read_all,
)
from tests.links.test_pressure import MIB, Sinks, flood
from tests.links.test_sockets import descriptors_left
from tests.links.test_transports import Collector, echo, until
from tests.links.test_websocket import sha_of
from underpass.core.errors import Forbidden, Unavailable
from underpass.links.link import Link, Opening, OpenRefused
from underpass.links.quic import transport as module
from underpass.links.stream import StreamReset
from underpass.links.transports.transport import Inbox
from underpass.wire.frames import FrameType, OpenFrame, encode_frame, encode_payload

EACH = 3 << 20


async def send(stream: Any, blob: bytes) -> None:
    for start in range(0, len(blob), 77_777):
        stream.write(blob[start : start + 77_777])
        await stream.drain()
    await stream.write_eof()


@asynccontextmanager
async def cabled(handler: Any = echo) -> AsyncIterator[tuple[Link, Link, UdpCable]]:
    """A link whose datagrams pass a relay."""
    cables: list[UdpCable] = []

    def through(port: int) -> int:
        cables.append(UdpCable(port))
        return cables[0].port

    try:
        async with quic_transports(through) as (near, far, _):
            a = Link(near, NODE, dialler=True)
            b = Link(far, AGENT, dialler=False)
            b.on_open(handler)
            a.start()
            b.start()
            try:
                yield a, b, cables[0]
            finally:
                await a.close()
                await b.close()
    finally:
        for cable in cables:
            cable.close()


async def test_eight_bulk_streams_both_ways_are_byte_exact() -> None:
    before = open_descriptors()
    blobs = [os.urandom(MIB) * (EACH >> 20) for _ in range(8)]
    sums = [(EACH, hashlib.sha256(blob).hexdigest()) for blob in blobs]
    received: dict[int, tuple[int, str]] = {}

    async def handler(opening: Opening) -> None:
        stream = opening.accept()
        async with asyncio.TaskGroup() as group:
            group.create_task(send(stream, blobs[int(opening.target)]))
            received[int(opening.target)] = await sha_of(stream)
        await stream.close()

    async with asyncio.timeout(90), links("quic", handler) as (a, b):

        async def one(number: int) -> tuple[int, str]:
            stream = await a.open(str(number))
            async with asyncio.TaskGroup() as group:
                group.create_task(send(stream, blobs[number]))
                got = await sha_of(stream)
            await stream.close()
            return got

        assert await asyncio.gather(*(one(number) for number in range(8))) == sums
        await until(lambda: len(received) == 8)
        assert [received[number] for number in range(8)] == sums
        transport: Any = a._transport
        await until(lambda: transport._lanes.unsettled == 0)
        assert a.streams == b.streams == 0
    assert not await descriptors_left(before)


async def test_more_streams_than_quic_allows_share_the_control_lane() -> None:
    async with asyncio.timeout(60), links("quic", echo) as (a, _):
        streams = [await a.open(str(number)) for number in range(130)]
        transport: Any = a._transport
        assert transport._lanes.unsettled == 99  # and the handshake's
        for number, stream in enumerate(streams):
            stream.write(b"%d" % number * 1000)
            await stream.write_eof()
        for number, stream in enumerate(streams):
            assert await read_all(stream) == b"%d" % number * 1000
        await until(lambda: transport._lanes.unsettled == 0)
        again = await a.open("again")  # what was given back is used again
        assert transport._lanes.unsettled == 1
        again.abort()


async def test_half_close_refusals_and_reset_codes_pass() -> None:
    async def handler(opening: Opening) -> None:
        if opening.target == "no":
            raise Forbidden("Not here.", code="policy", hint="Ask.")
        stream = opening.accept()
        if opening.target == "reset":
            stream.abort("disk_full", "No room.")
            return
        await read_all(stream)  # all of it, before a word of answer
        stream.write(b"answer after the end")
        await stream.close()

    async with asyncio.timeout(30), links("quic", handler) as (a, b):
        with pytest.raises(OpenRefused) as refused:
            await a.open("no")
        assert (refused.value.code, refused.value.hint) == ("policy", "Ask.")
        stream = await a.open("reset")
        with pytest.raises(StreamReset) as reset:
            await stream.read()
        assert (reset.value.code, reset.value.message) == ("disk_full", "No room.")
        stream = await a.open("half")
        stream.write(b"question")
        await stream.write_eof()
        assert await read_all(stream) == b"answer after the end"
        await stream.close()
        await until(lambda: a.streams == b.streams == 0)
        transports: list[Any] = [a._transport, b._transport]
        await until(lambda: all(each._lanes.unsettled == 0 for each in transports))


async def test_stuck_readers_hold_memory_flat_and_stall_nobody() -> None:
    sinks = Sinks()
    async with links("quic", sinks) as (a, b), asyncio.TaskGroup() as group:
        stuck = [await a.open(f"stuck {number}") for number in range(4)]
        floods = [group.create_task(flood(stream)) for stream in stuck]
        free = await a.open("free")
        await asyncio.wait_for(flood(free, 8 * MIB), 60)
        before = psutil.Process().memory_info().rss
        await asyncio.wait_for(flood(free, 32 * MIB), 60)
        assert psutil.Process().memory_info().rss - before < 16 * MIB
        for stream in stuck:
            assert stream.bytes_out < 3 * MIB
        held = sum(stream.sink._buffered for stream in b._mux.streams.values())  # type: ignore[attr-defined]
        assert held < 4 * MIB
        sinks.go.set()
        before_go = [stream.bytes_out for stream in stuck]
        async with asyncio.timeout(30):
            while any(
                stream.bytes_out < old + MIB for stream, old in zip(stuck, before_go, strict=True)
            ):
                await asyncio.sleep(0.01)
        for task in floods:
            task.cancel()


async def test_a_lost_packet_of_one_stream_does_not_stall_another() -> None:
    async with asyncio.timeout(30), cabled() as (a, _, cable):
        first, second = await a.open("first"), await a.open("second")
        order: list[str] = []
        lost: list[bytes] = []

        async def answer(name: str, stream: Any) -> None:
            assert await stream.read() == name.encode()
            order.append(name)

        async with asyncio.TaskGroup() as group:
            for name, stream in (("first", first), ("second", second)):
                group.create_task(answer(name, stream))
            cable.lose = lambda data, outward: outward and not lost.append(data)
            first.write(b"first")
            await until(lambda: lost)
            cable.lose = lambda *_: False
            second.write(b"second")
        assert order == ["second", "first"]


async def test_it_gets_through_a_path_that_loses() -> None:
    blob = os.urandom(MIB)
    count = 0

    def lossy(_data: bytes, _outward: bool) -> bool:
        nonlocal count
        count += 1
        return count % 29 == 0

    async with asyncio.timeout(60), cabled() as (a, _, cable):
        stream = await a.open("x")
        cable.lose = lossy
        async with asyncio.TaskGroup() as group:
            group.create_task(send(stream, blob))
            got = group.create_task(read_all(stream))
        assert got.result() == blob
        cable.lose = lambda *_: False


async def test_a_dead_peer_is_noticed_by_the_links_own_pings() -> None:
    async with cabled() as (a, b, cable):
        cable.lose = lambda *_: True
        assert a._mux.limits.dead_after < module.SETTLE + 40
        # The mux counts silence by its own clock, here as on every carrier.
        for end in (a, b):
            end._mux.pulse._heard_at -= 31
            end._mux.pulse.heard = False
            end._mux.pulse._tick_at = end._mux.pulse.monotonic()
            end._mux.tick()
            assert (await end.wait_closed()).code == "peer_silent"


class TestEnds:
    async def test_what_was_said_before_the_close_arrives_though_packets_are_lost(self) -> None:
        received: list[bytes] = []

        async def keep(opening: Opening) -> None:
            received.append(await read_all(opening.accept()))

        async with asyncio.timeout(30), cabled(keep) as (a, b, cable):
            stream = await a.open("x")
            lost: list[bytes] = []
            # The bytes are lost once, and the words of farewell would overtake them.
            cable.lose = lambda data, outward: outward and not lost and not lost.append(data)
            stream.write(b"last words")
            await asyncio.sleep(0)
            await stream.close()
            await a.close("done", "Thank you.")
            assert lost
            assert (await b.wait_closed()).code == "done"
            await until(lambda: received)
            assert received == [b"last words"]

    async def test_close_does_not_wait_for_a_peer_that_is_gone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "SETTLE", 0.05)
        monkeypatch.setattr(module, "FINISH", 0.05)
        async with cabled() as (a, b, cable):
            stream = await a.open("x")
            cable.lose = lambda *_: True
            stream.write(b"x")
            await asyncio.wait_for(a.close("done"), 5)
            await asyncio.wait_for(b.close("done"), 5)
            await until(lambda: a._transport._lost and b._transport._lost)  # type: ignore[attr-defined]

    async def test_abort_is_heard_at_once(self) -> None:
        async with quic_transports() as (near, far, front):
            here, there = Collector(), Collector()
            near.set_sink(here)
            far.set_sink(there)
            near.write(b"x" * 5000)
            near.abort()
            near.abort()
            await until(lambda: here.over and there.over)
            near.write(b"dropped")
            near.writelines([b"dropped"])
            near.close()
            late = Collector()
            near.set_sink(late)
            assert late.over == [None]
            await until(lambda: front.connections == 0)

    async def test_a_refusal_arrives_before_the_end(self) -> None:
        """The gateway says no and closes while the handshake still runs."""
        async with asyncio.timeout(10), quic_transports() as (near, far, _):
            inbox = Inbox(near)
            far.write(b"no, because")
            far.close()
            assert await inbox.read() == b"no, because"
            with pytest.raises(Unavailable):
                await inbox.read()

    async def test_frames_that_come_before_the_link_is_made_are_kept(self) -> None:
        async with asyncio.timeout(10), quic_transports() as (near, far, _):
            inbox = Inbox(near)
            b = Link(far, AGENT, dialler=False)
            b.on_open(echo)
            b.start()
            opening = asyncio.ensure_future(b.open("early"))
            await asyncio.sleep(0.1)
            a = Link(near, NODE, dialler=True, leftover=inbox.detach())
            a.on_open(echo)
            a.start()
            stream = await opening
            stream.write(b"x")
            assert await stream.read() == b"x"
            stream.abort()
            await a.close()
            await b.close()


class TestViolations:
    @pytest.mark.parametrize(
        "misbehave",
        [
            lambda near: near.quic.send_stream_data(0, b"more handshake"),
            lambda near: near.quic.reset_stream(0, 7),
            lambda near: near.quic.send_stream_data(4, b"\0\0\0\1\0\xff\xff\xff"),
            lambda near: near.quic.send_stream_data(
                4,
                b"".join(
                    encode_frame(n, FrameType.OPEN, encode_payload(OpenFrame("x", {}, 1)))
                    for n in (1, 3)
                ),
            ),
        ],
        ids=["handshake", "lane reset", "no frames", "two streams on a lane"],
    )
    async def test_a_peer_that_breaks_the_rules_loses_the_link(self, misbehave: Any) -> None:
        async with asyncio.timeout(10), links("quic", echo) as (a, b):
            stream = await a.open("x")
            stream.write(b"x")
            assert await stream.read() == b"x"
            await stream.close()
            near: Any = a._transport
            await until(lambda: near._lanes.unsettled == 0)
            number = near._open_lane()
            if number != 4:
                send_data = near.quic.send_stream_data
                near.quic.send_stream_data = lambda lane, data, end=False: send_data(
                    number if lane == 4 else lane, data, end
                )
            misbehave(near)
            near._engine.transmit()
            assert (await b.wait_closed()).code == "connection_lost"
            await a.wait_closed()

    async def test_too_much_before_the_handshake_ends_it(self) -> None:
        async with asyncio.timeout(10), quic_transports() as (near, far, front):
            there = Collector()
            far.set_sink(there)
            near.set_sink(Collector())
            near.write(bytes(module.MAX_UNDECIDED + 1))
            await until(lambda: there.over)
            assert len(there.data) <= module.MAX_UNDECIDED
            await until(lambda: front.connections == 0)

    async def test_too_much_for_a_link_that_never_starts_ends_it(self) -> None:
        async with asyncio.timeout(10), quic_transports() as (near, far, _):
            near.framed()
            far.framed()
            sink = Collector()
            far.set_sink(sink)
            far.pause_reading()
            notice = encode_frame(0, FrameType.PART, bytes(60_000))
            for _ in range(30):
                near.write(notice)
                await asyncio.sleep(0.005)
            await until(lambda: far.closing)
            assert sum(map(len, far._held)) < 2 * module.MAX_HELD

    async def test_junk_datagrams_are_nobodys_trouble(self) -> None:
        async with asyncio.timeout(10), links("quic", echo) as (a, b):
            near: Any = a._transport
            for junk in (b"", b"\x40" * 30, os.urandom(1200), b"\xc0" + os.urandom(1199)):
                near.received(junk, 0, ("127.0.0.1", 9))
            stream = await a.open("x")
            stream.write(b"x")
            assert await stream.read() == b"x"
            stream.abort()
            assert not b.closed
