"""Ending credentials: a person's logins, and with them the access tokens made from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.store.db.models import ApiToken, LoginSession

__all__ = ["FROM", "end_logins", "revoke_made_from", "working"]

FROM: Final = "from:"
"""Prefix of the scope that names the credential an access token was made from."""


async def end_logins(db: AsyncSession, user_id: str, now: float, *, keep: str | None = None) -> int:
    """End every login of a user, except the one with id *keep*; returns how many ended."""
    mine = select(LoginSession.id).where(LoginSession.user_id == user_id)
    ids = [one for one in await db.scalars(mine) if one != keep]
    if ids:
        await revoke_made_from(db, user_id, ids, now)
        await db.execute(delete(LoginSession).where(LoginSession.id.in_(ids)))
    return len(ids)


async def revoke_made_from(
    db: AsyncSession, user_id: str, credentials: Sequence[str], now: float
) -> None:
    """Revoke a person's access tokens that were made from *credentials* (ids)."""
    rows = await db.scalars(select(ApiToken).where(ApiToken.user_id == user_id, *working(now)))
    wanted = {f"{FROM}{one}" for one in credentials}
    ids = [row.id for row in rows if wanted.intersection(row.scopes)]
    if ids:
        await db.execute(update(ApiToken).where(ApiToken.id.in_(ids)).values(revoked_at=now))


def working(now: float) -> tuple[Any, ...]:
    """The conditions under which an API token works at *now*."""
    return (
        ApiToken.revoked_at.is_(None),
        cast(Any, ApiToken.expires_at.is_(None)) | (ApiToken.expires_at > now),
    )
