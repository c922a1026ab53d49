"""Signing in and out: password to login, token to person, and how fast one may guess.

A login is one random secret (``ups_…``). The browser holds it in a cookie, scripts send it as
``Authorization: Bearer``; only its SHA-256 is stored. See docs/adr/0004-sessions-and-tokens.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import select, update

from underpass.control.credentials import end_logins, revoke_made_from
from underpass.control.events import Events
from underpass.control.guessing import Guessing
from underpass.control.identities import LOGIN_PREFIX, Identities, Identity
from underpass.control.live import LiveBus
from underpass.control.passwords import CONCURRENT, MAX_PASSWORD, Passwords, check_password_rules
from underpass.control.subject import Role, Subject
from underpass.control.users import user_record
from underpass.core.clock import Clock
from underpass.core.errors import InvalidRequest, TooManyRequests, Unauthenticated
from underpass.core.ids import IdMaker, hash_secret, new_id, new_secret
from underpass.store.db.models import LoginSession, User
from underpass.store.kv import KeyValueStore

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["Identity", "Login", "SignIn"]

MAX_WAITING: Final = 200
"""Logins waiting for their turn; the next is refused."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a person gets for a password; ``token`` is shown this once."""

    token: str
    csrf_token: str
    expires_in: float
    user: dict[str, Any]


class SignIn:
    """Checks passwords and tokens.

    Args:
        idle: seconds after which an unused login ends.
        lifetime: seconds after which a login ends in any case.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        kv: KeyValueStore,
        events: Events,
        bus: LiveBus,
        passwords: Passwords,
        idle: float = 12 * 3600,
        lifetime: float = 7 * 86400,
        make_id: IdMaker = new_id,
    ) -> None:
        self._database = database
        self._clock = clock
        self._kv = kv
        self._events = events
        self._bus = bus
        self._passwords = passwords
        self._idle = idle
        self._lifetime = lifetime
        self._make_id = make_id
        self._guessing = Guessing(kv, clock)
        self._turns = asyncio.Semaphore(CONCURRENT)
        self._waiting = 0
        self.identities = Identities(database, clock, bus, idle=idle)

    # -- passwords -------------------------------------------------------------------------------

    async def sign_in(
        self, username: str, password: str, *, ip: str | None, user_agent: str | None = None
    ) -> Login:
        """Exchange a password for a login.

        Raises:
            Unauthenticated: unknown user, wrong password or disabled user: one answer, one time.
            TooManyRequests: too many wrong tries from this address; ``retry_after`` says how long.
        """
        name = username.strip().lower()[:64]
        async with self._try(name, ip):
            async with self._database.reading() as db:
                user = await db.scalar(select(User).where(User.username == name))
            stored = user.password_hash if user else None
            right = await self._passwords.verify(stored, password) and len(password) <= MAX_PASSWORD
            if user is None or user.disabled or not right:
                await self._guessing.failed(name, ip)
        if user is None or user.disabled or not right:
            await self._events.record(
                "login.failed",
                actor=name or "(empty)",
                object_id=user.id if user else None,
                outcome="denied",
                rule="disabled" if right else "password",
                ip=ip,
            )
            raise Unauthenticated(
                "The user name or the password is wrong.",
                code="bad_credentials",
                hint="Ask an admin to set a new password if you forgot yours.",
            )
        rehashed = None
        if stored and self._passwords.needs_rehash(stored):
            rehashed = await self._passwords.hash(password)
        await self._guessing.forgive(name, ip)
        return await self.begin(
            user.id, ip=ip, user_agent=user_agent, proved=stored, rehashed=rehashed
        )

    async def begin(
        self,
        user_id: str,
        *,
        ip: str | None,
        user_agent: str | None = None,
        proved: str | None = None,
        rehashed: str | None = None,
    ) -> Login:
        """Start a login for somebody who has just proved who they are (password, set-up code).

        Args:
            user_id: who.
            ip: where from.
            user_agent: what the browser calls itself; shown to the person among their logins.
            proved: the stored hash the password was checked against; it must still be the one.
            rehashed: the same password hashed anew, to be stored instead.

        Raises:
            Unauthenticated: the user was disabled, removed or given another password meanwhile.
        """
        now = self._clock.now()
        token, csrf = new_secret(LOGIN_PREFIX), new_secret(bits=192)
        async with self._database.session() as db:
            user = await db.get(User, user_id)
            stale = user is not None and proved is not None and user.password_hash != proved
            if user is None or user.disabled or stale:
                raise Unauthenticated(
                    "The user name or the password is wrong.", code="bad_credentials"
                )
            user.last_login_at = now
            if rehashed is not None:
                user.password_hash = rehashed
            login = LoginSession(
                id=self._make_id(),
                user_id=user.id,
                token_hash=hash_secret(token),
                csrf_token=csrf,
                created_at=now,
                expires_at=now + self._lifetime,
                last_seen_at=now,
                ip=ip,
                user_agent=(user_agent or "")[:256] or None,
            )
            db.add(login)
            subject = Subject(
                user.id, user.username, cast(Role, user.role), credential_id=login.id, ip=ip
            )
            await self._events.record("login.succeeded", actor=subject, object_id=user.id, db=db)
            record = user_record(user)
        return Login(token, csrf, min(self._idle, self._lifetime), record)

    async def change_password(self, subject: Subject, old: str, new: str) -> None:
        """Change one's own password; ends every other login of the person.

        Raises:
            Unauthenticated: *old* is wrong (code ``bad_credentials``).
            InvalidRequest: *new* breaks the rules, or equals *old*.
            TooManyRequests: too many wrong tries.
        """
        name = f"change:{subject.user_id}"
        async with self._try(name, subject.ip):
            async with self._database.reading() as db:
                stored = await db.scalar(
                    select(User.password_hash).where(User.id == subject.user_id)
                )
            right = await self._passwords.verify(stored, old)
            if not right:
                await self._guessing.failed(name, subject.ip)
        if not right:
            await self._events.record(
                "user.password_changed", actor=subject, object_id=subject.user_id,
                outcome="denied", rule="password",
            )  # fmt: skip
            raise Unauthenticated("The old password is wrong.", code="bad_credentials")
        check_password_rules(new, subject.username)
        if new == old:
            raise InvalidRequest("The new password is the old one.", code="weak_password")
        await self._guessing.forgive(name, subject.ip)
        hashed = await self._passwords.hash(new)
        async with self._database.session() as db:
            # Only if nobody changed it meanwhile: the old password proved right is still the one.
            changed = await db.execute(
                update(User)
                .where(User.id == subject.user_id, User.password_hash == stored)
                .values(password_hash=hashed, updated_at=self._clock.now())
            )
            if not cast(Any, changed).rowcount:
                raise Unauthenticated("The old password is wrong.", code="bad_credentials")
            ended = await end_logins(
                db, subject.user_id, self._clock.now(), keep=subject.credential_id
            )
            await self._events.record(
                "user.password_changed", actor=subject, object_id=subject.user_id,
                details={"logins_ended": ended}, db=db,
            )  # fmt: skip
        self._announce(subject.user_id, "password_changed", keep=subject.credential_id)

    async def sign_out(self, subject: Subject) -> None:
        """End the login *subject* came with; an API token stays, it is not a login."""
        async with self._database.session() as db:
            login = await db.get(LoginSession, subject.credential_id)
            if login is None or login.user_id != subject.user_id:
                return
            await revoke_made_from(db, subject.user_id, [login.id], self._clock.now())
            await db.delete(login)
            await self._events.record(
                "login.ended", actor=subject, object_id=subject.user_id, db=db
            )
        self._announce(subject.user_id, "signed_out", credential_id=subject.credential_id)

    async def identify(self, token: str, *, cookie: bool = False, guests: bool = False) -> Identity:
        """:meth:`Identities.identify`."""
        return await self.identities.identify(token, cookie=cookie, guests=guests)

    async def still_valid(self, subject: Subject) -> bool:
        """:meth:`Identities.still_valid`."""
        return await self.identities.still_valid(subject)

    def _announce(self, user_id: str, reason: str, **extra: Any) -> None:
        self._bus.publish("user", {"id": user_id, "user_id": user_id, "reason": reason, **extra})

    @asynccontextmanager
    async def _try(self, name: str, ip: str | None) -> AsyncGenerator[None]:
        """One guess at a password: refused when it comes too soon, else it waits for its turn.

        Few turns at a time, and the limits looked at again when the turn comes: of a hundred wrong
        guesses sent at once only the first few are ever tried, and a hundred right ones all pass.
        """
        await self._guessing.check(name, ip)
        if self._waiting >= MAX_WAITING:
            raise TooManyRequests(
                "Too many people are signing in at once.", hint="Try again.", retry_after=2
            )
        self._waiting += 1
        try:
            async with self._turns:
                await self._guessing.check(name, ip)
                yield
        finally:
            self._waiting -= 1
