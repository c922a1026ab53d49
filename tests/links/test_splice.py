"""Splicing between sockets, on both loops: byte-exact, ends, losses at every moment, no leaks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.links.loops import anyio_backend, read_all, socket_pair, tls_contexts  # noqa: F401
from underpass.links.relay import RelayResult, relay
from underpass.links.sockets import SocketStream, connect_tcp
from underpass.links.splice import PIPES, Pipes, Splice, can_splice
from underpass.links.stream import Stream, StreamReset


@dataclass
class Seen:
    """What ``os.splice`` was asked to do, and errors it is to answer with."""

    calls: int = 0
    moved: int = 0
    errors: deque[tuple[int, int]] = field(default_factory=deque)  # (at which call, errno)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    really: Callable[..., int] = os.splice
    noted = Seen()

    def splice(*arguments: Any, **options: Any) -> int:
        noted.calls += 1
        if noted.errors and noted.calls >= noted.errors[0][0]:
            number = noted.errors.popleft()[1]
            raise OSError(number, os.strerror(number))
        count = really(*arguments, **options)
        noted.moved += count
        return count

    monkeypatch.setattr(os, "splice", splice)
    return noted


@pytest.fixture(autouse=True)
def no_pipe_is_lost() -> Iterator[None]:
    before = PIPES.taken
    yield
    assert PIPES.taken == before


def descriptors() -> int:
    """How many sockets and pipes this process has open, without the pipes kept for later."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor
            count += os.readlink(f"/proc/self/fd/{number}").startswith(("socket:", "pipe:"))
    return count - 2 * len(PIPES._free)


async def settled(before: int) -> int:
    """Descriptors more than *before*, given a moment to go."""
    more = 0
    for _ in range(300):
        more = descriptors() - before
        if more <= 0:
            break
        await asyncio.sleep(0.01)
    return more


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def relayed(
    **options: Any,
) -> AsyncIterator[tuple[SocketStream, SocketStream, asyncio.Task[RelayResult]]]:
    """User end, service end, and the task of the relay between them."""
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: wrong.append(context))
    async with socket_pair() as (user, a), socket_pair() as (service, b):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(relay(a, b, **options))
            try:
                yield user, service, task
            finally:
                task.cancel()
        assert a.closed
        assert b.closed
    assert not wrong  # a callback that fails is only logged, and called again and again


async def pour(stream: Stream, data: bytes, piece: int = 60_000) -> None:
    for start in range(0, len(data), piece):
        stream.write(data[start : start + piece])
        await stream.drain()


async def test_bulk_is_spliced_byte_for_byte_and_counted(seen: Seen) -> None:
    forth, back = os.urandom(12_000_001), os.urandom(9_000_007)
    async with relayed() as (user, service, task):
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(user, forth))
            group.create_task(pour(service, back))
            at_service = group.create_task(read_all(service, len(forth)))
            at_user = group.create_task(read_all(user, len(back)))
        assert at_service.result() == forth
        assert at_user.result() == back
        assert seen.moved > (len(forth) + len(back))  # each byte goes in and out
        await user.write_eof()
        assert await read_all(service) == b""
        await service.write_eof()
        assert await asyncio.wait_for(task, 5) == RelayResult(len(forth), len(back))


@pytest.mark.parametrize("first", ["user", "service"])
async def test_half_close_in_either_order(first: str, seen: Seen) -> None:
    forth, back = os.urandom(6_000_001), os.urandom(5_000_003)
    async with relayed() as (user, service, task):
        one, other = (user, service) if first == "user" else (service, user)
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(one, forth))
            arrived = group.create_task(read_all(other, len(forth)))
        await one.write_eof()
        assert await read_all(other) == b""
        assert arrived.result() == forth
        assert not task.done()
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(other, back))
            arrived = group.create_task(read_all(one, len(back)))
        await other.write_eof()
        assert await read_all(one) == b""
        assert arrived.result() == back
        result = await asyncio.wait_for(task, 5)
        assert result.error is None
        assert {result.a_to_b, result.b_to_a} == {len(forth), len(back)}
        assert seen.moved


async def test_the_end_behind_bulk_in_one_go(seen: Seen) -> None:
    """The end comes while bytes are still in the pipe and in both sockets."""
    data = os.urandom(20_000_000)
    async with relayed() as (user, service, task):
        user.write(data)
        await user.write_eof()
        await asyncio.sleep(0.05)  # everything is stuck now
        service.write(b"bye")
        await service.write_eof()
        assert await read_all(service) == data
        assert await read_all(user) == b"bye"
        assert await asyncio.wait_for(task, 5) == RelayResult(len(data), 3)
    assert seen.moved


async def test_many_streams_at_once(seen: Seen) -> None:
    async def one(size: int, piece: int) -> None:
        forth, back = os.urandom(size), os.urandom(size // 2)
        async with relayed() as (user, service, task):

            async def send(stream: SocketStream, data: bytes) -> None:
                await pour(stream, data, piece)
                await stream.write_eof()

            async with asyncio.TaskGroup() as group:
                group.create_task(send(user, forth))
                group.create_task(send(service, back))
                at_service = group.create_task(read_all(service))
                at_user = group.create_task(read_all(user))
            assert at_service.result() == forth
            assert at_user.result() == back
            assert await asyncio.wait_for(task, 10) == RelayResult(len(forth), len(back))

    async with asyncio.TaskGroup() as group:
        for index in range(60):  # more than there are pipes
            group.create_task(one(1_000_000 + index * 10_007, 20_000 + 997 * index))
    assert seen.moved


async def test_more_stuck_streams_than_pipes(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that get no pipe stay on the ordinary path; all bytes arrive once somebody reads."""
    monkeypatch.setattr(PIPES, "_most", 2)
    data = os.urandom(16_000_000)

    async def one(stuck: asyncio.Barrier) -> None:
        async with relayed() as (user, service, task):
            user.write(data)
            await user.write_eof()
            await asyncio.sleep(0.1)
            await stuck.wait()
            await service.write_eof()
            assert await read_all(service) == data
            assert await read_all(user) == b""
            assert await asyncio.wait_for(task, 10) == RelayResult(len(data), 0)

    barrier = asyncio.Barrier(6)
    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(one(barrier))
    assert seen.moved


async def test_small_pieces_go_the_ordinary_way(seen: Seen) -> None:
    async with relayed() as (user, service, _task):
        for _ in range(400):
            user.write(b"q" * 1000)
            assert len(await read_all(service, 1000)) == 1000
        assert not seen.calls
        # After bulk the splice is given back when only small pieces come.
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(user, bytes(8 << 20)))
            group.create_task(read_all(service, 8 << 20))
        for _ in range(100):
            user.write(b"q" * 100)
            assert len(await read_all(service, 100)) == 100
        before = seen.calls
        assert before
        for _ in range(50):
            user.write(b"q" * 100)
            assert len(await read_all(service, 100)) == 100
        assert seen.calls == before


async def test_a_reader_that_stops_stops_the_writer(seen: Seen) -> None:
    async with relayed() as (user, service, task):
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                user.write(b"x" * 65536)
                sent += 65536
                await user.drain()

        async with asyncio.TaskGroup() as group:
            flooding = group.create_task(flood())
            quiet, before = 0, -1
            while quiet < 5:
                await asyncio.sleep(0.02)
                quiet = quiet + 1 if sent == before else 0
                before = sent
            flooding.cancel()
        assert sent < 40 << 20
        assert seen.moved
        # Nothing turns round idly meanwhile.
        calls = seen.calls
        await asyncio.sleep(0.1)
        assert seen.calls == calls
        assert not task.done()
        assert len(await read_all(service, sent)) == sent


@pytest.mark.parametrize("who", ["user", "service", "relay", "ends"])
async def test_an_abort_at_every_moment(who: str, seen: Seen) -> None:
    """Whatever ends it and whenever, both sides hear of it and nothing is left open."""
    before = descriptors()
    data = bytes(3 << 20)
    for moment in range(40):
        async with relayed() as (user, service, task):
            sending = asyncio.ensure_future(pour(user, data))
            answering = asyncio.ensure_future(pour(service, data))
            await asyncio.sleep(0)  # the relay has begun
            for _ in range(moment):
                await asyncio.sleep(0.0005 if moment % 2 else 0)
                if moment % 3 and service._chunks:
                    await service.read()
            if who == "user":
                user.abort("gone")
            elif who == "service":
                service.abort("gone")
            elif who == "relay":
                task.cancel()
            else:
                user.abort()
                service.abort()
            results = await asyncio.wait_for(
                asyncio.gather(task, sending, answering, return_exceptions=True), 10
            )
            if who == "relay":
                assert isinstance(results[0], asyncio.CancelledError)
            else:
                assert isinstance(results[0], RelayResult)
                assert results[0].error is not None
                assert results[0].error.code == "connection_lost"
            for other in (user, service):
                with pytest.raises(StreamReset):
                    await read_all(other)
    assert await settled(before) <= 0


async def test_a_reset_while_the_target_is_stuck(seen: Seen) -> None:
    async with relayed() as (user, service, task):
        pouring = asyncio.ensure_future(pour(user, bytes(40 << 20)))
        await until(lambda: seen.moved)
        await asyncio.sleep(0.1)
        service.abort()
        result = await asyncio.wait_for(task, 5)
        assert result.error is not None
        assert result.error.code == "connection_lost"
        with pytest.raises(StreamReset):
            await asyncio.wait_for(pouring, 5)


async def test_bytes_before_a_reset_and_then_the_reset(seen: Seen) -> None:
    """The source breaks with bytes still unread: the relay ends, it does not hang."""
    for _ in range(20):
        async with relayed() as (user, service, task):
            pouring = asyncio.ensure_future(pour(user, bytes(30 << 20)))
            reading = asyncio.ensure_future(read_all(service))
            await until(lambda: service.bytes_in > 2 << 20)
            user.abort()
            result = await asyncio.wait_for(task, 5)
            assert result.error is not None
            assert result.error.code == "connection_lost"
            await asyncio.gather(pouring, reading, return_exceptions=True)
    assert seen.moved


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOMEM])
@pytest.mark.parametrize("at", [1, 2, 3, 8])
async def test_what_the_kernel_does_not_do_goes_the_ordinary_way(
    number: int, at: int, seen: Seen
) -> None:
    seen.errors.append((at, number))
    data = os.urandom(12_000_000)
    async with relayed() as (user, service, task):
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(user, data))
            at_service = group.create_task(read_all(service, len(data)))
        assert at_service.result() == data
        assert not seen.errors
        calls = seen.calls
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(user, data))
            group.create_task(read_all(service, len(data)))
        assert seen.calls == calls
        await user.write_eof()
        await service.write_eof()
        assert await asyncio.wait_for(task, 5) == RelayResult(2 * len(data), 0)


async def test_without_pipes_and_descriptors(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    data = os.urandom(6_000_000)
    for name in ("dup", "pipe2"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, none_left)
            patch.setattr(PIPES, "_free", [])
            async with relayed() as (user, service, _task):
                async with asyncio.TaskGroup() as group:
                    group.create_task(pour(user, data))
                    at_service = group.create_task(read_all(service, len(data)))
                assert at_service.result() == data
    assert not seen.calls


async def test_only_plain_sockets_and_nobody_between(seen: Seen, tmp_path: Path) -> None:
    class Tap:
        def __init__(self) -> None:
            self.count = 0

        def a_to_b(self, data: bytes) -> None:
            self.count += len(data)

        def b_to_a(self, data: bytes) -> None: ...

    for options in ({"tap": Tap()}, {"splice": False}):
        async with relayed(**options) as (user, service, _task):
            async with asyncio.TaskGroup() as group:
                group.create_task(pour(user, bytes(4 << 20)))
                group.create_task(read_all(service, 4 << 20))
        assert not seen.calls
    server_tls, client_tls = tls_contexts()
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[SocketStream] = loop.create_future()
    server = await loop.create_server(
        lambda: SocketStream(arrived.set_result), "127.0.0.1", 0, ssl=server_tls
    )
    _, near = await loop.create_connection(
        SocketStream, "127.0.0.1", server.sockets[0].getsockname()[1],
        ssl=client_tls, server_hostname="localhost",
    )  # fmt: skip
    far = await arrived
    async with socket_pair() as (one, other):
        assert can_splice(one, other)
        assert not can_splice(one, far)
        assert not can_splice(near, other)
        one.abort()
        assert not can_splice(one, other)
    near.abort()
    far.abort()
    server.close()


async def test_unix_sockets_are_spliced_too(seen: Seen, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[SocketStream] = loop.create_future()
    server = await loop.create_unix_server(
        lambda: SocketStream(arrived.set_result), str(tmp_path / "s")
    )
    _, b = await loop.create_unix_connection(SocketStream, str(tmp_path / "s"))
    service = await arrived
    forth, back = os.urandom(8_000_000), os.urandom(8_000_000)
    async with socket_pair() as (user, a), asyncio.TaskGroup() as group:
        task = group.create_task(relay(a, b))
        group.create_task(pour(user, forth))
        group.create_task(pour(service, back))
        at_service = group.create_task(read_all(service, len(forth)))
        at_user = group.create_task(read_all(user, len(back)))
        assert await at_service == forth
        assert await at_user == back
        await user.close()
        await service.close()
        assert (await asyncio.wait_for(task, 5)).error is None
    server.close()
    assert seen.moved


async def test_a_thousand_connections_leave_nothing_open(seen: Seen) -> None:
    before = descriptors()
    loop = asyncio.get_running_loop()

    async with asyncio.TaskGroup() as group:
        accepted: asyncio.Queue[SocketStream] = asyncio.Queue(100)
        services = await loop.create_server(
            lambda: SocketStream(accepted.put_nowait), "127.0.0.1", 0
        )
        target = services.sockets[0].getsockname()[1]

        async def forward(stream: SocketStream) -> None:
            await relay(stream, await connect_tcp("127.0.0.1", target))

        entry = await loop.create_server(
            lambda: SocketStream(lambda stream: group.create_task(forward(stream)) and None),
            "127.0.0.1", 0,
        )  # fmt: skip
        port = entry.sockets[0].getsockname()[1]
        data = bytes(700_000)
        for index in range(1000):
            user = await connect_tcp("127.0.0.1", port)
            service = await accepted.get()
            if index % 4 == 3:
                user.write(data)
                await asyncio.sleep(0)
                (user if index % 8 == 3 else service).abort()
            else:
                user.write(data)
                await user.write_eof()
                assert len(await read_all(service)) == len(data)
                await (service if index % 4 == 1 else user).close()
            await user.close()
            await service.close()
        entry.close()
        services.close()
    assert seen.moved
    assert await settled(before) <= 0


async def test_a_slow_reader_and_a_fast_writer_taking_turns(seen: Seen) -> None:
    """The direction goes to and fro between waiting for the source and waiting for the target."""
    data = os.urandom(24_000_000)
    async with relayed() as (user, service, task):

        async def send() -> None:
            for start in range(0, len(data), 1_000_000):
                user.write(data[start : start + 1_000_000])
                await user.drain()
                await asyncio.sleep(0.001 * (start % 7_000_000 == 0))
            await user.write_eof()

        async def receive() -> bytes:
            parts: list[bytes] = []
            while part := await service.read():
                parts.append(part)
                await asyncio.sleep(0.001 * (len(parts) % 40 == 0))
            return b"".join(parts)

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            received = group.create_task(receive())
        assert received.result() == data
        await service.close()
        assert await asyncio.wait_for(task, 5) == RelayResult(len(data), 0)
    assert seen.moved > len(data)
    assert not PIPES.splices


def test_pipes_are_bounded() -> None:
    pipes = Pipes(most=3, kept=1)
    taken = [pipes.take() for _ in range(4)]
    assert taken[3] is None
    for pipe in taken[:2]:
        assert pipe is not None
        pipes.give_back(pipe)
    assert taken[2] is not None
    os.write(taken[2][1], b"rest")
    pipes.drop(taken[2])
    assert pipes.taken == 0
    again = pipes.take()
    assert again == taken[0]
    assert again is not None
    pipes.drop(again)
    for pipe in taken[:3]:
        assert pipe is not None
        with pytest.raises(OSError):
            os.fstat(pipe[0])


@pytest.fixture
def calm() -> Iterator[None]:
    PIPES.calmed(True)
    yield
    PIPES.calmed(False)


@pytest.mark.parametrize("slow", [False, True])
async def test_while_somebody_types_it_moves_little_at_a_time(
    calm: None, seen: Seen, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    rests = 0
    rest = Splice._rest

    def counted(splice: Splice) -> None:
        nonlocal rests
        rests += 1
        rest(splice)

    monkeypatch.setattr(Splice, "_rest", counted)
    data = os.urandom(1 << 20) * 8
    async with relayed() as (user, service, task), asyncio.TaskGroup() as group:
        sending = group.create_task(pour(user, data))
        got = bytearray()
        while len(got) < len(data):
            got += await service.read()
            if slow and len(got) < 1 << 20:
                await asyncio.sleep(0.001)
        await sending
        assert got == data
        await user.write_eof()
        assert await service.read() == b""
        service.write(b"answer")
        await service.write_eof()
        assert await read_all(user) == b"answer"
        assert (await task).a_to_b == len(data)
    assert seen.moved > 4 << 20
    # Both sockets lead to this machine: a quarter of what it would be otherwise.
    assert rests >= seen.moved // 2 // (64 << 10)


async def test_typing_on_another_connection_makes_splices_calm(seen: Seen) -> None:
    loop = asyncio.get_running_loop()
    async with relayed() as (user, service, _), relayed() as (keys, echo, _):
        for _ in range(5):
            keys.write(b"k")
            assert await echo.read() == b"k"
        assert not PIPES.calm(loop.time())  # nothing is spliced, so nobody minds

        async with asyncio.TaskGroup() as group:
            flood = group.create_task(pour(user, bytes(64 << 20)))

            async def drink() -> None:
                while True:
                    await service.read()

            drinking = group.create_task(drink())
            await until(lambda: PIPES.splices)
            for _ in range(5):
                keys.write(b"k")
                assert await echo.read() == b"k"
            assert PIPES.calm(loop.time())
            assert not PIPES.calm(loop.time() + 3)
            flood.cancel()
            drinking.cancel()
    PIPES._typed_until = 0.0
