"""Times in a query: RFC 3339, or seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query

from underpass.core.errors import InvalidRequest

__all__ = ["Moment", "seconds"]

Moment = Annotated[
    str | None, Query(max_length=40, description="RFC 3339, or seconds since the epoch")
]


def seconds(name: str, text: str | None) -> float | None:
    """*text* as seconds since the epoch.

    Raises:
        InvalidRequest: it is neither form; the message names the parameter *name*.
    """
    if text is None or not text:
        return None
    try:
        value = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text.replace(" ", "+"))
        except ValueError:
            raise InvalidRequest(
                f"{name}: this is not a time such as 2026-01-02T03:04:05Z.",
                details={"field": name},
            ) from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not 0 <= value < 1e12:
        raise InvalidRequest(f"{name}: this time is out of range.", details={"field": name})
    return value
