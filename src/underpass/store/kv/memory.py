"""The key-value store of a single gateway: a dict that forgets on time and has a cap."""

from __future__ import annotations

import heapq

from underpass.core.clock import Clock
from underpass.core.errors import InvalidRequest, Unavailable

__all__ = ["MAX_KEY_LENGTH", "MemoryStore"]

MAX_KEY_LENGTH = 512


class MemoryStore:
    """A :class:`~underpass.store.kv.store.KeyValueStore` in this process's memory.

    Expiry uses the monotonic clock, so that a step of the wall clock neither revives nor kills an
    entry. Nothing awaits inside an operation, which makes each one atomic under asyncio.

    Args:
        clock: where time comes from.
        max_entries: cap on live entries; a write beyond it raises ``Unavailable`` rather than
            evicting, because a forgotten nonce or ticket would be a hole.
    """

    def __init__(self, clock: Clock, max_entries: int = 1_000_000) -> None:
        self._clock = clock
        self._max = max_entries
        self._entries: dict[str, tuple[bytes, float | None]] = {}
        self._expiries: list[tuple[float, str]] = []

    def __len__(self) -> int:
        self._sweep()
        return len(self._entries)

    async def get(self, key: str) -> bytes | None:
        return self._live(key)

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        self._put(key, value, self._deadline(ttl))

    async def add(self, key: str, value: bytes, ttl: float | None = None) -> bool:
        if self._live(key) is not None:
            return False
        self._put(key, value, self._deadline(ttl))
        return True

    async def take(self, key: str) -> bytes | None:
        value = self._live(key)
        if value is not None:
            del self._entries[key]
        return value

    async def incr(self, key: str, ttl: float | None = None) -> int:
        current = self._live(key)
        if current is None:
            self._put(key, b"1", self._deadline(ttl))
            return 1
        count = int(current) + 1
        self._entries[key] = (b"%d" % count, self._entries[key][1])
        return count

    async def delete(self, key: str) -> bool:
        present = self._live(key) is not None
        self._entries.pop(key, None)
        return present

    async def compare_and_set(
        self, key: str, expected: bytes | None, value: bytes | None, ttl: float | None = None
    ) -> bool:
        if self._live(key) != expected:
            return False
        if value is None:
            self._entries.pop(key, None)
        else:
            self._put(key, value, self._deadline(ttl))
        return True

    async def close(self) -> None:
        self._entries.clear()
        self._expiries.clear()

    def _deadline(self, ttl: float | None) -> float | None:
        return None if ttl is None else self._clock.monotonic() + ttl

    def _live(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, expires = entry
        if expires is not None and expires <= self._clock.monotonic():
            del self._entries[key]
            return None
        return value

    def _put(self, key: str, value: bytes, expires: float | None) -> None:
        if len(key) > MAX_KEY_LENGTH:
            raise InvalidRequest(f"The key is longer than {MAX_KEY_LENGTH} characters.")
        self._sweep()
        if key not in self._entries and len(self._entries) >= self._max:
            raise Unavailable(
                "The key-value store is full.",
                code="kv_full",
                hint="Wait a minute, or use Redis (--kv redis://…).",
                retry_after=10,
            )
        self._entries[key] = (value, expires)
        if expires is not None:
            heapq.heappush(self._expiries, (expires, key))
            if len(self._expiries) > 2 * self._max + 64:  # many rewrites of the same keys
                self._expiries = [
                    (when, name) for name, (_, when) in self._entries.items() if when is not None
                ]
                heapq.heapify(self._expiries)

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        while self._expiries and self._expiries[0][0] <= now:
            _, key = heapq.heappop(self._expiries)
            entry = self._entries.get(key)
            if entry is not None and entry[1] is not None and entry[1] <= now:
                del self._entries[key]
