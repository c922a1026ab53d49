"""What a person may use, as a value, and the calendar its months follow. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping as Fields
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

from underpass.core.clock import rfc3339, utc
from underpass.core.errors import InvalidRequest, TooManyRequests

__all__ = [
    "WARN_AT", "Quota", "bytes_text", "checked_limits", "month_of", "over_count", "renews_at",
    "traffic_used_up",
]  # fmt: skip

WARN_AT: Final = 0.8
"""The part of a month's traffic at which its owner's trail gets a warning."""
_MOST: Final = 2**53 - 1
"""The largest whole number that every JSON reader keeps exactly."""
_LEAST: Final = {"bandwidth": 1024}
"""Below 1 KiB a second no connection gets anywhere before it times out; to let nothing through
there is ``monthly_traffic``. Everything else may be 0."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What one person may use (spec 4); ``None``: no limit of their own.

    Attributes:
        max_clients: machines they let in, by approval or with a join token of theirs.
        max_mappings: mappings, disabled ones included.
        max_active_mappings: mappings that are not disabled.
        max_connections_per_mapping: connections or flows of each mapping at a time.
        bandwidth: bytes a second of all their tunnels together, each direction by itself.
        monthly_traffic: bytes of all their tunnels, both directions together, in a calendar
            month (UTC).
        max_workspaces: workspaces.
        max_sessions: terminal sessions at a time.
    """

    max_clients: int | None = None
    max_mappings: int | None = None
    max_active_mappings: int | None = None
    max_connections_per_mapping: int | None = None
    bandwidth: int | None = None
    monthly_traffic: int | None = None
    max_workspaces: int | None = None
    max_sessions: int | None = None

    def with_limits(self, limits: Fields[str, int | None]) -> Quota:
        """The same with *limits* in their place; names it does not know (a newer node's) are
        left out."""
        return Quota(**asdict(self) | {key: limits[key] for key in limits if key in _NAMES})

    def to_json(self) -> dict[str, int | None]:
        """Every limit by its name."""
        return asdict(self)


_NAMES: Final = frozenset(field.name for field in fields(Quota))


def checked_limits(wanted: Fields[str, Any]) -> dict[str, int | None]:
    """The limits that *wanted* names, each a whole number or ``None`` for no limit.

    Raises:
        InvalidRequest: one is no such number, or no limit has that name; the message says which.
    """
    for name, value in wanted.items():
        if name not in _NAMES:
            raise InvalidRequest(
                f"{name[:40]}: there is no such limit.", hint=f"There are {_names_text()}.",
                details={"field": name[:40]},
            )  # fmt: skip
        least = _LEAST.get(name, 0)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and least <= value <= _MOST):
            raise InvalidRequest(
                f"{name}: must be a whole number from {least}, or null for no limit.",
                details={"field": name},
            )
    return dict(wanted)


def _names_text() -> str:
    return ", ".join(field.name for field in fields(Quota))


def month_of(now: float) -> str:
    """The calendar month (UTC) of *now*, Unix seconds, as ``2026-01``."""
    return utc(now).strftime("%Y-%m")


def renews_at(now: float) -> float:
    """When the month after *now* begins, Unix seconds."""
    moment = utc(now)
    year, month = (moment.year + 1, 1) if moment.month == 12 else (moment.year, moment.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()


def over_count(
    name: str, what: str, limit: int, used: int, *, undo: str = "Delete or disable"
) -> TooManyRequests:
    """The refusal of one more *what* (in the plural) than the limit *name* allows.

    Args:
        undo: what to do with one to have room again.
    """
    return TooManyRequests(
        f"The quota allows {limit} {what}, and there are {used}.",
        code="quota_exceeded",
        hint=f"{undo} one that is no longer needed, or ask an admin to raise the quota.",
        details={"quota": name, "limit": limit, "used": used},
    )


def traffic_used_up(limit: int, used: int, now: float) -> TooManyRequests:
    """The refusal of streams when the month's traffic is used up, which says when it renews."""
    renews = renews_at(now)
    return TooManyRequests(
        f"This month's traffic is used up: {bytes_text(used)} of the {bytes_text(limit)} that "
        "the quota allows.",
        code="quota_exceeded",
        hint=f"It renews on {utc(renews):%Y-%m-%d} at 00:00 UTC; an admin can raise it before.",
        retry_after=max(1.0, renews - now),
        details={
            "quota": "monthly_traffic", "limit": limit, "used": used, "renews_at": rfc3339(renews),
        },
    )  # fmt: skip


def bytes_text(count: int) -> str:
    """*count* bytes for people: ``950 B``, ``1.5 MB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.3g} {unit}" if amount < 1000 else f"{amount:.0f} {unit}"
