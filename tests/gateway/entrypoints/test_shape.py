"""Bandwidth that comes, changes and goes while streams are open."""

from __future__ import annotations

import asyncio
import socket

from underpass.control.mapping import Limits
from underpass.core.clock import ManualClock, SystemClock
from underpass.gateway.entrypoints.limitable import LimitableStream
from underpass.gateway.entrypoints.shape import _PACING, Shape
from underpass.links.memory import memory_pair
from underpass.links.relay import relay
from underpass.links.sockets import SocketStream
from underpass.links.stream import Stream


async def collect(stream: Stream, into: bytearray) -> None:
    while data := await stream.read():
        into += data


async def test_nothing_is_lost_when_a_limit_comes() -> None:
    shape = Shape(Limits(), SystemClock())
    user, near = memory_pair()
    far, target = memory_pair()
    got, back = bytearray(), bytearray()
    with shape.around(near, far) as wrapped:
        assert isinstance(wrapped, LimitableStream)
        async with asyncio.TaskGroup() as group, asyncio.timeout(10):
            group.create_task(relay(wrapped, far))
            group.create_task(collect(target, got))
            group.create_task(collect(user, back))
            for number in range(200):
                user.write(bytes([number]) * 500)
                target.write(bytes([number]) * 500)
                await asyncio.sleep(0)
                if number == 100:
                    shape.change(Limits(bandwidth=500_000, burst=2000))
            assert len(got) < 100_000  # the rest waits for its tokens
            await user.write_eof()
            await target.write_eof()
    expected = b"".join(bytes([number]) * 500 for number in range(200))
    assert got == back == expected


async def test_the_ends_are_kept_when_a_limit_comes_late() -> None:
    shape = Shape(Limits(), SystemClock())
    user, near = memory_pair()
    far, target = memory_pair()
    with shape.around(near, far) as wrapped:
        async with asyncio.TaskGroup() as group, asyncio.timeout(5):
            work = group.create_task(relay(wrapped, far))
            user.write(b"question")
            await user.write_eof()
            assert await target.read() == b"question"
            assert await target.read() == b""
            shape.change(Limits(bandwidth=1_000_000))
            target.write(b"answer")
            await target.write_eof()
            assert await user.read() == b"answer"
            assert await user.read() == b""
    assert work.result().error is None


async def test_one_limit_for_all() -> None:
    clock = ManualClock()
    shape = Shape(Limits(bandwidth=1000, burst=1000), clock)
    assert shape.admits(600, sent=True)
    assert not shape.admits(600, sent=True)
    assert shape.admits(600, sent=False)  # each way by itself
    clock.advance(0.2)
    assert shape.admits(600, sent=True)
    assert not shape.admits(5000, sent=True)
    clock.advance(1)
    assert shape.admits(5000, sent=True)  # larger than the burst: when it is full
    shape.change(Limits())
    assert shape.admits(10**9, sent=True)


async def test_spliced_connections_are_paced_by_the_kernel() -> None:
    async def pair() -> tuple[SocketStream, SocketStream]:
        loop = asyncio.get_running_loop()
        made = []
        for sock in socket.socketpair():
            made.append((await loop.create_connection(SocketStream, sock=sock))[1])
        return made[0], made[1]

    def pacing(stream: SocketStream) -> int:
        sock = stream._transport.get_extra_info("socket")
        return int(sock.getsockopt(socket.SOL_SOCKET, _PACING))

    shape = Shape(Limits(), SystemClock())
    first, second = await pair()
    unpaced = pacing(first)
    with shape.around(first, second) as wrapped:
        assert wrapped is first  # nothing in between: the kernel may move the bytes
        shape.change(Limits(bandwidth=50_000))
        assert (pacing(first), pacing(second)) == (50_000, 50_000)
        shape.change(Limits())
        assert pacing(first) == unpaced
    first.abort()
    second.abort()
