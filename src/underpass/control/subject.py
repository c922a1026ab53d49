"""Who is asking: the authenticated subject every decision is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Role", "Subject"]

Role = Literal["admin", "auditor", "user", "guest"]
"""``guest``: nobody's account, good for one-time codes alone (``control.guest``)."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A signed-in person, from the session or token, never from a request body.

    Attributes:
        user_id: the user's id.
        username: for logs, events and tickets.
        role: ``admin``, ``auditor``, ``user`` or ``guest``.
        via: how they proved it: ``session`` (cookie), ``token`` (API token or bearer login).
        credential_id: id of the login session or API token row, so that revoking it can be traced.
        ip: where the request came from, after trusted proxies.
    """

    user_id: str
    username: str
    role: Role
    via: Literal["session", "token"] = "session"
    credential_id: str = ""
    ip: str | None = None

    @property
    def sees_all(self) -> bool:
        """Whether other people's things are shown to them."""
        return self.role in {"admin", "auditor"}

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"
