"""Guests: people without an account, who may lend and borrow with one-time codes (spec 4).

Pure: their ids, and the token that proves one. A token is signed and not stored: it holds nothing
but a made-up id and when it ends, lasts over restarts, and is good for nothing but codes
(``control.subject.Role`` ``guest``, which every check refuses that does not name it).
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final, Literal

__all__ = [
    "GUEST_PREFIX",
    "LIFETIME",
    "GuestMode",
    "GuestTokens",
    "guest_name",
    "is_guest",
]

GuestMode = Literal["off", "accept", "all"]
"""What guests may: nothing, use others' codes, or make codes for ports of their own, too."""

GUEST_PREFIX: Final = "upg_"
LIFETIME: Final = 12 * 3600.0
"""Seconds a guest's login lasts."""
_ID: Final = "guest:"
_HEX: Final = 30
_LABEL: Final = b"underpass guest token 1\0"
_MAX_TOKEN: Final = 200


def is_guest(user_id: str) -> bool:
    """Whether this is a guest's id. No user's, and no machine's, looks like one."""
    return user_id.startswith(_ID)


def guest_name(guest_id: str) -> str:
    """What a guest is called in lists and events."""
    return f"guest-{guest_id.removeprefix(_ID)[:8]}"


class GuestTokens:
    """Makes and reads guests' tokens.

    Args:
        secret: 32 bytes that only this gateway (or its cluster) has.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"underpass guests", "sha256")

    def make(self, now: float) -> tuple[str, str, float]:
        """A new guest's token, id, and end in Unix seconds."""
        guest, end = secrets.token_hex(_HEX // 2), int(now + LIFETIME)
        return f"{GUEST_PREFIX}{guest}.{end}.{self._sign(guest, end)}", _ID + guest, float(end)

    def read(self, token: str, now: float) -> tuple[str, float] | None:
        """The id and end in *token*; ``None`` when we did not make it, or it has ended."""
        if len(token) > _MAX_TOKEN or not token.isascii() or not token.startswith(GUEST_PREFIX):
            return None
        guest, _, rest = token.removeprefix(GUEST_PREFIX).partition(".")
        end, _, signature = rest.partition(".")
        if not end.isdigit() or not hmac.compare_digest(self._sign(guest, end), signature):
            return None
        return (_ID + guest, float(end)) if float(end) > now else None

    def _sign(self, guest: str, end: int | str) -> str:
        return hmac.digest(self._key, _LABEL + f"{guest}.{end}".encode(), "sha256").hex()
