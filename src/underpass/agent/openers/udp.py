"""Opens ``udp:host:port`` (datagrams to and from one address) and ``udp`` (each names its own).

Each datagram is dropped or passed on, nothing waits: a full link, a full socket, an address the
policy denies or a datagram nobody can send cost that datagram and no other. Only the stream's end
ends a flow; that nobody listens over there (an ICMP error) does not.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import structlog

from underpass.agent.layers import Identity, accept_layers, check_layers
from underpass.agent.openers import Opener
from underpass.agent.openers.destinations import (
    Resolve,
    StreamCount,
    allowed_addresses,
    parse_target,
    system_resolve,
)
from underpass.agent.openers.udp_association import Association
from underpass.agent.policy import Policy
from underpass.core.errors import Unavailable, UnderpassError
from underpass.links.datagram_socket import Address, DatagramSocket
from underpass.links.link import Opening
from underpass.links.stream import Stream
from underpass.wire.datagrams import DatagramDecoder, DatagramError, encode

__all__ = ["udp_opener"]

_log = structlog.get_logger(__name__)

RESOLVE_TIMEOUT: Final = 8.0
"""Seconds for resolving; less than the 10 the opening side waits."""
MAX_FLOWS: Final = 8192
"""Flows one agent holds at a time."""


def udp_opener(
    policy: Policy,
    *,
    identity: Identity | None = None,
    resolve: Resolve = system_resolve,
    timeout: float = RESOLVE_TIMEOUT,
    max_flows: int = MAX_FLOWS,
) -> Opener:
    """The opener for both kinds of flow.

    Args:
        policy: decides about every address.
        identity: proves who we are on streams encrypted end to end; None refuses those.
        resolve: where names become addresses.
        timeout: seconds for resolving.
        max_flows: flows at a time at most.
    """
    count = StreamCount(max_flows)

    async def open_udp(opening: Opening) -> None:
        check_layers(opening, identity)
        with count:
            if opening.target == "udp":
                association = Association(policy, resolve, timeout)
                try:
                    await association.run(await accept_layers(opening, identity))
                finally:
                    await association.close()
                return
            host, port = parse_target(opening.target, "udp")
            try:
                async with asyncio.timeout(timeout):
                    addresses = await allowed_addresses(policy, resolve, "udp", host, port)
            except TimeoutError:
                raise Unavailable(
                    f"{host!r} was not resolved within {timeout:g} seconds.", code="resolve_failed"
                ) from None
            sock = _connected(addresses, host, port)
            try:
                await _Flow(sock).run(await accept_layers(opening, identity))
            finally:
                sock.close()

    return open_udp


def _connected(addresses: list[str], host: str, port: int) -> DatagramSocket:
    """A socket that exchanges datagrams with the first of *addresses* there is a way to.

    Raises:
        Unavailable: code ``connect_failed``.
    """
    reason = "no way leads there"
    for address in addresses:
        sock = None
        try:
            sock = socket.socket(
                socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM
            )
            sock.connect((address, port))
        except OSError as error:
            reason = error.strerror or str(error)
            if sock is not None:
                sock.close()
        else:
            return DatagramSocket(sock)
    raise Unavailable(f"{host}:{port} cannot be reached: {reason}.", code="connect_failed")


class _Flow:
    """Datagrams between a stream and one address; receives what the stream pushes."""

    def __init__(self, sock: DatagramSocket) -> None:
        self._sock = sock
        self._decoder = DatagramDecoder()
        self._stream: Stream
        self._over = asyncio.Event()
        self._dropped = 0

    async def run(self, stream: Stream) -> None:
        """Pass datagrams on until the stream ends; closes it."""
        self._stream = stream
        try:
            stream.attach(self)
            if not self._over.is_set():
                self._sock.start(self._received)
            await self._over.wait()
        except BaseException:
            stream.abort("cancelled")
            raise
        await stream.close()
        if lost := self._dropped + self._sock.dropped:
            _log.debug("datagrams_dropped", count=lost)

    def _received(self, data: bytes, _address: Address) -> None:
        if self._stream.full:
            self._dropped += 1
            return
        try:
            self._stream.send(encode(data))
        except UnderpassError:  # longer than IPv4 can carry; IPv6 can, the other side cannot
            self._dropped += 1

    # -- Receiver (links/stream.py) -------------------------------------------------------------

    def data(self, chunk: bytes | memoryview) -> None:
        """The stream's: bytes came."""
        try:
            datagrams = self._decoder.feed(chunk)
        except DatagramError as error:
            self._stream.abort(error.code, error.message)
            self._over.set()
            return
        for datagram in datagrams:
            self._sock.send(datagram)

    def eof(self) -> None:
        """The stream's: nothing more comes, so nobody wants answers either."""
        self._over.set()

    def lost(self, error: UnderpassError) -> None:
        """The stream's: it is over."""
        self._over.set()

    def writable(self) -> None:
        """The stream's: nothing waits here."""
