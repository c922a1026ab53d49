"""Dialling a gateway over QUIC."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from qh3.quic.connection import QuicConnection
from qh3.tls import SessionTicket

from underpass.core.errors import Unavailable
from underpass.links.quic.sessions import KeptSession, KeptSessions, SessionKey
from underpass.links.quic.transport import QuicTransport
from underpass.links.quic.trust import binding_of, client_configuration
from underpass.links.quic.udp import Address, UdpSocket, client_socket

__all__ = ["connect_quic", "resume_quic"]

_ADDRESSES: Final = 4
"""Addresses of a name that are tried."""
_SHARE: Final = 2.5
"""Seconds for each of them when there are several."""


async def connect_quic(
    host: str,
    port: int,
    *,
    fingerprint: str | None = None,
    verify: bool = True,
    sessions: KeptSessions | None = None,
) -> QuicTransport:
    """Connect a link transport to *host*:*port*. Put a deadline around it.

    Args:
        fingerprint: believe only the certificate with this fingerprint.
        verify: ask the authorities. False is only for a caller who runs the link handshake with a
            pinned key on it: that proves the certificate, by ``Transport.binding``.
        sessions: where the TLS session is kept once the link's handshake has succeeded.

    Raises:
        CertificateRejected: the certificate is not believed.
        Unavailable: code ``unreachable`` or ``connection_lost``: nobody speaks QUIC there.
        OSError: there is no way there.
        InvalidRequest: the fingerprint or the certificates to believe are unusable.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    last: Exception = OSError(f"no address for {host}")
    for family, _, _, _, address in found[:_ADDRESSES]:
        try:
            async with asyncio.timeout(_SHARE if len(found) > 1 else None):
                return await _connect(
                    (host, port, fingerprint, verify), address, family, sessions=sessions
                )
        except (OSError, TimeoutError) as error:
            last = error
        except Unavailable as error:
            if error.code not in ("connection_lost", "unreachable"):
                raise
            last = error
    raise last


async def resume_quic(
    key: SessionKey, session: KeptSession, *, sessions: KeptSessions
) -> QuicTransport:
    """Resume *session*: the transport is there at once, and what is written in this turn of the
    event loop leaves with the first flight.

    That is *early data*: somebody who records it can send it once more. So nothing may be written
    before the peer has answered but what may be said twice: HELLO.

    Whether the gateway is there, and still the same, shows when something is read: as
    :func:`connect_quic` raises, and ``Unavailable``, code ``certificate_changed``.
    """
    return await _connect(key, session.address, session.family, sessions=sessions, session=session)


async def _connect(
    key: SessionKey,
    address: Address,
    family: int,
    *,
    sessions: KeptSessions | None,
    session: KeptSession | None = None,
) -> QuicTransport:
    host, _, fingerprint, verify = key
    # Reading the authorities takes a few hundredths of a second.
    configuration = await asyncio.get_running_loop().run_in_executor(
        None, lambda: client_configuration(host, fingerprint=fingerprint, verify=verify)
    )
    if session is not None:
        configuration.session_ticket = session.ticket
    tickets: list[SessionTicket] = []

    def given(ticket: SessionTicket) -> None:
        tickets[:] = [ticket]
        if transport.trusted:
            keep()

    def keep() -> None:
        # Only now the gateway's key has vouched for the certificate the session stands for.
        if tickets and sessions is not None:
            sessions.keep(key, KeptSession(tickets.pop(), transport.binding, address, family))

    def settled() -> None:
        context = quic.tls
        if context is not None and context.session_resumed:
            return
        leaf = quic.get_peercert()
        if leaf is None:
            transport.give_up(Unavailable("No certificate was shown.", code="not_a_link"))
            return
        binding = binding_of(leaf.public_bytes())
        if session is not None and binding != session.binding:
            # HELLO is said, and the rest of the handshake would be bound to the old one.
            transport.give_up(
                Unavailable("The gateway has another certificate.", code="certificate_changed")
            )
        transport.binding = binding

    quic = QuicConnection(configuration=configuration, session_ticket_handler=given)
    udp = UdpSocket(client_socket(family))
    transport = QuicTransport(quic, udp.send, dialled=True, over=udp.close)
    transport.settled, transport.on_trusted = settled, keep
    udp.received, udp.failed = transport.received, transport.unreachable
    name, port = address[:2]
    transport.peer_address = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    try:
        transport.connect(address)
        if session is not None:
            transport.binding = session.binding
        else:
            await transport.connected()
    except BaseException:
        transport.abort()
        raise
    return transport
