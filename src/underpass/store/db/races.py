"""Which failures of a transaction only say that somebody else was faster."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy.exc import DBAPIError, IntegrityError

__all__ = ["lost_race"]

_DEADLOCKS: Final = frozenset({"1205", "1213", "40001", "40P01"})
"""Lock wait timeout and deadlock of MariaDB, serialization failure and deadlock of PostgreSQL."""


def lost_race(error: DBAPIError) -> bool:
    """Whether trying again makes sense: it then works, or says what stands in the way."""
    if isinstance(error, IntegrityError):
        return True
    original: Any = error.orig
    code = getattr(original, "sqlstate", None) or next(iter(getattr(original, "args", ())), "")
    return str(code) in _DEADLOCKS
