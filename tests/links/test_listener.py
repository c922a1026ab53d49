"""The accept loop: connections handed over, and running out of descriptors ends nothing."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

from underpass.links.listener import Listener
from underpass.links.ports import bind


class Reluctant:
    """A listening socket whose first accepts fail."""

    def __init__(self, sock: socket.socket, *errors: int) -> None:
        self._sock = sock
        self._errors = list(errors)

    def _accept(self) -> Any:
        if self._errors:
            raise OSError(self._errors.pop(0), "no")
        return self._sock._accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


async def accepted_by(*errors: int) -> Listener:
    (sock,) = bind("tcp", [0], ["127.0.0.1"])
    got: asyncio.Queue[socket.socket] = asyncio.Queue()
    listener = Listener(
        [Reluctant(sock, *errors)],  # type: ignore[list-item]
        lambda connection, _address: got.put_nowait(connection),
    )
    async with asyncio.timeout(5):
        _, writer = await asyncio.open_connection("127.0.0.1", listener.ports[0])
        (await got.get()).close()
    writer.close()
    listener.close()
    listener.close()
    return listener


async def test_out_of_descriptors() -> None:
    assert (await accepted_by(errno.EMFILE)).failures == 1


async def test_a_connection_that_is_over() -> None:
    assert (await accepted_by(errno.ECONNABORTED)).failures == 0


async def test_everything_accept_can_say() -> None:
    errors = (errno.EMFILE, errno.EPROTO, errno.ENFILE, errno.EINVAL)
    assert (await accepted_by(*errors)).failures == 3


async def test_closing_while_it_waits() -> None:
    (sock,) = bind("tcp", [0], ["127.0.0.1"])
    listener = Listener(
        [Reluctant(sock, *[errno.EMFILE] * 9)],  # type: ignore[list-item]
        lambda *_: None,
    )
    _, writer = await asyncio.open_connection("127.0.0.1", listener.ports[0])
    async with asyncio.timeout(5):
        while not listener.failures:
            await asyncio.sleep(0.005)
    listener.close()
    await asyncio.sleep(0.06)  # it would have tried again by now
    assert listener.failures == 1
    writer.close()


async def test_what_comes_is_a_whole_socket() -> None:
    (sock,) = bind("tcp", [0], ["127.0.0.1"])
    got: asyncio.Queue[tuple[socket.socket, Any]] = asyncio.Queue()
    listener = Listener([sock], lambda *accepted: got.put_nowait(accepted))
    with socket.create_connection(("127.0.0.1", listener.ports[0])) as near:
        async with asyncio.timeout(5):
            connection, address = await got.get()
        assert address == near.getsockname() == connection.getpeername()
        assert connection.gettimeout() == 0.0
        assert (connection.family, connection.type) == (socket.AF_INET, socket.SOCK_STREAM)
        connection.send(b"x")
        assert near.recv(1) == b"x"
        connection.close()
        assert near.recv(1) == b""
    listener.close()
