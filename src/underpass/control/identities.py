"""Whom a token belongs to: from login (``ups_…``) or API token (``upt_…``) to person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import delete, select, update

from underpass.control.guest import GUEST_PREFIX
from underpass.control.live import LiveBus, LiveMessage
from underpass.control.subject import Role, Subject
from underpass.control.users import ROLES
from underpass.core.clock import Clock
from underpass.core.errors import Forbidden, Unauthenticated
from underpass.core.ids import hash_secret
from underpass.store.db.models import ApiToken, LoginSession, User

if TYPE_CHECKING:
    from underpass.control.guests import Guests
    from underpass.store.db.database import Database

__all__ = ["API_PREFIX", "LOGIN_PREFIX", "Identities", "Identity"]

LOGIN_PREFIX: Final = "ups_"
API_PREFIX: Final = "upt_"

TOUCH_EVERY: Final = 60.0
"""``last_seen_at`` and ``last_used_at`` are written at most this often."""
CACHE_SECONDS: Final = 2.0
"""How long an authentication may be believed without asking the database again."""
CACHE_ENTRIES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token belongs to.

    Attributes:
        subject: the person, without an address.
        csrf_token: what writes must send along when the token came in the cookie; empty for
            API tokens, which never come in a cookie.
        expires_at: when the token stops working if it is not used, Unix seconds; ``None``: never.
    """

    subject: Subject
    csrf_token: str
    expires_at: float | None


class Identities:
    """Looks tokens up, believing an answer for two seconds.

    A change made in this process (topic ``user`` on the bus) is seen at once; one made by another
    node within those two seconds.

    Attributes:
        guests: whose tokens are guests'; ``None``: nobody's are.

    Args:
        idle: seconds after which an unused login ends.
    """

    guests: Guests | None = None

    def __init__(self, database: Database, clock: Clock, bus: LiveBus, *, idle: float) -> None:
        self._database = database
        self._clock = clock
        self._idle = idle
        self._cache: dict[str, tuple[float, Identity]] = {}
        bus.listen(self._on_news)

    async def identify(self, token: str, *, cookie: bool = False, guests: bool = False) -> Identity:
        """The person behind a login or API token.

        Args:
            token: what was sent.
            cookie: it came in the cookie, where an API token has no business.
            guests: guests will do, too; whoever asks must not give them more than codes.

        Raises:
            Unauthenticated: it is unknown, expired, revoked, or its user is disabled; one text.
            Forbidden: it is a guest's, and they will not do (``guests_may_not``).
        """
        if token.startswith(GUEST_PREFIX) and not cookie and self.guests is not None:
            guest = self.guests.identify(token)
            if guest is not None and not guests:
                raise Forbidden(
                    "Guests may only offer and accept with one-time codes.",
                    code="guests_may_not",
                    hint="Sign in for anything else.",
                    details={"rule": "role:guest"},
                )
            if guest is not None:
                return guest
        hashed = hash_secret(token)
        now = self._clock.now()
        cached = self._cache.get(hashed)
        if cached is not None and cached[0] > self._clock.monotonic():
            identity = cached[1]
            if identity.expires_at is None or identity.expires_at > now:
                return identity
        if token.startswith(LOGIN_PREFIX):
            identity = await self._identify_login(hashed, now)
        elif token.startswith(API_PREFIX) and not cookie:
            identity = await self._identify_api_token(hashed, now)
        else:
            identity = None
        if identity is None:
            self._cache.pop(hashed, None)
            raise Unauthenticated(
                "The login or token is not valid (any more).", hint="Sign in again."
            )
        if len(self._cache) >= CACHE_ENTRIES:
            self._cache.clear()
        self._cache[hashed] = (self._clock.monotonic() + CACHE_SECONDS, identity)
        return identity

    async def still_valid(self, subject: Subject) -> bool:
        """Whether the credential behind *subject* still is what it was; for long-lived sockets."""
        if subject.role == "guest":
            return self.guests is not None and self.guests.still_valid(subject)
        now = self._clock.now()
        async with self._database.reading() as db:
            user = await db.get(User, subject.user_id)
            if user is None or user.disabled or user.role not in ROLES:
                return False
            if ROLES.index(user.role) > ROLES.index(subject.role):
                return False
            login = await db.get(LoginSession, subject.credential_id)
            if login is not None:
                return login.user_id == user.id and self._login_end(login) > now
            token = await db.get(ApiToken, subject.credential_id)
            return token is not None and token.user_id == user.id and _token_works(token, now)

    def forget(self, user_id: str) -> None:
        """Drop what is cached about a user, because something about them changed."""
        for hashed, (_, identity) in tuple(self._cache.items()):
            if identity.subject.user_id == user_id:
                del self._cache[hashed]

    async def prune(self) -> int:
        """Delete expired logins and tokens that ended a month ago; returns how many logins."""
        now = self._clock.now()
        async with self._database.session() as db:
            result = await db.execute(
                delete(LoginSession).where(
                    (LoginSession.expires_at <= now)
                    | (LoginSession.last_seen_at <= now - self._idle)
                )
            )
            month_ago = now - 30 * 86400
            await db.execute(
                delete(ApiToken).where(
                    (ApiToken.expires_at <= month_ago) | (ApiToken.revoked_at <= month_ago)
                )
            )
            return int(cast(Any, result).rowcount or 0)

    async def _identify_login(self, hashed: str, now: float) -> Identity | None:
        async with self._database.reading() as db:
            result = await db.execute(
                select(LoginSession, User)
                .join(User, User.id == LoginSession.user_id)
                .where(LoginSession.token_hash == hashed)
            )
            row = result.first()
        if row is None:
            return None
        login, user = cast(tuple[LoginSession, User], row)
        if user.disabled or self._login_end(login) <= now:
            return None
        if now - login.last_seen_at >= TOUCH_EVERY:
            async with self._database.session() as db:
                await db.execute(
                    update(LoginSession).where(LoginSession.id == login.id).values(last_seen_at=now)
                )
        expires = min(login.expires_at, max(now, login.last_seen_at) + self._idle)
        subject = Subject(user.id, user.username, cast(Role, user.role), credential_id=login.id)
        return Identity(subject, login.csrf_token, expires)

    async def _identify_api_token(self, hashed: str, now: float) -> Identity | None:
        async with self._database.reading() as db:
            result = await db.execute(
                select(ApiToken, User)
                .join(User, User.id == ApiToken.user_id)
                .where(ApiToken.token_hash == hashed)
            )
            row = result.first()
        if row is None:
            return None
        token, user = cast(tuple[ApiToken, User], row)
        if user.disabled or not _token_works(token, now):
            return None
        if token.last_used_at is None or now - token.last_used_at >= TOUCH_EVERY:
            async with self._database.session() as db:
                await db.execute(
                    update(ApiToken).where(ApiToken.id == token.id).values(last_used_at=now)
                )
        subject = Subject(
            user.id, user.username, cast(Role, user.role), via="token", credential_id=token.id
        )
        return Identity(subject, "", token.expires_at)

    def _login_end(self, login: LoginSession) -> float:
        return min(login.expires_at, login.last_seen_at + self._idle)

    def _on_news(self, message: LiveMessage) -> None:
        if message.topic == "user":
            self.forget(str(message.data.get("user_id")))


def _token_works(token: ApiToken, now: float) -> bool:
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now)
