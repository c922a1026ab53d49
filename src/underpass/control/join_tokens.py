"""Join tokens: secrets that let machines in at once, so many times, until a given time."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import CursorResult, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.events import Events
from underpass.control.labels import checked_labels
from underpass.control.subject import Subject
from underpass.core.clock import Clock, rfc3339
from underpass.core.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from underpass.core.ids import IdMaker, hash_secret, new_id, new_secret
from underpass.store.db.models import JoinToken

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["DEFAULT_LIFETIME", "JoinTokens", "join_command", "parse_lifetime"]

DEFAULT_LIFETIME = 24 * 3600.0
MAX_LIFETIME = 366 * 24 * 3600.0
MAX_USES = 100_000

_PREFIX = "upj_"
_TOKEN = re.compile(r"upj_[A-Za-z0-9_-]{43}")
_LIFETIME = re.compile(r"([0-9]{1,9})\s*([smhdw]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_lifetime(value: object) -> float | None:
    """Seconds from a number, or from ``"90s"``, ``"30m"``, ``"1h"``, ``"7d"``, ``"2w"``.

    ``None`` stays ``None`` (for ever).

    Raises:
        InvalidRequest: anything else, or out of bounds (``bad_lifetime``).
    """
    if value is None:
        return None
    seconds: float = -1
    if isinstance(value, str) and (match := _LIFETIME.fullmatch(value.strip())):
        seconds = int(match[1]) * _UNITS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    if not 1 <= seconds <= MAX_LIFETIME:
        raise InvalidRequest(
            "The lifetime must be seconds or a text such as 90s, 30m, 1h, 7d; at most 366 days.",
            code="bad_lifetime",
        )
    return float(seconds)


def join_command(server: str, token: str, fingerprint: str | None = None) -> str:
    """The line to type on the machine that should join.

    Args:
        server: the gateway's URL as machines reach it.
        fingerprint: of the gateway's certificate, when it made it itself (``sha256:…``).
    """
    words = ["underpass", "agent", "--server", server, "--join", token]
    if fingerprint:
        words += ["--fingerprint", fingerprint]
    return shlex.join(words)


class JoinTokens:
    """Makes, lists, revokes and spends join tokens; only their hashes are kept."""

    def __init__(
        self, database: Database, clock: Clock, events: Events, make_id: IdMaker = new_id
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._make_id = make_id

    async def create(
        self,
        actor: Subject | None,
        *,
        uses: int = 1,
        expires_in: float | None = DEFAULT_LIFETIME,
        labels: object = None,
        may_declare: bool = False,
    ) -> dict[str, Any]:
        """Make a token; the answer is the only place its secret (``token``) ever shows.

        Args:
            actor: who makes it; ``None`` for the gateway itself (its built-in agent).
            uses: machines it lets in, 1 to 100,000.
            expires_in: seconds; ``None`` for ever.
            labels: given to the machines that join with it.
            may_declare: those machines may declare mappings, which are then *actor*'s.

        Raises:
            InvalidRequest: a value is out of bounds.
        """
        if isinstance(uses, bool) or not 1 <= uses <= MAX_USES:
            raise InvalidRequest(f"uses must be 1 to {MAX_USES}.", code="bad_uses")
        lifetime = parse_lifetime(expires_in)
        secret = new_secret(_PREFIX)
        now = self._clock.now()
        row = JoinToken(
            id=self._make_id(),
            token_hash=hash_secret(secret),
            uses=uses,
            used=0,
            labels=checked_labels(labels or {}),
            may_declare=may_declare,
            created_by=actor.username if actor else None,
            created_by_id=actor.user_id if actor else None,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        async with self._database.session() as db:
            db.add(row)
            await self._events.record(
                "join_token.created",
                actor=actor,
                object_id=row.id,
                details={
                    "uses": uses,
                    "labels": row.labels,
                    "expires_in": lifetime,
                    "may_declare": may_declare,
                },
                db=db,
            )
        return {**self._record(row), "token": secret}

    async def page(self, page: int, page_size: int) -> tuple[list[dict[str, Any]], int]:
        """One page of tokens, newest first, without their secrets; and how many there are."""
        async with self._database.reading() as db:
            total = await db.scalar(select(func.count()).select_from(JoinToken))
            rows = await db.scalars(
                select(JoinToken)
                .order_by(JoinToken.created_at.desc(), JoinToken.id)
                .offset((page - 1) * page_size)
                .limit(page_size)
            )
            return [self._record(row) for row in rows], total or 0

    async def revoke(self, actor: Subject, token_id: str) -> dict[str, Any]:
        """End a token; doing it twice changes nothing.

        Raises:
            NotFound: no token has this id.
        """
        async with self._database.session() as db:
            ended = await db.execute(
                update(JoinToken)
                .where(JoinToken.id == token_id, JoinToken.revoked_at.is_(None))
                .values(revoked_at=self._clock.now())
            )
            row = await db.get(JoinToken, token_id)
            if row is None:
                raise NotFound("There is no such join token.")
            if cast("CursorResult[Any]", ended).rowcount:
                await self._events.record(
                    "join_token.revoked", actor=actor, object_id=token_id, db=db
                )
            return self._record(row)

    async def find(self, db: AsyncSession, token: str) -> JoinToken:
        """The row of a token secret, usable or not.

        Raises:
            InvalidRequest: not the shape of a token (``join_token_malformed``).
            Unauthenticated: unknown (``join_token_unknown``).
        """
        if not _TOKEN.fullmatch(token):
            raise InvalidRequest(
                "This is not a join token.",
                code="join_token_malformed",
                hint="Copy the whole command that `underpass token create` printed.",
            )
        # Looked up by its hash: timing can tell nothing about the secret itself.
        row = await db.scalar(select(JoinToken).where(JoinToken.token_hash == hash_secret(token)))
        if row is None:
            raise Unauthenticated(
                "The join token is not known here.",
                code="join_token_unknown",
                hint="Make a new one with `underpass token create`.",
            )
        return row

    async def spend(self, db: AsyncSession, row: JoinToken) -> dict[str, str]:
        """Use the token once, atomically, in the caller's transaction; returns its labels.

        Raises:
            Forbidden: revoked, expired or used up (``join_token_revoked|expired|used_up``).
        """
        now = self._clock.now()
        spent = await db.execute(
            update(JoinToken)
            .where(
                JoinToken.id == row.id,
                JoinToken.used < JoinToken.uses,
                JoinToken.revoked_at.is_(None),
                or_(JoinToken.expires_at.is_(None), JoinToken.expires_at > now),
            )
            .values(used=JoinToken.used + 1)
            .execution_options(synchronize_session=False)
        )
        if cast("CursorResult[Any]", spent).rowcount == 1:
            return dict(row.labels)
        await db.refresh(row)
        hint = "Make a new one with `underpass token create`."
        if row.revoked_at is not None:
            raise Forbidden("The join token was revoked.", code="join_token_revoked", hint=hint)
        if row.expires_at is not None and row.expires_at <= now:
            raise Forbidden("The join token has expired.", code="join_token_expired", hint=hint)
        raise Forbidden("The join token is used up.", code="join_token_used_up", hint=hint)

    def _record(self, row: JoinToken) -> dict[str, Any]:
        now = self._clock.now()
        if row.revoked_at is not None:
            status = "revoked"
        elif row.expires_at is not None and row.expires_at <= now:
            status = "expired"
        else:
            status = "used_up" if row.used >= row.uses else "active"
        return {
            "id": row.id,
            "uses": row.uses,
            "used": row.used,
            "labels": row.labels,
            "may_declare": row.may_declare,
            "status": status,
            "created_by": row.created_by,
            "created_at": rfc3339(row.created_at),
            "expires_at": None if row.expires_at is None else rfc3339(row.expires_at),
            "revoked_at": None if row.revoked_at is None else rfc3339(row.revoked_at),
        }
