"""UDP ASSOCIATE of ``underpass socks``: a local UDP port whose datagrams leave at the machine.

It lives as long as its control connection (RFC 1928 §7), not as long as a link: when the stream
that carries it is lost it opens another, and what was sent meanwhile is lost, as datagrams are.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from underpass.core.errors import Unavailable, UnderpassError
from underpass.links.datagram_socket import Address, DatagramSocket
from underpass.links.sockets import SocketStream
from underpass.links.stream import Stream, StreamReset
from underpass.wire.datagrams import MAX_ADDRESSED, DatagramDecoder, encode
from underpass.wire.socks5 import Socks5Error, parse_udp

__all__ = ["SocksAssociation"]

_HEAD: Final = b"\0\0\0"
"""RSV and FRAG; what follows, address and data, travels as it is."""

OpenStream = Callable[[], Awaitable[Stream]]


class SocksAssociation:
    """One association.

    Args:
        control: the connection it belongs to; only its host may send.
        open_stream: makes a stream to the target ``udp``.

    Attributes:
        dropped: datagrams that went nowhere.
    """

    def __init__(self, control: SocketStream, open_stream: OpenStream) -> None:
        self._control = control
        self._open_stream = open_stream
        self._stream: Stream | None = None
        self._sender: Address | None = None
        self._over: asyncio.Future[None]
        self._decoder = DatagramDecoder(MAX_ADDRESSED)
        self._socket: DatagramSocket | None = None
        self.dropped = 0

    def open(self, host: str) -> tuple[str, int]:
        """Take a port on *host*; gives the address datagrams are to be sent to.

        Raises:
            Unavailable: code ``no_port``.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.bind((host, 0))
        except OSError as error:
            sock.close()
            raise Unavailable(
                f"No UDP port could be had on {host}: {error.strerror}.", code="no_port"
            ) from None
        self._socket = DatagramSocket(sock)  # what comes before there is a way waits in the kernel
        return self._socket.address[:2]

    async def run(self, stream: Stream) -> None:
        """Pass datagrams on until the control connection ends; closes everything but that.

        Args:
            stream: the first one, open already.

        Raises:
            UnderpassError: a stream was lost and there is no other to be had.
        """
        try:
            async with asyncio.TaskGroup() as group:
                passing = group.create_task(self._pass_on(stream))
                control = group.create_task(_end_of(self._control))
                await asyncio.wait((passing, control), return_when=asyncio.FIRST_COMPLETED)
                control.cancel()
                failure = None
                if passing.done():
                    failure = passing.result()
                passing.cancel()
        finally:
            self.close()
            stream.abort()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Give the port back. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _pass_on(self, stream: Stream) -> UnderpassError:
        if self._socket is not None:
            self._socket.start(self._from_program)
        while True:
            self._over = asyncio.get_running_loop().create_future()
            self._decoder = DatagramDecoder(MAX_ADDRESSED)
            self._stream = stream
            try:
                stream.attach(self)
                await self._over
            finally:
                self._stream = None
                stream.abort()
            try:
                stream = await self._open_stream()
            except UnderpassError as error:
                return error

    # -- from the program to the machine ----------------------------------------------------------

    def _from_program(self, data: bytes, address: Address) -> None:
        host = self._control.peer_address
        if self._sender is None and host is not None and address[0] == host[0]:
            self._sender = address
        stream = self._stream
        if address != self._sender or stream is None or stream.full:
            self.dropped += 1  # a datagram waits for nobody
            return
        try:
            parse_udp(data)
        except Socks5Error:
            self.dropped += 1
        else:
            stream.send(encode(data[len(_HEAD) :], limit=MAX_ADDRESSED))

    # -- Receiver: from the machine ---------------------------------------------------------------

    def data(self, chunk: bytes | memoryview) -> None:
        try:
            payloads = self._decoder.feed(chunk)
        except UnderpassError as error:
            self.lost(error)
            return
        for payload in payloads:
            if self._socket is not None and self._sender is not None:
                self._socket.send(_HEAD + payload, self._sender)

    def eof(self) -> None:
        self.lost(StreamReset("The machine ended the association.", code="closed"))

    def lost(self, error: UnderpassError) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def writable(self) -> None:
        """Nothing waits."""


async def _end_of(control: Stream) -> None:
    """Wait for the end of *control*; what the client still says there means nothing."""
    try:
        while await control.read():
            pass
    except UnderpassError:
        return
