"""Whether UDP gets through to a gateway: a QUIC handshake, and nothing after it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from underpass.links.quic.dial import connect_quic

__all__ = ["Probe", "probe_quic"]


@dataclass(frozen=True, slots=True)
class Probe:
    """What a QUIC handshake found.

    Attributes:
        version: QUIC's.
        took: seconds until it was done.
        rtt: seconds to the gateway and back, smoothed.
    """

    version: int
    took: float
    rtt: float


async def probe_quic(
    host: str, port: int, *, fingerprint: str | None = None, verify: bool, timeout: float
) -> Probe:
    """Try QUIC with *host*:*port*; says nothing that proves anybody.

    Args:
        fingerprint: believe only the certificate with this fingerprint.
        verify: ask the authorities; without it whoever answers is taken for the gateway.
        timeout: seconds.

    Raises:
        Unavailable: nobody speaks QUIC there, or the certificate is not believed.
        OSError, TimeoutError: there is no way there, or no answer.
        InvalidRequest: the fingerprint or the certificates to believe are unusable.
    """
    started = time.perf_counter()
    async with asyncio.timeout(timeout):
        transport = await connect_quic(host, port, fingerprint=fingerprint, verify=verify)
    took = time.perf_counter() - started
    try:
        return Probe(transport.version, took, transport.rtt or took)
    finally:
        transport.abort()
        await asyncio.sleep(0)  # its last datagram leaves
