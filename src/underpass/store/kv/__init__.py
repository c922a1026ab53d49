"""Key-value stores for what lives seconds to minutes: nonces, tickets, rate limits, presence."""

from __future__ import annotations

from underpass.store.kv.memory import MemoryStore
from underpass.store.kv.store import KeyValueStore

__all__ = ["KeyValueStore", "MemoryStore"]
