"""Whether another way to the gateway works, without making a link: as far as its CHALLENGE.

So it is known that the gateway itself answers there, with its pinned key, and nothing that proves
us has been said; the link there is does not notice.
"""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import underpass
from underpass.core.errors import Unavailable
from underpass.links.dial import DialIdentity, GatewayAddress
from underpass.links.transports.connection import connect
from underpass.links.transports.transport import Inbox, Transport
from underpass.links.trust import ALPN, client_context
from underpass.wire.handshake import Initiator

__all__ = ["probe_way"]


async def probe_way(
    server: str,
    identity: DialIdentity,
    way: Literal["tcp", "quic"],
    *,
    fingerprint: str | None = None,
    pinned_key: bytes | None = None,
    timeout: float = 5.0,
) -> float:
    """Seconds until the gateway at *server* has answered on this *way*.

    Raises:
        UnderpassError: it does not, or is another.
    """
    address = GatewayAddress.parse(server)
    transport: Transport | None = None
    started = time.perf_counter()
    try:
        async with asyncio.timeout(timeout):
            transport = await _connected(address, way, fingerprint)
            inbox = Inbox(transport)
            initiator = Initiator(
                identity,
                pinned_key=pinned_key,
                software=underpass.__version__,
                binding=transport.binding,
            )
            transport.write(initiator.data_to_send())
            while not initiator.data_to_send():  # AUTH, which is never sent
                initiator.feed(await inbox.read())
            return time.perf_counter() - started
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"No answer over {way}: {error}", code="unreachable") from error
    finally:
        if transport is not None:
            transport.abort()


async def _connected(address: GatewayAddress, way: str, fingerprint: str | None) -> Transport:
    if way == "tcp":
        context = client_context(fingerprint, alpn=(ALPN,)) if address.tls else None
        return await connect(address.host, address.port, tls=context)
    from underpass.links.quic.dial import connect_quic  # 12 MB only those who use it need

    return await connect_quic(
        address.host, address.port, fingerprint=fingerprint, verify=address.tls
    )
