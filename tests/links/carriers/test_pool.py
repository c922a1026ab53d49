"""Spares and the streams on them, both ends, on both loops: proofs, bounds, ends, codes, leaks."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import Any

import pytest

from tests.links.carriers.joined import KEY, Joined, echo, joined, serve_echo
from tests.links.loops import anyio_backend, open_descriptors, read_all  # noqa: F401
from underpass.core.errors import Forbidden
from underpass.links.carriers.holder import CARRIER, MOST, Carriers, _Call
from underpass.links.carriers.pool import WANT, SpareDesk
from underpass.links.carriers.preface import ANSWER_BYTES, TICKET_BYTES, hello
from underpass.links.carriers.stream import CarrierStream
from underpass.links.link import Link, Opening, OpenRefused, Peer
from underpass.links.memory import memory_links
from underpass.links.sockets import SocketStream, connect_tcp
from underpass.links.stream import Stream, StreamReset


async def until(true: Any, timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.002)


class Kept:
    """An opener that hands its streams to the test."""

    def __init__(self) -> None:
        self.streams: asyncio.Queue[Stream] = asyncio.Queue(100)

    async def __call__(self, opening: Opening) -> None:
        stream = opening.accept()
        self.streams.put_nowait(stream)
        while not stream.closed:
            await asyncio.sleep(0.002)


class TestStreams:
    async def test_bytes_and_half_close_are_tcps_and_the_leash_carries_none(self) -> None:
        data = os.urandom(3_000_000)
        async with joined(echo) as both:
            stream = await both.open()
            assert isinstance(stream, SocketStream)
            assert both.node.streams == both.agent.streams == 1
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(read_all(stream))
                for start in range(0, len(data), 65536):
                    stream.write(data[start : start + 65536])
                    await stream.drain()
                await stream.write_eof()
            assert reading.result() == data
            await stream.close()
            await until(lambda: both.node.streams == both.agent.streams == 0)

    async def test_the_agent_may_speak_first(self) -> None:
        async def greet(opening: Opening) -> None:
            stream = opening.accept()
            stream.write(b"220 ready")
            await serve_echo(stream)

        async with joined(greet) as both:
            for _ in range(10):
                stream = await both.open()
                assert await read_all(stream, 9) == b"220 ready"
                await stream.close()

    @pytest.mark.parametrize("who", ["node", "agent"])
    async def test_an_abort_reaches_the_other_end_with_its_code(self, who: str) -> None:
        kept = Kept()
        async with joined(kept) as both:
            near = await both.open()
            far = await kept.streams.get()
            one, other = (near, far) if who == "node" else (far, near)
            one.abort("permission_lost", "You may not do this any more.")
            with pytest.raises(StreamReset) as caught:
                await asyncio.wait_for(other.read(), 5)
            assert caught.value.code == "permission_lost"
            assert "any more" in caught.value.message
            await until(lambda: both.node.streams == both.agent.streams == 0)

    @pytest.mark.parametrize("orderly", [False, True])
    async def test_a_connection_that_breaks_alone_ends_the_leash(self, orderly: bool) -> None:
        """Also when it looks like an orderly end: nobody said that everything was sent."""
        kept = Kept()
        async with joined(kept) as both:
            near = await both.open()
            far = await kept.streams.get()
            assert isinstance(far, CarrierStream)
            far.write(b"half of it")
            if not orderly:
                sock: Any = far._transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            far._transport.close() if orderly else far._transport.abort()
            for end in (near, far):
                with pytest.raises(StreamReset) as caught:
                    await read_all(end)
                assert caught.value.code == "connection_lost"
            await until(lambda: both.node.streams == both.agent.streams == 0)

    async def test_an_end_that_is_never_confirmed_is_a_loss(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("underpass.links.carriers.stream.END_WAIT", 0.05)
        kept = Kept()
        async with joined(kept) as both:
            near = await both.open()
            far = await kept.streams.get()
            assert isinstance(far, CarrierStream)
            far._transport.write_eof()  # without a word on the leash
            with pytest.raises(StreamReset) as caught:
                await asyncio.wait_for(near.read(), 5)
            assert caught.value.code == "connection_lost"
            assert "does not say" in caught.value.message

    async def test_streams_end_with_the_link(self) -> None:
        kept = Kept()
        async with joined(kept) as both:
            near = await both.open()
            far = await kept.streams.get()
            await both.node.close("displaced", "The agent made a newer link.")
            with pytest.raises(StreamReset):
                await asyncio.wait_for(near.read(), 5)
            with pytest.raises(StreamReset):
                await asyncio.wait_for(far.read(), 5)

    async def test_what_was_sent_arrives_though_the_sender_has_closed(self) -> None:
        """The leash ends at once, the bytes take longer: its end must not cut them off."""
        kept = Kept()
        data = os.urandom(5_000_000)
        async with joined(kept) as both:
            near = await both.open()
            far = await kept.streams.get()
            await far.write_eof()
            near.write(data)
            await near.write_eof()
            assert await near.read() == b""
            await near.close()
            await asyncio.sleep(0.05)
            assert await read_all(far) == data
            await far.close()
            await until(lambda: both.node.streams == both.agent.streams == 0)

    async def test_bytes_on_the_leash_end_the_stream(self) -> None:
        kept = Kept()
        async with joined(kept) as both:
            near = await both.open()
            far = await kept.streams.get()
            assert near._leash is not None
            near._leash.write(b"stray")
            with pytest.raises(StreamReset) as caught:
                await asyncio.wait_for(near.read(), 5)
            assert caught.value.code == "bad_carrier"
            assert far.closed

    async def test_a_refusal_keeps_its_words_and_spends_the_spare(self) -> None:
        async def refuse(opening: Opening) -> None:
            raise Forbidden("Not that one.", code="policy_denied")

        before = open_descriptors()
        async with joined(refuse) as both:
            with pytest.raises(OpenRefused) as caught:
                await both.open()
            assert caught.value.code == "policy_denied"
            # Link's two ends and the listener remain, and what is asked for anew.
            await until(lambda: len(open_descriptors()) - len(before) <= 3 + 2 * len(both.pool) + 2)

    async def test_many_at_once_are_byte_exact(self) -> None:
        async with joined(echo) as both:

            async def one(number: int) -> None:
                data = os.urandom(200_000 + number * 1009)
                stream = await both.open()
                async with asyncio.TaskGroup() as group:
                    reading = group.create_task(read_all(stream))
                    stream.write(data)
                    await stream.write_eof()
                assert reading.result() == data
                await stream.close()

            async with asyncio.TaskGroup() as group:
                for number in range(40):
                    group.create_task(one(number))
            await until(lambda: both.node.streams == both.agent.streams == 0)


class TestSpares:
    async def test_none_is_dialled_before_one_is_wanted(self) -> None:
        async with joined(echo) as both:
            await asyncio.sleep(0.05)
            assert len(both.pool) == 0
            assert both.pool.take() is None
            await until(lambda: len(both.pool) == 1)

    async def test_a_burst_makes_the_pool_grow_up_to_eight(self) -> None:
        async with joined(echo) as both:
            for _ in range(20):
                both.pool.take()
            await until(lambda: len(both.pool) == 8)
            await asyncio.sleep(0.05)
            assert len(both.pool) == 8
            taken = both.pool.take()
            assert taken is not None
            taken.drop()
            await until(lambda: len(both.pool) == 8)

    async def test_unused_ones_are_let_go(self) -> None:
        before = open_descriptors()
        async with joined(echo, idle=0.05) as both:
            both.pool.take()
            await until(lambda: len(both.pool) == 1)
            await until(lambda: len(both.pool) == 0)
            await until(lambda: len(open_descriptors()) == len(before) + 3)

    async def test_the_agent_lets_go_too(self) -> None:
        async with joined(echo, agent_idle=0.05) as both:
            both.pool.take()
            await until(lambda: len(both.pool) == 1)
            await until(lambda: len(both.pool) == 0)

    async def test_all_end_with_the_link(self) -> None:
        before = open_descriptors()
        async with joined(echo) as both:
            await both.spare(4)
            both.desk.close(both.node)
            await both.node.close()
            assert len(both.pool) == 0
            assert not both.desk.tickets
            # Both ends of the spares, and of the link, are gone; the listener remains.
            await until(lambda: len(open_descriptors()) == len(before) + 1)

    async def test_the_agents_spares_end_with_its_link(self) -> None:
        async with joined(echo) as both:
            await both.spare(3)
            await both.agent.close()
            await until(lambda: len(both.pool) == 0)

    async def test_a_spare_that_speaks_unasked_is_dropped(self) -> None:
        async with joined(echo) as both:
            await both.spare()
            spare = both.pool._spares[0]
            spare._transport.write(b"early")
            await until(lambda: spare not in both.pool._spares)  # others may have come

    async def test_words_between_the_proof_and_the_spare_are_not_lost(self) -> None:
        """They end the connection: the stream that would miss them is never made."""

        class Transport(asyncio.Transport):
            aborted = False

            def write(self, data: Any) -> None: ...

            def abort(self) -> None:
                self.aborted = True

        call, transport = _Call(b"hello"), Transport()
        call.connection_made(transport)
        call.data_received(b"a" * ANSWER_BYTES)
        assert await call.said == b"a" * ANSWER_BYTES
        assert not transport.aborted
        call.data_received(b"early")
        assert transport.aborted

    async def test_a_spare_that_is_gone_when_it_is_named(self) -> None:
        async with joined(echo) as both:
            with pytest.raises(OpenRefused) as caught:
                await both.node.open("x", {CARRIER: bytes(TICKET_BYTES)})
            assert caught.value.code == "carrier_lost"
            for odd in (b"short", "text", 7, [1], {}):
                with pytest.raises(OpenRefused):
                    await both.node.open("x", {CARRIER: odd})
            stream = await both.node.open("x")  # in the link, as ever
            stream.write(b"hi")
            assert await stream.read() == b"hi"
            await stream.close()

    async def test_a_spare_serves_once(self) -> None:
        async with joined(echo) as both:
            await both.spare()
            ticket = both.pool._spares[-1].ticket
            stream = await both.open()
            with pytest.raises(OpenRefused) as caught:
                await both.node.open("x", {CARRIER: ticket})
            assert caught.value.code == "carrier_lost"
            await stream.close()

    async def test_agents_hold_no_more_than_their_cap(self) -> None:
        async with joined(echo) as both:
            tickets = [os.urandom(TICKET_BYTES) for _ in range(100)]
            for ticket in tickets:
                both.desk.tickets[ticket] = both.pool
                both.pool._issued[ticket] = asyncio.get_running_loop().call_later(60, print)
            both.node.notify(WANT, {"tickets": [*tickets, b"short", 7, None]})
            both.node.notify(WANT, {"tickets": "rubbish"})
            await until(lambda: len(both.pool) == MOST)
            await asyncio.sleep(0.05)
            assert len(both.pool) == MOST

    async def test_only_over_plain_tcp(self) -> None:
        """An agent behind TLS that ends before the node must not go around it."""
        peer = Peer("node", "n", "node", "127.0.0.1:1", "1", frozenset())
        near, far = memory_links(peer)
        called: list[Any] = []
        async with Carriers() as carriers:
            carriers._supervisor.start = lambda *a: called.append(a)  # type: ignore[method-assign,assignment]
            far.on_open(carriers.serve(far, KEY, echo))
            far.start()
            near.notify(WANT, {"tickets": [bytes(TICKET_BYTES)]})
            await asyncio.sleep(0.02)
            assert not called
        await near.close()
        await far.close()


class TestProof:
    async def test_a_wrong_proof_burns_the_ticket(self) -> None:
        async with joined(echo) as both:
            ticket = await issued(both)
            assert await said(both, hello(b"o" * 32, ticket)) == b""
            # Now even the right proof comes too late.
            assert await said(both, hello(KEY, ticket)) == b""
            assert len(both.pool) == 0

    async def test_the_right_one_is_answered_once(self) -> None:
        async with joined(echo) as both:
            ticket = await issued(both)
            stream = await connect_tcp("127.0.0.1", both.port)
            stream.write(hello(KEY, ticket))
            assert len(await read_all(stream, ANSWER_BYTES)) == ANSWER_BYTES
            assert len(both.pool) == 1
            assert await said(both, hello(KEY, ticket)) == b""
            assert len(both.pool) == 1
            stream.abort()
            await until(lambda: len(both.pool) == 0)

    async def test_tickets_of_nobody_and_more_than_a_hello(self) -> None:
        async with joined(echo) as both:
            assert await said(both, hello(KEY, bytes(TICKET_BYTES))) == b""
            ticket = await issued(both)
            assert await said(both, hello(KEY, ticket) + b"x") == b""
            assert len(both.pool) == 0

    async def test_silence_and_crowds_are_dropped(self) -> None:
        desk = SpareDesk(greeting=0.05, max_greetings=2)
        async with joined(echo, desk=desk) as both:
            assert await said(both, hello(KEY, bytes(16))[:20]) == b""
            desk._greeting = 60.0
            waiting = [await connect_tcp("127.0.0.1", both.port) for _ in range(3)]
            for one in waiting:
                one.write(hello(KEY, bytes(16))[:20])
            await until(lambda: len(desk._greetings) == 2)
            await until(lambda: any(one.closed or one._at_eof for one in waiting))
            desk.stop()
            assert not desk._greetings
            for one in waiting:
                one.abort()

    async def test_an_agent_with_another_key_gets_nothing_held(self) -> None:
        async with joined(echo, node_key=b"o" * 32, ticket_life=0.05) as both:
            # The agent proves with another key, so no spare ever comes.
            assert both.pool.take() is None
            await until(lambda: not both.desk.tickets)
            assert len(both.pool) == 0

    async def test_nobody_asks_while_tickets_go_unused(self) -> None:
        async with joined(echo, ticket_life=0.05) as both:
            ticket = await issued(both)
            await until(lambda: ticket not in both.desk.tickets)
            assert both.pool._pause_until > both.pool._monotonic()
            both.pool.take()
            assert not both.desk.tickets
            assert await said(both, hello(KEY, ticket)) == b""

    async def test_an_impostor_in_the_nodes_place(self) -> None:
        """The agent believes only who has the key; the tests' server answers with rubbish."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            loop = asyncio.get_running_loop()
            address = f"127.0.0.1:{server.getsockname()[1]}"
            async with joined(echo) as both:
                object.__setattr__(both.agent.peer, "address", address)
                both.pool.take()
                connection, _ = await loop.sock_accept(server)
                with connection:
                    await loop.sock_recv(connection, 100)
                    await loop.sock_sendall(connection, b"y" * ANSWER_BYTES)
                    assert await asyncio.wait_for(gone(connection), 5)


async def gone(connection: socket.socket) -> bool:
    try:
        return await asyncio.get_running_loop().sock_recv(connection, 1) == b""
    except ConnectionResetError:
        return True


async def issued(both: Joined) -> bytes:
    """A ticket the agent does not hear of."""
    told: list[Any] = []
    link: Link = both.pool._link
    notify, link.notify = link.notify, lambda *a: told.append(a)  # type: ignore[method-assign,assignment]
    both.pool.take()
    link.notify = notify  # type: ignore[method-assign]
    ticket = told[0][1]["tickets"][0]
    assert isinstance(ticket, bytes)
    return ticket


async def said(both: Joined, data: bytes) -> bytes:
    """What the node answers to *data* until it closes."""
    stream = await connect_tcp("127.0.0.1", both.port)
    stream.write(data)
    try:
        return await read_all(stream)
    except StreamReset:
        return b""
    finally:
        stream.abort()
