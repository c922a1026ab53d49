"""Nonces of signed requests: each is good once, also across a restart of the gateway."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.core.clock import Clock
from underpass.core.errors import Conflict
from underpass.store.db.models import SeenNonce
from underpass.store.kv import KeyValueStore

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["WINDOW", "Nonces"]

WINDOW = 120.0
"""Seconds a signed timestamp may be off in either direction (spec 1)."""
_KEEP = 2 * WINDOW + 60
"""A request from 120 s ahead is acceptable for 240 s; the rest is for clocks that step."""
_SWEEP_EVERY = 256


class Nonces:
    """Remembers nonces in the key-value store (fast) and in the database (survives a restart)."""

    def __init__(self, database: Database, kv: KeyValueStore, clock: Clock) -> None:
        self._database = database
        self._kv = kv
        self._clock = clock
        self._until_sweep = _SWEEP_EVERY

    async def burn(self, purpose: str, signer: str, nonce: str) -> None:
        """Use *nonce* up. Call it only after the signature over it was verified.

        Args:
            purpose: ``register`` or ``request``; a nonce counts once per purpose and signer.
            signer: the client id.

        Raises:
            Conflict: it was used before (``replayed``).
            Unavailable: it cannot be remembered, so it must not be accepted.
        """
        digest = hashlib.sha256(f"{purpose}\n{signer}\n{nonce}".encode()).hexdigest()
        if not await self._kv.add(f"nonce:{digest}", b"1", ttl=_KEEP):
            raise _replayed()
        try:
            async with self._database.session() as db:
                await self._sweep(db)
                db.add(SeenNonce(nonce_hash=digest, expires_at=self._clock.now() + _KEEP))
        except IntegrityError:
            raise _replayed() from None

    async def _sweep(self, db: AsyncSession) -> None:
        self._until_sweep -= 1
        if self._until_sweep > 0:
            return
        self._until_sweep = _SWEEP_EVERY
        await db.execute(delete(SeenNonce).where(SeenNonce.expires_at < self._clock.now()))


def _replayed() -> Conflict:
    return Conflict(
        "This request has been seen before.",
        code="replayed",
        hint="Sign a new one with a new nonce.",
    )
