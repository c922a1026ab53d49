"""The datagrams of one local source address, and the stream they travel in.

Nothing waits: what finds no room is dropped, as UDP allows, and the flow goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from underpass.core.errors import UnderpassError
from underpass.links.datagram_socket import Address, DatagramSocket
from underpass.links.stream import Stream
from underpass.wire.datagrams import DatagramDecoder, DatagramError, encode

__all__ = ["LocalFlow"]

_WAITING: Final = 64
"""Datagrams kept while the stream is being opened."""
_COOLING: Final = 1.0
"""Seconds a source that was refused is not heard: each datagram would be another opening."""


class LocalFlow:
    """See the module; receives what the stream pushes (``links/stream.py``).

    Args:
        sock: where the source's datagrams come to and its answers leave from.
        address: the source.

    Attributes:
        moved_at: when something last passed, in the loop's time.
        dropped: datagrams that found no room.
    """

    def __init__(self, sock: DatagramSocket, address: Address) -> None:
        self._sock = sock
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._decoder = DatagramDecoder()
        self._stream: Stream | None = None
        self._waiting: deque[bytes] | None = deque()
        self._over = asyncio.Event()
        self.moved_at = self._loop.time()
        self.dropped = 0

    def take(self, data: bytes) -> None:
        """A datagram came from the source."""
        self.moved_at = self._loop.time()
        if self._stream is not None:
            self._send(self._stream, data)
        elif self._waiting is None or len(self._waiting) >= _WAITING:
            self.dropped += 1
        else:
            self._waiting.append(data)

    def end(self) -> None:
        """It is over."""
        self._over.set()

    async def refused(self) -> None:
        """No stream is to be had; what comes in the next moment is dropped."""
        self._waiting = None
        await asyncio.sleep(_COOLING)

    async def run(self, stream: Stream) -> None:
        """Pass datagrams on until either end is over; closes *stream*."""
        self._stream = stream
        try:
            waiting, self._waiting = self._waiting, None
            for data in waiting or ():
                self._send(stream, data)
            stream.attach(self)
            await self._over.wait()
        except BaseException:
            stream.abort("cancelled")
            raise
        await stream.close()

    def _send(self, stream: Stream, data: bytes) -> None:
        if stream.full:
            self.dropped += 1
            return
        try:
            stream.send(encode(data))
        except UnderpassError:  # longer than IPv4 can carry
            self.dropped += 1

    # -- Receiver (links/stream.py) ---------------------------------------------------------------

    def data(self, chunk: bytes | memoryview) -> None:
        """The stream's: answers came."""
        self.moved_at = self._loop.time()
        try:
            datagrams = self._decoder.feed(chunk)
        except DatagramError as error:
            if self._stream is not None:
                self._stream.abort(error.code, error.message)
            self._over.set()
            return
        for datagram in datagrams:
            if not self._sock.send(datagram, self._address):
                self.dropped += 1

    def eof(self) -> None:
        """The stream's: no more answers come."""
        self._over.set()

    def lost(self, error: UnderpassError) -> None:
        """The stream's: it is over."""
        self._over.set()

    def writable(self) -> None:
        """The stream's: nothing waits here."""
