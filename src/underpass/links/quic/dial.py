"""Dialling a gateway over QUIC."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from qh3.quic.connection import QuicConnection

from underpass.core.errors import Unavailable
from underpass.links.quic.transport import QuicTransport
from underpass.links.quic.trust import binding_of, client_configuration
from underpass.links.quic.udp import Address, UdpSocket, client_socket

__all__ = ["connect_quic"]

_ADDRESSES: Final = 4
"""Addresses of a name that are tried."""
_SHARE: Final = 2.5
"""Seconds for each of them when there are several."""


async def connect_quic(
    host: str, port: int, *, fingerprint: str | None = None, verify: bool = True
) -> QuicTransport:
    """Connect a link transport to *host*:*port*. Put a deadline around it.

    Args:
        fingerprint: believe only the certificate with this fingerprint.
        verify: ask the authorities. False is only for a caller who runs the link handshake with a
            pinned key on it: that proves the certificate, by ``Transport.binding``.

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
                return await _connect(host, address, family, fingerprint, verify)
        except (OSError, TimeoutError) as error:
            last = error
        except Unavailable as error:
            if error.code not in ("connection_lost", "unreachable"):
                raise
            last = error
    raise last


async def _connect(
    host: str, address: Address, family: int, fingerprint: str | None, verify: bool
) -> QuicTransport:
    # Reading the authorities takes a few hundredths of a second.
    configuration = await asyncio.get_running_loop().run_in_executor(
        None, lambda: client_configuration(host, fingerprint=fingerprint, verify=verify)
    )
    quic = QuicConnection(configuration=configuration)
    udp = UdpSocket(client_socket(family))
    transport = QuicTransport(quic, udp.send, dialled=True, over=udp.close)
    udp.received, udp.failed = transport.received, transport.unreachable
    name, port = address[:2]
    transport.peer_address = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    try:
        transport.connect(address)
        await transport.connected()
        leaf = quic.get_peercert()
        if leaf is None:
            raise Unavailable("The gateway showed no certificate.", code="not_a_link")
        transport.binding = binding_of(leaf.public_bytes())
    except BaseException:
        transport.abort()
        raise
    return transport
