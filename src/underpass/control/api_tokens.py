"""API tokens: named, expiring, revocable secrets for scripts; shown once, kept as hashes.

Two kinds share the table. *API keys* are made by a person who is signed in and live until they
expire or are revoked. *Access tokens* (``POST /auth/token``) are made from any credential, live for
hours, and end with the credential they were made from: their ``scopes`` name it as ``from:<id>``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.credentials import FROM, revoke_made_from, working
from underpass.control.events import Events
from underpass.control.identities import API_PREFIX, LOGIN_PREFIX
from underpass.control.live import LiveBus
from underpass.control.subject import Subject
from underpass.core.clock import Clock, rfc3339
from underpass.core.errors import Conflict, Forbidden, InvalidRequest, NotFound
from underpass.core.ids import IdMaker, hash_secret, is_id, new_id, new_secret
from underpass.store.db.models import ApiToken, LoginSession

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["ApiTokens", "api_token_record"]

MAX_TOKENS: Final = 100
"""Working tokens of one person."""
MAX_NAME: Final = 64
LONGEST: Final = 10 * 366 * 86400.0
ACCESS_DEFAULT: Final = 3600.0
ACCESS_LONGEST: Final = 86400.0


def api_token_record(token: ApiToken) -> dict[str, Any]:
    """The public fields of a token; never the secret, never its hash."""
    return {
        "id": token.id,
        "name": token.name,
        "created_at": rfc3339(token.created_at),
        "expires_at": None if token.expires_at is None else rfc3339(token.expires_at),
        "last_used_at": None if token.last_used_at is None else rfc3339(token.last_used_at),
    }


class ApiTokens:
    """The API tokens of this installation."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        events: Events,
        bus: LiveBus,
        make_id: IdMaker = new_id,
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._bus = bus
        self._make_id = make_id

    async def create(
        self, by: Subject, name: str, expires_in: float | None = None
    ) -> dict[str, Any]:
        """Make an API key for the person themself; ``token`` in the answer is shown this once.

        Raises:
            Forbidden: the caller came with an API token: a leaked one must not make itself heirs
                (code ``needs_login``).
            InvalidRequest: the name or the time is out of bounds.
            Conflict: the person has a hundred working tokens already.
        """
        name = name.strip()
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise InvalidRequest(
                f"name: must be 1 to {MAX_NAME} printable characters.", details={"field": "name"}
            )
        if expires_in is not None and not 1 <= expires_in <= LONGEST:
            raise InvalidRequest(
                "expires_in: must be between one second and ten years.",
                details={"field": "expires_in"},
            )
        async with self._database.session() as db:
            if await db.get(LoginSession, by.credential_id) is None:
                raise Forbidden(
                    "An API token can't make API tokens.",
                    code="needs_login",
                    hint="Sign in with your password first.",
                )
            secret, token = await self._add(db, by, name, expires_in, scopes=[])
            await self._events.record(
                "api_token.created", actor=by, object_id=token.id, details={"name": name}, db=db
            )
            return {**api_token_record(token), "token": secret}

    async def create_access_token(
        self, by: Subject, expires_in: float | None = None
    ) -> tuple[str, float]:
        """Make a short-lived token with the caller's own rights.

        Returns:
            The token, and the seconds it lives: an hour unless asked otherwise, a day at most, and
            never longer than the API token it was made from.

        Raises:
            InvalidRequest: *expires_in* is out of bounds.
            Conflict: the person has a hundred working tokens already.
        """
        seconds = ACCESS_DEFAULT if expires_in is None else expires_in
        if not 1 <= seconds <= ACCESS_LONGEST:
            raise InvalidRequest(
                f"expires_in: must be between 1 and {int(ACCESS_LONGEST)} seconds.",
                details={"field": "expires_in"},
            )
        async with self._database.session() as db:
            parent = await db.get(ApiToken, by.credential_id)
            root = by.credential_id
            if parent is not None:
                if parent.expires_at is not None:
                    seconds = min(seconds, max(1.0, parent.expires_at - self._clock.now()))
                root = next(
                    (s.removeprefix(FROM) for s in parent.scopes if s.startswith(FROM)), root
                )
            secret, token = await self._add(
                db, by, "access token", seconds, scopes=[f"{FROM}{root}"]
            )
            await self._events.record(
                "access_token.created", actor=by, object_id=token.id,
                details={"expires_in": seconds}, db=db,
            )  # fmt: skip
        return secret, seconds

    async def list_for(self, user_id: str) -> list[dict[str, Any]]:
        """The working API keys of a person, newest first."""
        now = self._clock.now()
        async with self._database.reading() as db:
            rows = await db.scalars(
                select(ApiToken)
                .where(ApiToken.user_id == user_id, *working(now))
                .order_by(ApiToken.created_at.desc(), ApiToken.id)
            )
            return [api_token_record(row) for row in rows if not row.scopes]

    async def revoke(self, by: Subject, token_id: str) -> None:
        """End a token of one's own, or anybody's for an admin, and all that was made from it.

        Raises:
            NotFound: there is none with this id that works, or it is somebody else's.
        """
        now = self._clock.now()
        async with self._database.session() as db:
            token = await db.get(ApiToken, token_id) if is_id(token_id) else None
            if (
                token is None
                or token.revoked_at is not None
                or (token.user_id != by.user_id and not by.is_admin)
            ):
                raise NotFound("There is no such API token.", hint="Check the id.")
            token.revoked_at = now
            owner = token.user_id
            await revoke_made_from(db, owner, [token_id], now)
            await self._events.record(
                "api_token.revoked", actor=by, object_id=token_id,
                details={"name": token.name}, db=db,
            )  # fmt: skip
        self._tell(owner, token_id)

    async def revoke_secret(self, by: Subject, secret: str) -> None:
        """End a token by showing it; unknown ones are none of anybody's business (no error)."""
        hashed = hash_secret(secret)
        async with self._database.session() as db:
            if secret.startswith(LOGIN_PREFIX):
                login = await db.scalar(
                    select(LoginSession).where(LoginSession.token_hash == hashed)
                )
                if login is None or (login.user_id != by.user_id and not by.is_admin):
                    return
                owner, found = login.user_id, login.id
                await revoke_made_from(db, owner, [found], self._clock.now())
                await db.delete(login)
                await self._events.record("login.ended", actor=by, object_id=owner, db=db)
            else:
                found = await db.scalar(select(ApiToken.id).where(ApiToken.token_hash == hashed))
                if found is None:
                    return
                owner = ""
        if owner:
            self._tell(owner, found)
            return
        try:
            await self.revoke(by, found)
        except NotFound:
            return

    async def _add(
        self, db: AsyncSession, by: Subject, name: str, expires_in: float | None, scopes: list[str]
    ) -> tuple[str, ApiToken]:
        now = self._clock.now()
        count = await db.scalar(
            select(func.count())
            .select_from(ApiToken)
            .where(ApiToken.user_id == by.user_id, *working(now))
        )
        if (count or 0) >= MAX_TOKENS:
            raise Conflict(
                f"You have {MAX_TOKENS} working tokens; no more are allowed.",
                code="too_many_tokens",
                hint="Revoke one you don't need.",
            )
        secret = new_secret(API_PREFIX)
        token = ApiToken(
            id=self._make_id(),
            user_id=by.user_id,
            name=name,
            token_hash=hash_secret(secret),
            scopes=scopes,
            created_at=now,
            expires_at=None if expires_in is None else now + expires_in,
            last_used_at=None,
            revoked_at=None,
        )
        db.add(token)
        return secret, token

    def _tell(self, user_id: str, credential_id: str) -> None:
        self._bus.publish(
            "user",
            {
                "id": user_id,
                "user_id": user_id,
                "reason": "token_revoked",
                "credential_id": credential_id,
            },
        )
