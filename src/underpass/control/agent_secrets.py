"""The agents' shared secrets: made at approval, encrypted at rest, opened to check a signature."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import select

from underpass.core.errors import Internal
from underpass.store.db.models import Agent

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["SECRET_BYTES", "AgentSecrets"]

SECRET_BYTES = 32

_VERSION = "1:"
_NONCE_BYTES = 12


class AgentSecrets:
    """Keeps 32-byte secrets in ``assets.agent_secret_key`` under AES-256-GCM.

    The agent's id is the associated data, so a row's secret cannot be moved to another machine.

    Args:
        database: where the rows are.
        key: 32 bytes from the gateway's state directory (``GatewaySecrets.database_key``).
    """

    def __init__(self, database: Database, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError("the database key must have 32 bytes")
        self._database = database
        self._cipher = AESGCM(key)

    def make(self) -> bytes:
        """A new secret of 32 random bytes."""
        return secrets.token_bytes(SECRET_BYTES)

    def seal(self, agent_id: str, secret: bytes) -> str:
        """What the database keeps: version, then nonce, ciphertext and tag in base64."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, secret, agent_id.encode())
        return _VERSION + base64.b64encode(sealed).decode()

    def unseal(self, agent_id: str, sealed: str) -> bytes:
        """The secret again.

        Raises:
            Internal: it was sealed under another gateway key, or for another machine.
        """
        try:
            if not sealed.startswith(_VERSION):
                raise InvalidTag
            raw = base64.b64decode(sealed[len(_VERSION) :], validate=True)
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], agent_id.encode())
        except (InvalidTag, ValueError):
            raise Internal(
                "The machine's secret cannot be decrypted with this gateway's key.",
                code="wrong_gateway_key",
                hint="Restore the key from the gateway's state directory, or let it enrol again.",
            ) from None

    async def of(self, agent_id: str) -> bytes | None:
        """The secret of an enrolled machine; ``None`` when it is unknown or deleted.

        Raises:
            Internal: see :meth:`unseal`.
        """
        async with self._database.reading() as db:
            sealed = await db.scalar(
                select(Agent.agent_secret_key).where(
                    Agent.id == agent_id, Agent.is_deleted.is_(False)
                )
            )
        return None if sealed is None else self.unseal(agent_id, sealed)
