"""Letting guests in: a login for codes alone, how many a minute, and whether it still counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from underpass.control.events import Events
from underpass.control.guest import LIFETIME, GuestMode, GuestTokens, guest_name
from underpass.control.guest_quota import GuestQuota
from underpass.control.identities import Identity
from underpass.control.rate_limits import RateLimits, address_key
from underpass.control.subject import Subject
from underpass.core.clock import Clock
from underpass.core.errors import Forbidden

__all__ = ["GuestLogin", "Guests"]

LOGINS: Final = 30
"""Logins an address gets in an hour; each command of a guest takes one."""
ALL_LOGINS: Final = 2000
"""Logins of all addresses in an hour; each is a line in the audit trail."""


@dataclass(frozen=True, slots=True)
class GuestLogin:
    """What a guest gets; ``token`` is shown this once."""

    token: str
    subject: Subject
    expires_in: float


class Guests:
    """The guests of a gateway.

    Attributes:
        mode: what guests may; ``off``: their logins count for nothing.
        quota: what they have used.

    Args:
        secret: what their tokens are signed with.
    """

    def __init__(
        self, mode: GuestMode, secret: bytes, clock: Clock, *, events: Events, limits: RateLimits
    ) -> None:
        self.mode: GuestMode = mode
        self.quota = GuestQuota(clock)
        self._tokens = GuestTokens(secret)
        self._clock = clock
        self._events = events
        self._limits = limits

    async def admit(self, ip: str | None) -> GuestLogin:
        """Let somebody in as a guest.

        Raises:
            Forbidden: code ``no_guests``: this gateway has none.
            TooManyRequests: too many logins from this address.
        """
        if self.mode == "off":
            raise Forbidden(
                "This gateway allows no guests.", code="no_guests",
                hint="Sign in with: underpass login; an admin may allow guests (--guests).",
                details={"rule": "guests:off"},
            )  # fmt: skip
        await self._limits.hit("guest-login", address_key(ip), LOGINS, 3600.0)
        await self._limits.hit("guest-login", "everybody", ALL_LOGINS, 3600.0)
        token, guest_id, end = self._tokens.make(self._clock.now())
        subject = _subject(guest_id, end, ip)
        await self._events.record("guest.admitted", actor=subject, ip=ip)
        return GuestLogin(token, subject, LIFETIME)

    def identify(self, token: str) -> Identity | None:
        """The guest behind *token*; ``None`` when it counts for nothing (any more)."""
        if self.mode == "off":
            return None
        found = self._tokens.read(token, self._clock.now())
        return None if found is None else Identity(_subject(*found, None), "", found[1])

    def still_valid(self, subject: Subject) -> bool:
        """Whether a guest's login still counts; for links, which last."""
        return self.mode != "off" and guest_end(subject) > self._clock.now()

    def require_offering(self) -> None:
        """Raises:
        Forbidden: code ``guests_may_not_offer``.
        """
        if self.mode != "all":
            raise Forbidden(
                "Guests of this gateway may use codes, not make them.",
                code="guests_may_not_offer",
                hint="Sign in with: underpass login",
                details={"rule": f"guests:{self.mode}"},
            )


_CREDENTIAL: Final = "guest:"


def _subject(guest_id: str, end: float, ip: str | None) -> Subject:
    return Subject(
        guest_id, guest_name(guest_id), "guest", via="token",
        credential_id=f"{_CREDENTIAL}{int(end)}", ip=ip,
    )  # fmt: skip


def guest_end(subject: Subject) -> float:
    """When a guest's login ends, Unix seconds; 0 for what is no guest's."""
    end = subject.credential_id.removeprefix(_CREDENTIAL)
    return float(end) if subject.role == "guest" and end.isdigit() else 0.0
