"""TCP mappings (and those to a Unix socket): a connection here is a connection there.

In this order: the address lists, a free place, the PROXY header of a balancer, the owner's
permission, the opening at the agent. Whoever is turned away reads the end of the connection and
not a byte before it. Then bytes are relayed; half-close is kept both ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import abstractmethod

from underpass.core import metrics
from underpass.core.errors import Forbidden, InvalidRequest, Unavailable, UnderpassError
from underpass.gateway.entrypoints.admission import Places, plain_host
from underpass.gateway.entrypoints.entry_point import EntryPoint
from underpass.gateway.entrypoints.passage import Answering, Passage
from underpass.links.compression import compressed
from underpass.links.datagram_socket import Address
from underpass.links.layers import Layers
from underpass.links.link import Opening
from underpass.links.relay import relay
from underpass.links.sockets import stream_on
from underpass.links.stream import Stream
from underpass.wire.proxy_protocol import Decoder, ProxyProtocolError, encode_v1, encode_v2

__all__ = ["PROXY_TIMEOUT", "StreamEntryPoint", "TcpEntryPoint"]

PROXY_TIMEOUT = 5.0
"""Seconds a balancer has to say for whom it connects."""
_SHORTEST_HEADER = len(b"PROXY UNKNOWN\r\n")
_STREAMS = {kind: metrics.STREAMS.labels(kind) for kind in ("tcp", "unix")}


class StreamEntryPoint(EntryPoint):
    """An entry point for connections; a kind says in :meth:`_converse` what is done with them."""

    def accepted(self, sock: socket.socket, address: Address) -> None:
        source = (plain_host(str(address[0])), int(address[1]))
        try:
            places = self._take_places(source)
        except UnderpassError:
            _end_orderly(sock)
            return
        local = sock.getsockname()

        async def work(passage: Passage) -> None:
            stream = await stream_on(sock)
            await self._serve(passage, stream, (plain_host(local[0]), local[1]))

        passage = Passage(source, self._around.clock.monotonic())
        self._start(passage, work, places, never=sock.close)

    def offered(self, opening: Opening, source: tuple[str, int], local: tuple[str, int]) -> None:
        layers = Layers.from_meta(opening.meta)
        if layers.e2e is not self.mapping.options.e2e:
            # Neither what we can't read, nor in clear what should be encrypted.
            raise InvalidRequest(
                "This mapping is encrypted between its machines." if self.mapping.options.e2e
                else "The gateway has to read this stream.",
                code="invalid_layers",
            )  # fmt: skip
        places = self._take_places(source)
        # What is encrypted was compressed before that, for the other machine.
        stream = compressed(opening.accept(), "none" if layers.e2e else layers.compression)

        async def work(passage: Passage) -> None:
            await self._serve(passage, stream, local)

        passage = Passage(source, self._around.clock.monotonic())
        self._start(passage, work, places, never=stream.abort)

    def received(self, data: bytes, address: Address, sock: Answering) -> None:
        raise AssertionError("no datagrams are listened for")

    @abstractmethod
    async def _converse(self, passage: Passage, stream: Stream, local: tuple[str, int]) -> None:
        """Serve *stream*, which came in at *local*, until it is over. Need not close it.

        Raises:
            UnderpassError: its user is turned away.
        """

    def _may_knock(self, host: str) -> bool:
        """Whether *host* may connect at all; for a balancer it is the header that counts."""
        if self.mapping.options.accept_proxy_protocol and self._is_balancer(host):
            return True
        return self._rules.admits(host)

    def _is_balancer(self, host: str) -> bool:
        return self._around.balancers is not None and self._around.balancers.admits(host)

    def _take_places(self, source: tuple[str, int]) -> tuple[Places, Places]:
        """Places for a connection from *source*; whoever is turned away is noted.

        Raises:
            Forbidden, Unavailable: it may not come in, or there is no place.
        """
        error: UnderpassError | None = None
        if not self._may_knock(source[0]):
            error = Forbidden("Nobody may connect from there.", code="address_denied")
        elif not self._places.take():
            error = Unavailable("Too many connections are open.", code="too_many_connections")
        elif not self._around.connections.take():
            self._places.free()
            error = Unavailable("Too many connections are open.", code="too_many_connections")
        else:
            error = self._used_up((self._places, self._around.connections))
        if error is not None:
            self._turned_away(Passage(source, 0.0), error)
            raise error
        return self._places, self._around.connections

    async def _serve(self, passage: Passage, stream: Stream, local: tuple[str, int]) -> None:
        try:
            await self._converse(passage, stream, local)
        finally:
            self._end(passage)
            # Where the relay ran, this has been done.
            await stream.close()

    async def _announced(self, passage: Passage, stream: Stream) -> None:
        """Let a balancer say for whom it connects: that is the passage's source from then on.

        Raises:
            InvalidRequest: code ``proxy_header``: none came in time, or a broken one.
            Forbidden: the one who is named may not connect.
        """
        listed = self._around.balancers is not None
        if listed and not self._is_balancer(passage.source[0]):
            return  # comes by itself; whatever it claims is for the target to read
        decoder = Decoder()
        try:
            async with asyncio.timeout(PROXY_TIMEOUT):
                # Not a byte more than the header: what follows is not ours to read.
                data = await stream.read(_SHORTEST_HEADER)
                while (header := decoder.feed(data)) is None:
                    if not data:
                        raise InvalidRequest("No PROXY header came.", code="proxy_header")
                    passage.preamble += len(data)
                    data = await stream.read(1)
                passage.preamble += len(data)
        except TimeoutError:
            raise InvalidRequest("No PROXY header came in time.", code="proxy_header") from None
        except ProxyProtocolError as error:
            raise InvalidRequest(error.message, code="proxy_header") from None
        if header.source is not None:
            passage.source = (plain_host(header.source[0]), header.source[1])
        named = passage.source[0]
        if not self._rules.admits(named) if listed else self._rules.denies(named):
            raise Forbidden("Nobody may connect from there.", code="address_denied")

    async def _carry(
        self, passage: Passage, stream: Stream, remote: Stream, first: bytes = b""
    ) -> None:
        """Relay between a user and the target until both are done; closes both.

        Args:
            first: goes to the target before everything else.
        """
        mapping = self.mapping
        open_now = _STREAMS["unix" if mapping.protocol == "unix" else "tcp"]
        open_now.inc()
        try:
            self._begin(passage, stream)
            options = mapping.options
            far = compressed(remote, "none" if options.e2e else options.compression)
            if first:
                far.write(first)
            with self.shape.around(stream, far) as near:
                passage.near = near
                await relay(near, far)
        except BaseException:
            remote.abort("cancelled")
            raise
        finally:
            open_now.dec()


class TcpEntryPoint(StreamEntryPoint):
    """Protocols ``tcp`` and ``unix``."""

    async def _converse(self, passage: Passage, stream: Stream, local: tuple[str, int]) -> None:
        if self.mapping.options.accept_proxy_protocol:
            await self._announced(passage, stream)
        remote = await self._reach(passage, self.mapping.target_for(local[1]))
        version = self.mapping.options.proxy_protocol
        header = b"" if version is None else _proxy_header(version, passage.source, local)
        await self._carry(passage, stream, remote, header)


def _proxy_header(version: str, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    encode = encode_v1 if version == "v1" else encode_v2
    return encode(source, destination)


def _end_orderly(sock: socket.socket) -> None:
    """End a connection without a byte: orderly, so that nobody waits for a timeout."""
    with contextlib.suppress(OSError):  # gone already
        sock.shutdown(socket.SHUT_WR)
        sock.recv(65536)  # unread bytes would make the end a reset
    sock.close()
