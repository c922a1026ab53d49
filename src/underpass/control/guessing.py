"""How fast one may guess a secret: exponential pauses per name and address, and per address.

All counters are per address, so guessing from one address never keeps the rightful person, at
another, from signing in. Pure counting; who guesses what is the caller's business.
"""

from __future__ import annotations

from typing import Final

from underpass.control.rate_limits import address_key
from underpass.core.clock import Clock
from underpass.core.errors import TooManyRequests
from underpass.store.kv import KeyValueStore

__all__ = ["FREE_TRIES", "FREE_TRIES_PER_ADDRESS", "LONGEST_WAIT", "Guessing"]

FREE_TRIES: Final = 5
"""Failures for one name from one address before the next try has to wait."""
FREE_TRIES_PER_ADDRESS: Final = 30
"""The same for an address, whatever the names: somebody walking through a list of users."""
LONGEST_WAIT: Final = 300.0
FORGET_AFTER: Final = 900.0


class Guessing:
    """Counts failures and says when the next try may come: after 1, 2, 4, … at most 300 s."""

    def __init__(self, kv: KeyValueStore, clock: Clock) -> None:
        self._kv = kv
        self._clock = clock

    async def check(self, name: str, ip: str | None) -> None:
        """Refuse a try that comes before its time.

        Raises:
            TooManyRequests: code ``slow_down``; ``retry_after`` says how long to wait.
        """
        now = self._clock.now()
        for key, _ in _counters(name, ip):
            until = await self._kv.get(f"{key}:until")
            if until is not None and float(until) > now:
                wait = float(until) - now
                raise TooManyRequests(
                    "Too many wrong tries from your address.",
                    code="slow_down",
                    hint=f"Try again in {int(wait + 0.999)} s.",
                    retry_after=wait,
                )

    async def failed(self, name: str, ip: str | None) -> None:
        """Count a wrong try of *name* from *ip*."""
        now = self._clock.now()
        for key, free in _counters(name, ip):
            failures = await self._kv.incr(f"{key}:failures", ttl=FORGET_AFTER)
            if failures >= free:
                wait = min(LONGEST_WAIT, 2.0 ** min(failures - free, 20))
                await self._kv.set(f"{key}:until", repr(now + wait).encode(), ttl=wait)

    async def forgive(self, name: str, ip: str | None) -> None:
        """After a success *name* starts afresh here. The address as a whole does not, or one known
        password would let it guess others without end."""
        (key, _), *_ = _counters(name, ip)
        await self._kv.delete(f"{key}:failures")
        await self._kv.delete(f"{key}:until")


def _counters(name: str, ip: str | None) -> tuple[tuple[str, int], tuple[str, int]]:
    address = address_key(ip)
    return (
        (f"guess:{address}:{name[:128]}", FREE_TRIES),
        (f"guess:{address}:", FREE_TRIES_PER_ADDRESS),
    )
