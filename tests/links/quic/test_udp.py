"""The UDP socket: batches both ways, bounded queues, errors told, nothing left open."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from tests.links.loops import anyio_backend, open_descriptors  # noqa: F401
from tests.links.test_sockets import descriptors_left
from tests.links.test_transports import until
from underpass.links.quic.udp import MAX_QUEUED, UdpSocket, bound_socket, client_socket


class Heard:
    """What a socket received, cut into datagrams."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.calls = 0
        self.sources: set[Any] = set()

    def __call__(self, data: bytes, size: int, source: Any) -> None:
        self.calls += 1
        self.sources.add(source)
        step = size or len(data)
        self.datagrams += [data[start : start + step] for start in range(0, len(data), step)]


def pair(heard: Heard) -> tuple[UdpSocket, UdpSocket, Any]:
    far = UdpSocket(bound_socket(("127.0.0.1", 0), socket.AF_INET), heard)
    near = UdpSocket(client_socket(socket.AF_INET), lambda *_: None)
    return near, far, far.sock.getsockname()


async def test_datagrams_of_any_size_keep_their_boundaries_and_order() -> None:
    before = open_descriptors()
    heard = Heard()
    near, far, address = pair(heard)
    sizes = [1200] * 40 + [700, 1200, 1200, 1400, 1, 1200, 1, 1, 1200] + [1300] * 100
    sent = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    near.send([(data, address) for data in sent])
    await until(lambda: len(heard.datagrams) == len(sent))
    assert heard.datagrams == sent
    assert len(heard.sources) == 1
    near.close()
    near.close()
    near.send([(b"late", address)])
    far.close()
    assert not await descriptors_left(before)


async def test_answers_leave_from_where_was_spoken_to() -> None:
    heard, answered = Heard(), Heard()
    far = UdpSocket(bound_socket(("0.0.0.0", 0), socket.AF_INET), heard)
    raw = bound_socket(("127.0.0.1", 0), socket.AF_INET)
    raw.connect(("127.0.0.2", far.sock.getsockname()[1]))  # hears nothing from anywhere else
    near = UdpSocket(raw, answered)
    raw.send(b"question")
    await until(lambda: heard.datagrams == [b"question"])
    (source,) = heard.sources
    sent = [b"one", *[bytes([number]) * 1200 for number in range(20)]]
    far.send([(data, source) for data in sent])
    await until(lambda: answered.datagrams == sent)
    near.close()
    far.close()


async def test_a_kernel_without_offload_does_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UdpSocket, "_offers", lambda *_: False)
    heard = Heard()
    near, far, address = pair(heard)
    sent = [bytes([number]) * 1200 for number in range(50)]
    near.send([(data, address) for data in sent])
    await until(lambda: len(heard.datagrams) == 50)
    assert heard.datagrams == sent
    near.close()
    far.close()


async def test_offload_that_fails_is_given_up() -> None:
    heard = Heard()
    near, far, address = pair(heard)

    class Refusing:
        """A socket whose path does not take segments."""

        def __getattr__(self, name: str) -> Any:
            return getattr(far.sock if name == "none" else real, name)

        def sendmsg(self, *_: Any) -> None:
            raise OSError(errno.EIO, "no")

    real = near.sock
    near.sock = Refusing()  # type: ignore[assignment]
    near._gso = True
    near.send([(bytes(1200), address)] * 5)
    await until(lambda: len(heard.datagrams) == 5)
    assert not near._gso
    near.close()
    far.close()


async def test_what_the_kernel_does_not_take_waits_and_is_bounded() -> None:
    heard = Heard()
    near, far, address = pair(heard)
    full = True
    real = near.sock

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def sendto(self, *arguments: Any) -> Any:
            if full:
                raise BlockingIOError
            return real.sendto(*arguments)

    near.sock = Slow()  # type: ignore[assignment]
    near._gso = False
    near.send([(b"%d" % number, address) for number in range(MAX_QUEUED + 10)])
    near.send([(b"more", address)])
    assert near.dropped == 11
    full = False
    await until(lambda: len(heard.datagrams) >= 200)
    await until(lambda: not near._queue)
    assert heard.datagrams[:200] == [b"%d" % number for number in range(200)]
    near.close()
    far.close()


async def test_a_port_nobody_listens_on_is_told_at_once() -> None:
    probe = bound_socket(("127.0.0.1", 0), socket.AF_INET)
    address = probe.getsockname()
    probe.close()
    told: list[OSError] = []
    near = UdpSocket(client_socket(socket.AF_INET), lambda *_: None, told.append)
    near.send([(b"x", address)])
    await until(lambda: told)
    assert told[0].errno == errno.ECONNREFUSED
    count = len(told)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(told) == count  # the kernel's note was read, and does not come again
    near.close()


def test_a_port_in_use_is_an_error() -> None:
    first = bound_socket(("127.0.0.1", 0), socket.AF_INET)
    with pytest.raises(OSError, match=r".*") as error:
        bound_socket(first.getsockname(), socket.AF_INET)
    assert error.value.errno == errno.EADDRINUSE
    first.close()
