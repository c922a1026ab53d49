"""Ids and secrets: made with the CSPRNG, compared in constant time, stored hashed."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Callable

__all__ = ["IdMaker", "hash_secret", "is_id", "new_id", "new_secret", "secrets_equal"]

IdMaker = Callable[[], str]
"""What makes new ids; injected so that tests can predict them."""

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_id() -> str:
    """A random UUID (version 4) in canonical lower-case text."""
    return str(uuid.uuid4())


def is_id(text: str) -> bool:
    """Whether *text* is a canonical lower-case UUID; nothing else reaches a path or query."""
    return _ID.fullmatch(text) is not None


def new_secret(prefix: str = "", bits: int = 256) -> str:
    """A URL-safe random secret of at least *bits* of entropy, after *prefix* (e.g. ``"upt_"``)."""
    return prefix + secrets.token_urlsafe((bits + 7) // 8)


def hash_secret(secret: str) -> str:
    """SHA-256 in hex of a high-entropy *secret* (never of a password): what the database keeps."""
    return hashlib.sha256(secret.encode()).hexdigest()


def secrets_equal(left: str, right: str) -> bool:
    """Compare two secrets in time that does not depend on where they differ."""
    return hmac.compare_digest(left.encode(), right.encode())
