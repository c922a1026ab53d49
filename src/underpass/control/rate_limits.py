"""How often is too often: fixed-window counters on the key-value store, and what an address is."""

from __future__ import annotations

import ipaddress

from underpass.core.clock import Clock
from underpass.core.errors import TooManyRequests
from underpass.store.kv import KeyValueStore

__all__ = ["RateLimits", "address_key"]


def address_key(ip: str | None) -> str:
    """What counts as one address: IPv4 as it is, IPv6 as its /64 (one customer, not one of 2⁶⁴)."""
    if not ip:
        return "unknown"
    try:
        address = ipaddress.ip_address(ip.split("%", 1)[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False).network_address) + "/64"
    return str(address)


class RateLimits:
    """Counts attempts per name and key in windows of a fixed length.

    A burst over a window's edge can reach twice the limit; for the limits here (probing ids,
    guessing codes) that is as good as exact, and one ``incr`` is all it costs.
    """

    def __init__(self, kv: KeyValueStore, clock: Clock) -> None:
        self._kv = kv
        self._clock = clock

    async def hit(self, name: str, key: str, limit: int, period: float) -> int:
        """Count one attempt.

        Args:
            name: what is limited, e.g. ``"tty-authorize"``.
            key: who is limited, e.g. a user id or :func:`address_key` of an address.
            limit: attempts allowed in a window.
            period: length of the window in seconds.

        Returns:
            The number of attempts in this window, this one included.

        Raises:
            TooManyRequests: the limit is passed; ``retry_after`` is the rest of the window.
        """
        now = self._clock.now()
        window = int(now // period)
        count = await self._kv.incr(f"rate:{name}:{key[:200]}:{window}", ttl=period * 2)
        if count > limit:
            wait = max(1.0, (window + 1) * period - now)
            raise TooManyRequests(
                "Too many requests.",
                hint=f"Try again in {int(wait + 0.999)} s.",
                retry_after=wait,
            )
        return count
