"""Dialling a gateway: connect, prove who we are, get a link.

``auto`` tries the raw connection first (TLS for https, with ALPN ``underpass/1``), a WebSocket when
something in between does not let that through, and QUIC when TCP does not get there at all; a
refusal by the gateway itself is final for the attempt and never retried another way.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

import structlog

import underpass
from underpass.core.errors import InvalidRequest, TooLarge, Unavailable, UnderpassError
from underpass.links.link import Link, Peer
from underpass.links.transports.connection import connect
from underpass.links.transports.transport import Inbox, Transport
from underpass.links.transports.websocket import connect_websocket
from underpass.links.trust import ALPN, CertificateRejected, client_context
from underpass.wire.handshake import (
    AgentIdentity,
    ClientIdentity,
    Established,
    HandshakeError,
    Initiator,
    Refused,
)

__all__ = [
    "LINK_PATH",
    "DialFailed",
    "DialIdentity",
    "DialTransport",
    "GatewayAddress",
    "dial",
]

_log = structlog.get_logger(__name__)

DialIdentity = AgentIdentity | ClientIdentity
"""Who dials; see ``wire.handshake``."""
DialTransport = Literal["auto", "tcp", "websocket", "quic"]

QUIC_TIMEOUT: Final = 5.0
"""Seconds for QUIC at most: UDP is answered soon or not at all."""
RESUME_TIMEOUT: Final = 2.0
"""Seconds for resuming a session, before QUIC is begun anew."""

LINK_PATH: Final = "/api/v1/link"
"""Where a gateway takes links as WebSockets."""


class DialFailed(Unavailable):
    """The gateway could not be reached, or what answered is no gateway."""

    code = "dial_failed"


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where a gateway is, from its URL.

    Attributes:
        host: name or address, without brackets.
        path: path prefix when the gateway lives under one (WebSocket only), else ``""``.
    """

    host: str
    port: int
    tls: bool
    path: str = ""

    @classmethod
    def parse(cls, server: str) -> GatewayAddress:
        """Take a gateway's URL apart.

        Raises:
            InvalidRequest: it is not ``http(s)://HOST[:PORT]``.
        """
        text = server if "://" in server else f"http://{server}"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise InvalidRequest(
                f"{server!r} is no gateway address.",
                code="bad_server",
                hint="Give it as http://HOST:PORT or https://HOST[:PORT].",
            )
        tls = parts.scheme == "https"
        return cls(host, port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """``HOST:PORT``, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def websocket_url(self) -> str:
        """Where the WebSocket link is."""
        return f"{'wss' if self.tls else 'ws'}://{self.authority}{self.path}{LINK_PATH}"


async def dial(
    server: str,
    identity: DialIdentity,
    *,
    transport: DialTransport = "auto",
    fingerprint: str | None = None,
    pinned_key: bytes | None = None,
    timeout: float = 10.0,
    features: frozenset[str] = frozenset(),
    on_established: Callable[[Established], None] | None = None,
) -> Link:
    """Make a link to the gateway at *server*.

    Args:
        server: the gateway's URL, ``http(s)://HOST[:PORT]``.
        identity: who we are.
        transport: ``tcp`` (TLS for https), ``websocket``, ``quic``, or ``auto``: one after the
            other, in this order.
        fingerprint: believe only the certificate with this fingerprint (``sha256:…``).
        pinned_key: the gateway's raw Ed25519 key, when known.
        timeout: seconds for each way that is tried.
        features: what we can do, shown to the gateway.
        on_established: told what the handshake found (node key, server time, settings).

    Returns:
        a link that reads nothing before ``start`` (``open`` and ``request`` start it too), so that
        handlers can be set first.

    Raises:
        Refused: the gateway said no.
        HandshakeError: what answered is not the gateway it should be.
        CertificateRejected, DialFailed: no connection.
        InvalidRequest: *server* or *fingerprint* is malformed.
    """
    address = GatewayAddress.parse(server)
    call = _Call(address, identity, fingerprint, pinned_key, timeout, features, on_established)
    if transport == "websocket":
        return await call.websocket()
    if transport == "tcp":
        return await call.raw()
    if transport == "quic":
        return await call.quic()
    if address.path:
        return await call.websocket()  # below a path there is an HTTP proxy for sure
    try:
        return await call.raw()
    except (HandshakeError, DialFailed) as error:
        if not _worth_another_way(error):
            raise
        _log.debug("raw_link_failed", server=address.authority, code=error.code)
        first = error
    if first.code != "unreachable":
        try:
            return await call.websocket()
        except DialFailed as error:
            _log.debug("websocket_link_failed", server=address.authority, code=error.code)
    if call.proves_certificate:
        try:
            return await call.quic()
        except (DialFailed, CertificateRejected) as error:
            _log.debug("quic_link_failed", server=address.authority, code=error.code)
    # The other ways are only guesses; what the first one met says more.
    raise first


def _worth_another_way(error: UnderpassError) -> bool:
    if isinstance(error, Refused | CertificateRejected):
        return False
    return error.code in {
        "not_a_link", "too_large", "bad_message", "truncated", "timeout", "connection_lost",
        "unreachable",
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Call:
    address: GatewayAddress
    identity: DialIdentity
    fingerprint: str | None
    pinned_key: bytes | None
    timeout: float
    features: frozenset[str]
    on_established: Callable[[Established], None] | None

    @property
    def proves_certificate(self) -> bool:
        """Whether something says which QUIC certificate is the gateway's.

        Authorities do for https, a fingerprint does anywhere, and a pinned key does because the
        handshake covers the certificate.
        """
        return self.address.tls or self.fingerprint is not None or self.pinned_key is not None

    async def raw(self) -> Link:
        context = client_context(self.fingerprint, alpn=(ALPN,)) if self.address.tls else None
        return await self._attempt(
            lambda: connect(self.address.host, self.address.port, tls=context), self.timeout
        )

    async def websocket(self) -> Link:
        context = client_context(self.fingerprint) if self.address.tls else None
        return await self._attempt(
            lambda: connect_websocket(self.address.websocket_url, tls=context), self.timeout
        )

    async def quic(self) -> Link:
        if not self.proves_certificate:
            raise InvalidRequest(
                f"QUIC to {self.address.authority} needs something to know its certificate by.",
                code="quic_unverified",
                hint="Enrol or sign in first (that pins the gateway's key), or give --fingerprint.",
            )
        # 12 MB only those who use it need.
        from underpass.links.quic.dial import connect_quic, resume_quic
        from underpass.links.quic.kept import SESSIONS

        where = self.address
        key = (where.host, where.port, self.fingerprint, where.tls)
        session = SESSIONS.take(key)
        if session is not None:
            try:
                return await self._attempt(
                    lambda: resume_quic(key, session, sessions=SESSIONS),
                    min(self.timeout, RESUME_TIMEOUT),
                )
            except DialFailed as error:
                _log.debug("quic_not_resumed", server=where.authority, code=error.code)
        return await self._attempt(
            lambda: connect_quic(
                where.host,
                where.port,
                fingerprint=self.fingerprint,
                verify=where.tls,
                sessions=SESSIONS,
            ),
            min(self.timeout, QUIC_TIMEOUT),
        )

    async def _attempt(
        self, connecting: Callable[[], Awaitable[Transport]], timeout: float
    ) -> Link:
        transport: Transport | None = None
        where = self.address.authority
        try:
            async with asyncio.timeout(timeout):
                transport = await connecting()
                link, established = await self._handshake(transport)
        except BaseException as error:
            if transport is not None:
                transport.abort()
            if isinstance(error, HandshakeError) or not isinstance(error, Exception):
                raise
            raise _explained(error, where, timeout) from error
        if self.on_established is not None:
            self.on_established(established)
        return link

    async def _handshake(self, transport: Transport) -> tuple[Link, Established]:
        inbox = Inbox(transport)
        initiator = Initiator(
            self.identity,
            pinned_key=self.pinned_key,
            software=underpass.__version__,
            features=self.features,
            binding=transport.binding,
        )
        established: Established | None = None
        while established is None:
            transport.write(initiator.data_to_send())
            established = initiator.feed(await inbox.read())
        link = Link(
            transport,
            Peer(
                role="node",
                id=established.node_id,
                name=self.address.authority,
                address=transport.peer_address,
                version=str(established.version),
                features=established.features,
            ),
            dialler=True,
            id=established.link_id,
            leftover=established.rest + inbox.detach(),
        )
        return link, established


def _explained(error: Exception, where: str, timeout: float) -> Exception:
    """What a failed attempt means for the person who asked for it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if isinstance(error.__cause__, CertificateRejected):
            return error.__cause__
        reason = getattr(error, "verify_message", "") or str(error)
        return CertificateRejected(
            f"The certificate of {where} is not believed: {reason}.",
            hint="Give --fingerprint for a self-made one, SSL_CERT_FILE for your own authority.",
        )
    if isinstance(error, TimeoutError):
        return DialFailed(
            f"The gateway at {where} did not answer within {timeout:g} seconds.", code="timeout"
        )
    if isinstance(error, ssl.SSLError):
        return DialFailed(
            f"No TLS with {where}: {error.reason or error}.",
            code="not_a_link",
            hint="Is it an http:// address?",
        )
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return DialFailed(f"{where} closed the connection.", code="connection_lost")
    if isinstance(error, OSError):
        return DialFailed(
            f"The gateway at {where} cannot be reached: {error.strerror or error}.",
            code="unreachable",
        )
    if isinstance(error, TooLarge):
        return DialFailed(f"What answers at {where} is no gateway.", code="not_a_link")
    if isinstance(error, Unavailable) and not isinstance(error, CertificateRejected):
        return DialFailed(f"The gateway at {where}: {error.message}", code=error.code)
    return error
