"""One UDP flow: the datagrams between one source address and the target.

Nothing waits here. What finds no room (the way is being opened, the link is full, a limit bites)
is dropped and counted, as UDP allows; the flow goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from underpass.core import metrics
from underpass.core.errors import UnderpassError
from underpass.gateway.entrypoints.passage import Answering, Passage
from underpass.gateway.entrypoints.shape import Shape
from underpass.links.datagram_socket import Address
from underpass.links.stream import Stream
from underpass.wire.datagrams import DatagramDecoder, DatagramError, encode

__all__ = ["Drop", "Flow"]

_WAITING: Final = 64
"""Datagrams kept while the way is being opened."""
_WAITING_BYTES: Final = 256 << 10

_TO_AGENT: Final = metrics.DATAGRAMS.labels("to_agent")
_FROM_AGENT: Final = metrics.DATAGRAMS.labels("from_agent")

Drop = Literal[
    "opening", "full", "limit", "size", "socket", "places", "address", "quota", "unknown",
]  # fmt: skip
"""Why a datagram was lost; also a metric's label."""


class Flow:
    """The stream's receiver and the source's counterpart.

    Args:
        passage: what it is part of; touched by every datagram.
        shape: the mapping's bandwidth.
        dropped: told of every datagram that is lost.
        limit: bytes a datagram may have on the stream.
        reply, address: where answers are sent from and go to; None: not known yet.
        prefix: put in front of every datagram to the target.

    Attributes:
        reply: where answers are sent from; None: not known yet.
        bytes_in, bytes_out: payload from and to the source.
    """

    def __init__(
        self,
        passage: Passage,
        *,
        shape: Shape,
        dropped: Callable[[Drop], None],
        limit: int,
        reply: Answering | None = None,
        address: Address | None = None,
        prefix: bytes = b"",
    ) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self._passage = passage
        self.reply = reply
        self.address = address
        self._shape = shape
        self._dropped = dropped
        self._limit = limit
        self._decoder = DatagramDecoder(limit)
        self._prefix = prefix
        self._stream: Stream | None = None
        self._waiting: deque[bytes] | None = deque()
        self._waiting_bytes = 0
        self._over = asyncio.Event()

    def take(self, data: bytes) -> None:
        """A datagram came from the source."""
        self._passage.touch()
        if self._stream is not None:
            self._send(self._stream, data)
        elif self._waiting is None:
            self._dropped("opening")  # it could not be opened
        elif len(self._waiting) >= _WAITING or self._waiting_bytes + len(data) > _WAITING_BYTES:
            self._dropped("opening")
        else:
            self._waiting.append(data)
            self._waiting_bytes += len(data)

    def give_up(self) -> None:
        """The way could not be opened; what waits is lost, and what comes."""
        waiting, self._waiting = self._waiting, None
        for _ in waiting or ():
            self._dropped("opening")

    async def run(self, stream: Stream) -> None:
        """Pass datagrams on until the stream ends. Closes it."""
        try:
            self._stream = stream
            waiting, self._waiting = self._waiting, None
            for data in waiting or ():
                self._send(stream, data)
            stream.attach(self)
            await self._over.wait()
        except BaseException:
            stream.abort("cancelled", "The flow is over.")
            raise
        await stream.close()

    def _send(self, stream: Stream, data: bytes) -> None:
        if self._prefix:
            data = self._prefix + data
        if len(data) > self._limit:
            self._dropped("size")
        elif stream.full:
            self._dropped("full")
        elif not self._shape.admits(len(data), sent=True):
            self._dropped("limit")
        else:
            self.bytes_in += len(data)
            _TO_AGENT.inc()
            stream.send(encode(data, limit=self._limit))

    def answer(self, data: bytes) -> None:
        """Send a datagram to the source."""
        if not self._shape.admits(len(data), sent=False):
            self._dropped("limit")
        elif self.reply is None or not self.reply.send(data, self.address):
            self._dropped("socket")
        else:
            self.bytes_out += len(data)
            _FROM_AGENT.inc()

    # -- Receiver (links/stream.py) -------------------------------------------------------------

    def data(self, chunk: bytes | memoryview) -> None:
        """The stream's: bytes came."""
        self._passage.touch()
        try:
            datagrams = self._decoder.feed(chunk)
        except DatagramError as error:
            if self._stream is not None:
                self._stream.abort(error.code, error.message)
            self._over.set()
            return
        for datagram in datagrams:
            self.answer(datagram)

    def eof(self) -> None:
        """The stream's: the agent ends the flow."""
        self._over.set()

    def lost(self, error: UnderpassError) -> None:
        """The stream's: it is over; the next datagram of the source begins a new flow."""
        self._over.set()

    def writable(self) -> None:
        """The stream's: nothing waits here."""
