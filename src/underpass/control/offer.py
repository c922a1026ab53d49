"""An offer as a value: one target, lent to whoever has the code, once, for a while (spec 4).

Pure: no I/O. Made, accepted and ended in ``offers``.
"""

from __future__ import annotations

from collections.abc import Mapping as Fields
from dataclasses import dataclass
from typing import Any, Final, Literal

from underpass.control.join_tokens import parse_lifetime
from underpass.control.mapping_options import bad
from underpass.control.mapping_requests import new_mapping
from underpass.core.clock import rfc3339
from underpass.core.errors import InvalidRequest

__all__ = [
    "ACCESS_LIFETIME",
    "CODE_LIFETIME",
    "MAX_ACCESS_LIFETIME",
    "Offer",
    "OfferStatus",
    "Wanted",
    "checked_lifetime",
    "offer_record",
    "wanted_offer",
]

CODE_LIFETIME: Final = 600.0
MAX_CODE_LIFETIME: Final = 24 * 3600.0
ACCESS_LIFETIME: Final = 8 * 3600.0
MAX_ACCESS_LIFETIME: Final = 30 * 24 * 3600.0
"""Whoever should have it longer should get a permission, which somebody looks after."""
_PROTOCOLS: Final = ("tcp", "unix")
_KNOWN: Final = frozenset({
    "protocol", "target_client_id", "target_host", "target_port", "target_path",
    "expires_in", "access_for",
})  # fmt: skip

OfferStatus = Literal["waiting", "accepted", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class Offer:
    """One offer; see the columns of ``store.db.offer_models.OfferRow``.

    Attributes:
        machine: what the machine is called now.
        machine_key: its key's fingerprint, for end-to-end encryption.
        maintenance: whether it is under maintenance now.
    """

    id: str
    user_id: str
    username: str
    agent_id: str
    machine: str
    target: str
    access_seconds: float
    created_at: float
    ends_at: float
    machine_key: str | None = None
    maintenance: bool = False
    accepted_at: float | None = None
    accepted_by: str | None = None
    accepted_username: str | None = None
    ended_at: float | None = None
    ended_how: Literal["expired", "revoked"] | None = None

    def status(self, now: float) -> OfferStatus:
        """What has become of it at *now* (Unix seconds), noticed or not."""
        if self.ended_how is not None:
            return self.ended_how
        if self.ends_at <= now:
            return "expired"
        return "waiting" if self.accepted_at is None else "accepted"

    def lets(self, user_id: str, agent_id: str, target: str, now: float) -> bool:
        """Whether it is what lets this person open *target* on the machine at *now*."""
        return (
            self.status(now) == "accepted"
            and self.accepted_by == user_id
            and self.agent_id == agent_id
            and self.target == target
        )

    def concerns(self, user_id: str) -> bool:
        """Whether this person made or accepted it."""
        return user_id in {self.user_id, self.accepted_by}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants to offer.

    Attributes:
        expires_in, access_for: seconds the code is good for, and the access got with it.
    """

    agent_id: str
    target: str
    expires_in: float
    access_for: float


def wanted_offer(wanted: Fields[str, Any]) -> Wanted:
    """What a request asks for; the fields of the target are those of mappings.

    Raises:
        InvalidRequest: a field is missing, malformed or unknown; the message names it.
    """
    for name in wanted:
        if name not in _KNOWN:
            known = ", ".join(sorted(_KNOWN))
            raise bad(str(name)[:40], "is not known here", hint=f"Known: {known}.")
    protocol = wanted.get("protocol", "tcp")
    if protocol not in _PROTOCOLS:
        raise bad("protocol", "must be tcp or unix", code="protocol_not_offered")
    target = {name: value for name, value in wanted.items() if name.startswith("target_")}
    mapping = new_mapping({"protocol": protocol, **target}, id="", user_id="", now=0.0)
    return Wanted(
        mapping.target_agent_id,
        mapping.target,
        checked_lifetime("expires_in", wanted.get("expires_in"), CODE_LIFETIME, MAX_CODE_LIFETIME),
        checked_lifetime(
            "access_for", wanted.get("access_for"), ACCESS_LIFETIME, MAX_ACCESS_LIFETIME
        ),
    )


def checked_lifetime(field: str, value: object, default: float, most: float) -> float:
    """*value* in seconds (``600``, ``"10m"``), or *default* for ``None``.

    Raises:
        InvalidRequest: it is no time, or more than *most* seconds.
    """
    try:
        seconds = parse_lifetime(value)
    except InvalidRequest:
        seconds = 0.0
    if seconds is None:
        return default
    if not 0 < seconds <= most:
        raise bad(field, f"must be seconds or a text such as 10m; at most {most / 3600:g} hours")
    return seconds


def offer_record(offer: Offer, now: float) -> dict[str, Any]:
    """The public fields of an offer; the code is not among them, ever."""
    return {
        "id": offer.id,
        "user_id": offer.user_id,
        "username": offer.username,
        "target_client_id": offer.agent_id,
        "machine": offer.machine,
        "machine_key": offer.machine_key,
        "target": offer.target,
        "status": offer.status(now),
        "access_for": offer.access_seconds,
        "created_at": rfc3339(offer.created_at),
        "expires_at": rfc3339(offer.ends_at),
        "accepted_by": offer.accepted_username,
        "accepted_at": None if offer.accepted_at is None else rfc3339(offer.accepted_at),
        "ended_at": None if offer.ended_at is None else rfc3339(offer.ended_at),
    }
