"""A spare: a proven connection without a stream, held ready at both ends."""

from __future__ import annotations

import asyncio

from underpass.links.carriers.stream import CarrierStream

__all__ = ["Spare"]


class Spare(asyncio.Protocol):
    """A connection that waits for its stream. Whatever comes on it before that ends it.

    Args:
        transport: already proven; this takes it over.
        ticket: names it at both ends.
    """

    def __init__(self, transport: asyncio.Transport, ticket: bytes) -> None:
        self.ticket = ticket
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it was claimed or is gone."""
        self._transport = transport
        transport.set_protocol(self)

    @property
    def alive(self) -> bool:
        """Whether it waits still."""
        return not self.over.done() and not self._transport.is_closing()

    def claim(self) -> CarrierStream:
        """Make it a stream, which keeps what arrives from now on; only while :attr:`alive`."""
        self._end()
        stream = CarrierStream()
        self._transport.set_protocol(stream)
        stream.connection_made(self._transport)
        return stream

    def drop(self) -> None:
        """End it, unless it was claimed. Idempotent."""
        if not self.over.done():
            self._end()
            self._transport.abort()

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    # -- asyncio.Protocol -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.drop()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._transport.close()  # uvloop: never drop a transport that was not closed
