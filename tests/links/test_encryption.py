"""Sealed streams end to end: what the middle sees, what it may do, and what it can't."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.links.loops import anyio_backend, links, read_all, socket_pair  # noqa: F401
from tests.links.virtual_time import run_virtually
from underpass.core.errors import Forbidden, Unavailable
from underpass.links.compression import compressed
from underpass.links.encryption import SealedStream, seal_as_agent, seal_as_client
from underpass.links.link import Opening
from underpass.links.memory import memory_pair
from underpass.links.relay import relay
from underpass.links.stream import Stream, StreamReset
from underpass.wire.applications import key_fingerprint
from underpass.wire.sealed_records import OVERHEAD
from underpass.wire.sealing import MAGIC, SealingError, WrongKey

TARGET = "tcp:db:5432"
SECRET_TEXT = b"the secret plans"


@functools.cache
def made(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key(number: int = 0) -> rsa.RSAPrivateKey:
    return made(number)


def fingerprint(number: int = 0) -> str:
    return key_fingerprint(key(number).public_key())


def no_new_key(found: str) -> None:
    raise AssertionError("the key was known")


class Middle:
    """What a gateway sees, and what an evil one does: changes the bytes from the client."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.flip_at: int | None = None
        self.cut = False


async def _carry(source: Stream, target: Stream, middle: Middle, *, evil: bool) -> None:
    try:
        while data := await source.read():
            if middle.cut:
                break
            if evil and middle.flip_at is not None:
                at = middle.flip_at - len(middle.seen)
                if 0 <= at < len(data):
                    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            if evil:
                middle.seen += data
            target.write(data)
            await target.drain()
        await target.write_eof()
    except StreamReset as error:
        target.abort(error.code)
    except asyncio.CancelledError:
        target.abort()
        raise


@asynccontextmanager
async def sealed_pair(
    *, middle: Middle | None = None
) -> AsyncIterator[tuple[SealedStream, SealedStream, Middle]]:
    """Client's and agent's ends with somebody in between."""
    middle = middle or Middle()
    client, near = memory_pair()
    far, agent = memory_pair()
    async with asyncio.TaskGroup() as group:
        carriers = [
            group.create_task(_carry(near, far, middle, evil=True)),
            group.create_task(_carry(far, near, middle, evil=False)),
        ]
        theirs = group.create_task(seal_as_agent(agent, key(), target=TARGET))
        ours = await seal_as_client(
            client, target=TARGET, agent_fingerprint=fingerprint(), on_new=no_new_key
        )
        other = await theirs
        assert isinstance(ours, SealedStream)
        assert isinstance(other, SealedStream)
        try:
            yield ours, other, middle
        finally:
            for stream in (ours, other):
                stream.abort()
            for carrier in carriers:
                carrier.cancel()


async def pour(stream: Stream, data: bytes, piece: int = 50_000) -> None:
    for start in range(0, len(data), piece):
        stream.write(data[start : start + piece])
        await stream.drain()
    await stream.write_eof()


async def test_both_ways_with_half_close_and_nothing_to_see() -> None:
    question, answer = SECRET_TEXT * 20_000, os.urandom(900_000)
    async with sealed_pair() as (client, agent, middle):
        assert client.agent_fingerprint == fingerprint()
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(client, question))
            assert await read_all(agent) == question
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(agent, answer, 100_000))
            assert await read_all(client) == answer
        assert SECRET_TEXT not in middle.seen
        assert (client.bytes_out, client.bytes_in) == (len(question), len(answer))
        await client.close()
        await agent.close()


async def test_a_known_key_and_a_new_one() -> None:
    for known in (fingerprint(), None):
        found: list[str] = []
        a, b = memory_pair()
        async with asyncio.TaskGroup() as group:
            group.create_task(seal_as_agent(b, key(), target=TARGET))
            await seal_as_client(a, target=TARGET, agent_fingerprint=known, on_new=found.append)
        assert found == ([] if known else [fingerprint()])


async def agent_fails(stream: Stream, **options: Any) -> str:
    with pytest.raises((SealingError, StreamReset, Unavailable)) as caught:
        await seal_as_agent(stream, key(), target=TARGET, **options)
    assert stream.closed
    return caught.value.code


async def test_a_changed_key_is_refused_before_anything_is_sent() -> None:
    a, b = memory_pair()
    async with asyncio.TaskGroup() as group:
        accepting = group.create_task(seal_as_agent(b, key(), target=TARGET))
        with pytest.raises(WrongKey):
            await seal_as_client(
                a, target=TARGET, agent_fingerprint=fingerprint(1), on_new=no_new_key
            )
        agent = await accepting
    with pytest.raises(StreamReset) as caught:
        await agent.read()
    assert caught.value.code == "agent_key_changed"
    assert a.closed
    assert a.bytes_out == len(MAGIC) + 32


async def test_a_new_key_can_be_refused() -> None:
    def refuse(found: str) -> None:
        raise Forbidden("never seen", code="unknown_key")

    def fail(found: str) -> None:
        raise LookupError

    for callback, kind in ((refuse, Forbidden), (fail, LookupError)):
        a, b = memory_pair()
        async with asyncio.TaskGroup() as group:
            group.create_task(seal_as_agent(b, key(), target=TARGET))
            with pytest.raises(kind):
                await seal_as_client(a, target=TARGET, agent_fingerprint=None, on_new=callback)
        assert a.closed


async def test_led_to_another_target() -> None:
    a, b = memory_pair()
    async with asyncio.TaskGroup() as group:
        group.create_task(seal_as_agent(b, key(), target="tcp:db:22"))
        with pytest.raises(SealingError) as caught:
            await seal_as_client(
                a, target=TARGET, agent_fingerprint=fingerprint(), on_new=no_new_key
            )
    assert caught.value.code == "e2e_signature"


async def test_an_agent_that_knows_nothing_of_it() -> None:
    a, b = memory_pair()
    b.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    with pytest.raises(SealingError, match="does not speak"):
        await seal_as_client(a, target=TARGET, agent_fingerprint=None, on_new=no_new_key)
    with pytest.raises(StreamReset) as caught:
        await read_all(b)
    assert caught.value.code == "e2e_failed"


async def test_a_client_that_knows_nothing_of_it() -> None:
    a, b = memory_pair()
    a.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await agent_fails(b) == "e2e_failed"


async def test_an_end_or_a_loss_within_the_handshake() -> None:
    a, b = memory_pair()
    a.write(MAGIC)
    await a.write_eof()
    assert await agent_fails(b) == "e2e_failed"
    a, b = memory_pair()
    a.abort("gone")
    assert await agent_fails(b) == "gone"


def test_a_silent_peer() -> None:
    async def silent() -> None:
        a, b = memory_pair()
        a.write(MAGIC)
        assert await agent_fails(b, timeout=3) == "e2e_timeout"
        a, b = memory_pair()
        with pytest.raises(Unavailable, match="within 10 seconds"):
            await seal_as_client(a, target=TARGET, agent_fingerprint=None, on_new=no_new_key)
        with pytest.raises(StreamReset) as caught:
            await read_all(b)
        assert caught.value.code == "e2e_timeout"

    run_virtually(silent())


async def test_a_cancelled_handshake_leaves_nothing_open() -> None:
    a, b = memory_pair()
    task = asyncio.ensure_future(seal_as_agent(b, key(), target=TARGET))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert b.closed
    assert a.closed


@pytest.mark.parametrize("where", [0, 2, 10, 19, 25])
async def test_a_flipped_byte_ends_the_stream(where: int) -> None:
    async with sealed_pair() as (client, agent, middle):
        client.write(b"good")
        assert await agent.read() == b"good"
        middle.flip_at = len(middle.seen) + where
        client.write(b"second record")
        client.write(bytes(70_000))  # a length that was made larger waits for as much
        with pytest.raises(StreamReset) as caught:
            await agent.read()
        assert caught.value.code == "tampered"
        assert agent.closed
        with pytest.raises(StreamReset) as caught:
            await client.read()
        assert caught.value.code == "tampered"


async def test_a_cut_is_no_end() -> None:
    async with sealed_pair() as (client, agent, middle):
        client.write(b"pay 10")
        assert await agent.read() == b"pay 10"
        middle.cut = True
        client.write(b"00 euros")
        with pytest.raises(StreamReset) as caught:
            await agent.read()
        assert caught.value.code == "truncated"


async def test_bytes_after_the_sealed_end() -> None:
    a, b = memory_pair()
    async with asyncio.TaskGroup() as group:
        accepting = group.create_task(seal_as_agent(b, key(), target=TARGET))
        client = await seal_as_client(
            a, target=TARGET, agent_fingerprint=None, on_new=lambda found: None
        )
        agent = await accepting
    assert isinstance(client, SealedStream)
    a.write(client._sealer.end())
    a.write(b"more")
    with pytest.raises(StreamReset) as caught:
        await agent.read()
    assert caught.value.code == "tampered"


async def test_records_that_come_with_the_handshake() -> None:
    """The agent may speak first, in one write with its answer."""
    a, b = memory_pair()
    near, far = memory_pair()
    async with asyncio.TaskGroup() as group:
        accepting = group.create_task(seal_as_agent(b, key(), target=TARGET))
        opening = group.create_task(
            seal_as_client(near, target=TARGET, agent_fingerprint=fingerprint(), on_new=no_new_key)
        )
        a.write(await far.read())
        agent = await accepting
        far.write(await a.read(100))  # and not even that has to come whole
        agent.write(b"welcome")
        await agent.write_eof()
        # What the agent wrote lies in pieces; hand it over in one.
        whole = await read_all(a)
        far.write(whole)
        await far.write_eof()
        stream = await opening
    assert await read_all(stream) == b"welcome"


async def test_an_abort_passes_with_its_code() -> None:
    async with sealed_pair() as (client, agent, _middle):
        client.abort("gave_up")
        with pytest.raises(StreamReset) as caught:
            await agent.read()
        assert caught.value.code == "gave_up"
        client.write(b"dropped")
        agent.finish()


async def test_a_close_is_a_sealed_end() -> None:
    async with sealed_pair() as (client, agent, _middle):
        client.write(b"")
        client.write(b"last words")
        await client.close()
        await client.close()
        client.write(b"too late")
        assert await read_all(agent) == b"last words"


async def test_a_reader_that_stops_stops_the_writer() -> None:
    async with sealed_pair() as (client, agent, _middle):
        sent = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                while True:
                    client.write(b"x" * 65536)
                    sent += 65536
                    await client.drain()
        assert sent < 2 << 20
        assert agent.bytes_in < 400_000
        assert await read_all(agent, sent) == b"x" * sent


async def test_the_whole_way_with_compression() -> None:
    """A client's socket, relay, link, agent's relay, service: compressed, then encrypted."""
    data = SECRET_TEXT * 100_000 + os.urandom(500_000)
    async with socket_pair() as (user, entry), socket_pair() as (service, opened):
        below: list[Stream] = []

        async def opener(opening: Opening) -> None:
            below.append(opening.accept())
            stream = await seal_as_agent(below[0], key(), target=opening.target)
            await relay(compressed(stream, "zstd"), opened)

        async with links("tcp", opener) as (client, _agent):
            stream = await seal_as_client(
                await client.open(TARGET), target=TARGET, agent_fingerprint=fingerprint(),
                on_new=no_new_key,
            )  # fmt: skip
            async with asyncio.TaskGroup() as group:
                relaying = group.create_task(relay(entry, compressed(stream, "zstd")))
                group.create_task(pour(user, data))
                assert await read_all(service) == data
                group.create_task(pour(service, data[::-1], 10_000))
                assert await read_all(user) == data[::-1]
            assert relaying.result().error is None
            assert below[0].bytes_in < len(data) / 2
            assert below[0].bytes_in > 500_000 + OVERHEAD
