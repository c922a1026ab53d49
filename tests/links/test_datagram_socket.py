"""UDP sockets that lose what has no room and survive what ICMP tells them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.links.loops import anyio_backend  # noqa: F401
from underpass.links.datagram_socket import Address, DatagramSocket


def bound(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


@pytest.fixture
def friend() -> Iterator[socket.socket]:
    with bound() as sock:
        sock.settimeout(5)
        yield sock


class Inbox:
    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()

    def __call__(self, data: bytes, address: Address) -> None:
        self.queue.put_nowait((data, address))

    async def next(self) -> tuple[bytes, Address]:
        async with asyncio.timeout(5):
            return await self.queue.get()


async def test_datagrams_keep_their_boundaries(friend: socket.socket) -> None:
    inbox = Inbox()
    sock = DatagramSocket(bound(), inbox)
    sent = [b"", b"x", b"y" * 65_507]
    for data in sent:
        friend.sendto(data, sock.address)
    got = [await inbox.next() for _ in sent]
    assert [data for data, _ in got] == sent
    assert got[0][1] == friend.getsockname()
    for data in sent:
        assert sock.send(data, friend.getsockname())
    assert [friend.recv(70_000) for _ in sent] == sent
    sock.close()
    sock.close()
    assert not sock.send(b"late", friend.getsockname())


@pytest.mark.parametrize(("everywhere", "other"), [("0.0.0.0", "127.0.0.2"), ("::", "::1")])
async def test_answers_leave_from_where_was_spoken_to(everywhere: str, other: str) -> None:
    """A connected client hears nothing that comes from another address."""
    inbox = Inbox()
    sock = DatagramSocket(bound(everywhere), inbox)
    family = socket.AF_INET6 if ":" in other else socket.AF_INET
    home = "::1" if ":" in other else "127.0.0.1"
    seen: list[Address] = []
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.bind((home, 0))
        for spoken_to in (other, home):
            client.connect((spoken_to, sock.address[1]))
            client.send(b"question")
            data, address = await inbox.next()
            assert (data, address[:2]) == (b"question", client.getsockname()[:2])
            assert sock.send(b"answer", address)
            assert client.recv(100) == b"answer"
            seen.append(address)
    assert len(set(seen)) == len({other, home})  # to us they are two flows
    assert sock.send(b"unasked", ("::1" if family == socket.AF_INET6 else "127.0.0.1", 9))
    sock.close()


async def test_what_comes_before_start_waits_in_the_kernel(friend: socket.socket) -> None:
    sock = DatagramSocket(bound())
    friend.sendto(b"early", sock.address)
    inbox = Inbox()
    sock.start(inbox)
    assert (await inbox.next())[0] == b"early"
    sock.close()


async def test_a_datagram_too_large_is_dropped_alone(friend: socket.socket) -> None:
    sock = DatagramSocket(bound())
    assert not sock.send(b"z" * 65_508, friend.getsockname())
    assert sock.dropped == 1
    assert sock.send(b"fine", friend.getsockname())
    assert friend.recv(10) == b"fine"
    sock.close()


async def test_nobody_listening_ends_nothing() -> None:
    """The kernel tells a connected socket of the ICMP answer in place of the next send."""
    with bound() as gone:
        where = gone.getsockname()
    raw = bound()
    raw.connect(where)
    inbox = Inbox()
    sock = DatagramSocket(raw, inbox)
    for _ in range(3):
        assert sock.send(b"anybody?")
        await asyncio.sleep(0.01)
    assert sock.errors >= 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
        back.bind(where)
        back.settimeout(5)
        assert sock.send(b"again")
        assert back.recv(10) == b"again"
        back.sendto(b"yes", raw.getsockname())
        assert (await inbox.next())[0] == b"yes"
    sock.close()


class Faulty:
    """A socket whose every call fails as the kernel might."""

    def __init__(self, real: socket.socket, *failures: int) -> None:
        self._real = real
        self.failures = list(failures)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def _fail(self) -> None:
        if self.failures:
            code = self.failures.pop(0)
            raise BlockingIOError if code == errno.EAGAIN else OSError(code, "made up")

    def send(self, data: bytes) -> int:
        self._fail()
        return self._real.send(data)

    def sendto(self, data: bytes, address: Address) -> int:
        self._fail()
        return self._real.sendto(data, address)

    def recvfrom(self, size: int) -> Any:
        self._fail()
        return self._real.recvfrom(size)


async def test_a_full_buffer_drops(friend: socket.socket) -> None:
    sock = DatagramSocket(Faulty(bound(), errno.EAGAIN))  # type: ignore[arg-type]
    assert not sock.send(b"lost", friend.getsockname())
    assert (sock.dropped, sock.errors) == (1, 0)
    assert sock.send(b"kept", friend.getsockname())
    assert friend.recv(10) == b"kept"
    sock.close()


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ECONNREFUSED, errno.ENETDOWN])
async def test_reading_goes_on_after_an_error(friend: socket.socket, code: int) -> None:
    inbox = Inbox()
    sock = DatagramSocket(Faulty(bound(), code), inbox)  # type: ignore[arg-type]
    friend.sendto(b"here", sock.address)
    assert (await inbox.next())[0] == b"here"
    assert sock.errors == 1
    sock.close()


async def test_the_receiver_may_close(friend: socket.socket) -> None:
    seen: list[bytes] = []

    def once(data: bytes, _address: Address) -> None:
        seen.append(data)
        sock.close()

    sock = DatagramSocket(bound())
    for data in (b"1", b"2"):
        friend.sendto(data, sock.address)
    sock.start(once)
    await asyncio.sleep(0.05)
    assert seen == [b"1"]
    assert sock.closed
