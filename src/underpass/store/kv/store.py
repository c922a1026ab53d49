"""What a key-value store must do: presence, nonces, one-time tickets, rate limits, caches."""

from __future__ import annotations

from typing import Protocol

__all__ = ["KeyValueStore"]


class KeyValueStore(Protocol):
    """Short-lived facts shared by everything in a gateway (later: by every node of a cluster).

    Keys are text of at most 512 characters, values bytes. ``ttl`` is in seconds; ``None`` keeps the
    entry until it is deleted. Every operation is atomic. A store that is full or unreachable raises
    :class:`~underpass.core.errors.Unavailable`: a nonce that cannot be remembered is refused, not
    forgotten.
    """

    async def get(self, key: str) -> bytes | None:
        """The value of *key*, or ``None`` when there is none or it has expired."""
        ...

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Store *value*, replacing what was there, and its time to live too."""
        ...

    async def add(self, key: str, value: bytes, ttl: float | None = None) -> bool:
        """Store *value* only when *key* is absent; whether it was stored (nonces, locks)."""
        ...

    async def take(self, key: str) -> bytes | None:
        """Get and delete in one step: of two takers exactly one gets the value (tickets)."""
        ...

    async def incr(self, key: str, ttl: float | None = None) -> int:
        """Count up by one and return the count; ``ttl`` applies when the count starts (limits)."""
        ...

    async def delete(self, key: str) -> bool:
        """Remove *key*; whether it was there."""
        ...

    async def compare_and_set(
        self, key: str, expected: bytes | None, value: bytes | None, ttl: float | None = None
    ) -> bool:
        """Replace *expected* by *value* if that is what is stored; whether it was.

        ``None`` as *expected* means absent, ``None`` as *value* means delete (routes by epoch).
        """
        ...

    async def close(self) -> None:
        """Release connections; the store must not be used afterwards."""
        ...
