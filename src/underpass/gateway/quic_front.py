"""The UDP port of the same number as the one port: links over QUIC arrive here.

Datagrams are given to connections by their connection id, so that a client whose address changes is
still known. Until a peer has said the first bytes of a link's handshake it is *half open*; how many
may be so, in all and per address, and for how long, is capped (``links/quic/half_open.py``), and
when there are many, whoever dials has to prove their address first (``links/quic/retry.py``). QUIC
sends no more than three times what came from an address that is not proved (RFC 9000, 8.1).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import structlog

from underpass.control.rate_limits import address_key
from underpass.core.errors import Unavailable
from underpass.core.metrics import QUIC_FIRST_PACKETS
from underpass.gateway.certificate import Certificate
from underpass.links.quic.half_open import HalfOpen
from underpass.links.quic.packets import CID_LENGTH, destination, is_initial
from underpass.links.quic.retry import RetryTokens, initial_token, retry_packet
from underpass.links.quic.sessions import GivenSessions
from underpass.links.quic.udp import Address, UdpSocket, bound_socket
from underpass.links.transports.transport import Transport

if TYPE_CHECKING:
    from underpass.links.quic.transport import QuicTransport

__all__ = ["QuicFront"]

_log = structlog.get_logger(__name__)

HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds a peer has for the QUIC handshake."""
SNIFF_TIMEOUT: Final = 10.0
"""Seconds it then has until the first bytes of its link handshake."""
MAX_UNDECIDED: Final = 256
"""Half-open connections; datagrams for one more are dropped."""
MAX_UNDECIDED_PER_ADDRESS: Final = 32
MAX_CONNECTIONS: Final = 20_000


class QuicFront:
    """Listens for QUIC and hands each connection on as a link's transport.

    Args:
        host: the address to bind, as for the one port.
        port: its number.
        certificate: shown to whoever dials; a link's handshake is bound to it.
        on_link: given each connection that wants to be a link, as ``Front`` does.
        sniff_timeout: seconds until a silent peer is dropped.
        max_undecided: how many may be silent at once.
        max_undecided_per_address: the same from one address.
        half_open: how many of them are counted, instead of the last two.
        tokens: what proves an address.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        certificate: Certificate,
        on_link: Callable[[Transport, str | None], object],
        sniff_timeout: float = SNIFF_TIMEOUT,
        max_undecided: int = MAX_UNDECIDED,
        max_undecided_per_address: int = MAX_UNDECIDED_PER_ADDRESS,
        half_open: HalfOpen | None = None,
        tokens: RetryTokens | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._certificate = certificate
        self._on_link = on_link
        self._sniff_timeout = sniff_timeout
        self._half_open = half_open or HalfOpen(
            most=max_undecided, most_per_address=max_undecided_per_address
        )
        self._tokens = tokens or RetryTokens(time.monotonic)
        self._sessions = GivenSessions(time.monotonic)
        self._sockets: list[UdpSocket] = []
        self._connections: dict[bytes, _Connection] = {}
        self._live: set[_Connection] = set()
        self._configuration: Any = None
        self._binding = b""
        self._stopping = False

    @property
    def connections(self) -> int:
        """How many connections there are, those that say goodbye included."""
        return len(self._live)

    @property
    def undecided(self) -> int:
        """How many of them have not begun a link's handshake."""
        return self._half_open.count

    async def start(self) -> None:
        """Bind the port.

        Raises:
            Unavailable: code ``quic_unavailable`` (the port is in use or not allowed) or
                ``quic_certificate``.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            self.host, self.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                sock = bound_socket((address[0], self.port, *address[2:]), family)
                self.port = sock.getsockname()[1]
                self._listen(sock)
        except OSError as error:
            self._close_sockets()
            raise Unavailable(
                f"Can't listen on UDP port {self.port}: {error.strerror or error}.",
                code="quic_unavailable",
            ) from None

    def _listen(self, sock: socket.socket) -> None:
        def received(data: bytes, size: int, source: Address) -> None:
            self._received(udp, data, size, source)

        udp = UdpSocket(sock, received)
        self._sockets.append(udp)

    async def stop(self) -> None:
        """Take nothing new, give up every connection and close the port. Idempotent.

        Links are closed by their owner before; what is left here has no owner.
        """
        self._stopping = True
        for connection in tuple(self._live):
            connection.transport.abort()
        await asyncio.sleep(0)  # abort ends each in the loop's next turn, with a last datagram
        self._close_sockets()
        for connection in tuple(self._live):
            self._forget(connection)

    def _close_sockets(self) -> None:
        for udp in self._sockets:
            udp.close()
        self._sockets.clear()

    # -- datagrams --------------------------------------------------------------------------------

    def _received(self, udp: UdpSocket, data: bytes, size: int, source: Address) -> None:
        if not size:
            self._deliver(udp, data, 0, source)
            return
        # The kernel joins what comes from one socket; that may be for several connections.
        start, owner = 0, destination(data[:size])
        for offset in range(size, len(data), size):
            other = destination(data[offset : offset + size])
            if other != owner:
                self._deliver(udp, data[start:offset], size, source)
                start, owner = offset, other
        self._deliver(udp, data[start:], size, source)

    def _deliver(self, udp: UdpSocket, data: bytes, size: int, source: Address) -> None:
        first = data[:size] if size else data
        name = destination(first)
        if name is None:
            return
        connection = self._connections.get(name)
        if connection is None:
            connection = self._first(udp, name, first, source)
            if connection is None:
                return
        connection.transport.received(data, size if size < len(data) else 0, source)

    def _first(
        self, udp: UdpSocket, name: bytes, datagram: bytes, source: Address
    ) -> _Connection | None:
        """Decide about what may be the first packet of a connection, to the id *name*."""
        if self._stopping or len(self._live) >= MAX_CONNECTIONS or not is_initial(datagram):
            return None
        said = initial_token(datagram)
        if said is None:
            return None
        peer_cid, token = said
        host, port = source[:2]
        original = self._tokens.original(token, host, port, name) if token else None
        if token and original is None:
            return None  # too late, or not theirs; without a token they may try again
        verdict = self._half_open.verdict(address_key(host), proved=original is not None)
        QUIC_FIRST_PACKETS.labels(verdict).inc()
        if verdict == "take":
            return self._begin(udp, name, source, original)
        if verdict == "retry":
            cid = secrets.token_bytes(CID_LENGTH)
            token = self._tokens.make(host, port, name, cid)
            udp.send([(retry_packet(name, peer_cid, cid, token), source)])
        return None

    def _begin(
        self, udp: UdpSocket, name: bytes, source: Address, original: bytes | None
    ) -> _Connection | None:
        # Loaded when the first one dials: a gateway without such links does without 12 MB.
        from qh3.quic.connection import QuicConnection

        from underpass.links.quic.transport import QuicTransport
        from underpass.links.quic.trust import server_configuration

        if self._configuration is None:
            try:
                self._configuration, self._binding = server_configuration(
                    self._certificate.chain, self._certificate.key
                )
            except Unavailable as error:
                _log.error("quic_off", reason=error.message)
                self._stopping = True
                return None
        quic = QuicConnection(
            configuration=self._configuration,
            original_destination_connection_id=original or name,
            retry_source_connection_id=name if original is not None else None,
            session_ticket_fetcher=self._sessions.take,
            session_ticket_handler=self._sessions.add,
        )
        connection = _Connection(address_key(source[0]), proved=original is not None)
        transport = QuicTransport(
            quic,
            udp.send,
            dialled=False,
            over=lambda: self._forget(connection),
            linger=True,
        )
        connection.transport = transport
        transport.binding = self._binding
        host, port = source[:2]
        transport.peer_address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        transport.settled = lambda: self._settled(connection)
        transport.first_bytes = lambda: self._decided(connection)
        transport.on_connection_id = lambda cid, new: self._renamed(connection, cid, new)
        self._live.add(connection)
        self._half_open.add(connection.host, proved=connection.proved)
        for cid in (name, quic.host_cid):
            self._renamed(connection, cid, True)
        self._expect(connection, HANDSHAKE_TIMEOUT)
        return connection

    # -- connections ------------------------------------------------------------------------------

    def _renamed(self, connection: _Connection, cid: bytes, new: bool) -> None:
        if new:
            self._connections[cid] = connection
            connection.names.add(cid)
        elif cid in connection.names:
            connection.names.discard(cid)
            self._connections.pop(cid, None)

    def _expect(self, connection: _Connection, seconds: float) -> None:
        if connection.timer is not None:
            connection.timer.cancel()
        loop = asyncio.get_running_loop()
        connection.timer = loop.call_later(seconds, connection.transport.abort)

    def _settled(self, connection: _Connection) -> None:
        if connection.timer is None:
            return
        self._expect(connection, self._sniff_timeout)
        if not connection.proved:
            connection.proved = True
            self._half_open.prove(connection.host)

    def _decided(self, connection: _Connection) -> None:
        self._no_longer_undecided(connection)
        if self._stopping:
            connection.transport.abort()
        else:
            self._on_link(connection.transport, None)

    def _no_longer_undecided(self, connection: _Connection) -> None:
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
            self._half_open.remove(connection.host, proved=connection.proved)

    def _forget(self, connection: _Connection) -> None:
        self._no_longer_undecided(connection)
        self._live.discard(connection)
        for cid in tuple(connection.names):
            self._renamed(connection, cid, False)


class _Connection:
    """One connection: what it is called, and what it may still become."""

    __slots__ = ("host", "names", "proved", "timer", "transport")

    transport: QuicTransport

    def __init__(self, host: str, *, proved: bool) -> None:
        self.host = host
        self.proved = proved  # the peer receives at its address
        self.names: set[bytes] = set()
        self.timer: asyncio.TimerHandle | None = None
