"""The first admin: a one-time code while there is none, or a name and password in the settings.

Set-up is open exactly as long as the ``installation`` table has no ``setup_done`` row. Whoever
writes that row (its key is unique) makes the admin, so of two people with the code one wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.events import Events
from underpass.control.guessing import Guessing
from underpass.control.passwords import Passwords, check_password_rules
from underpass.control.sign_in import Login, SignIn
from underpass.control.users import check_username
from underpass.core.clock import Clock
from underpass.core.errors import Conflict, Forbidden
from underpass.core.ids import IdMaker, hash_secret, new_id, new_secret, secrets_equal
from underpass.store.db.models import KeyValue, User
from underpass.store.kv import KeyValueStore

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["Setup"]

_CODE: Final = "setup_code_hash"
_DONE: Final = "setup_done"


class Setup:
    """Opens set-up, and makes the first admin once."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        kv: KeyValueStore,
        events: Events,
        passwords: Passwords,
        sign_in: SignIn,
        make_id: IdMaker = new_id,
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._passwords = passwords
        self._sign_in = sign_in
        self._make_id = make_id
        self._guessing = Guessing(kv, clock)

    async def needed(self) -> bool:
        """Whether there is no first admin yet."""
        async with self._database.reading() as db:
            return await _is_open(db)

    async def open(self) -> str | None:
        """Make a new set-up code, which voids the one before; ``None`` when set-up is done."""
        code = new_secret(bits=160)
        async with self._database.session() as db:
            if not await _is_open(db):
                return None
            await db.merge(
                KeyValue(key=_CODE, value=hash_secret(code), updated_at=self._clock.now())
            )
        return code

    async def complete(
        self, code: str, username: str, password: str, *, ip: str | None, user_agent: str | None
    ) -> Login:
        """Make the first admin and sign them in; the code is burned.

        Raises:
            Conflict: there is a first admin already (code ``setup_done``).
            Forbidden: the code is not the one that was printed (code ``bad_setup_code``).
            TooManyRequests: too many wrong codes.
            InvalidRequest: name or password break their rules; the code stays good.
        """
        await self._guessing.check("set-up", ip)
        async with self._database.reading() as db:
            if not await _is_open(db):
                raise _done()
            row = await db.get(KeyValue, _CODE)
        stored = row.value if row else ""
        if not secrets_equal(hash_secret(code), stored):
            await self._guessing.failed("set-up", ip)
            await self._events.record("setup.refused", outcome="denied", rule="setup_code", ip=ip)
            raise Forbidden(
                "The set-up code is wrong or out of date.",
                code="bad_setup_code",
                hint="Use the address the gateway printed at its last start.",
            )
        name = check_username(username)
        check_password_rules(password, name)
        user_id = await self._make_admin(name, password, code_hash=stored, ip=ip)
        if user_id is None:
            raise _done()
        return await self._sign_in.begin(user_id, ip=ip, user_agent=user_agent)

    async def complete_from_settings(self, username: str, password: str) -> bool:
        """Make the first admin without a code, if there is none; whether one was made.

        Raises:
            InvalidRequest: name or password break their rules.
        """
        if not await self.needed():
            return False
        name = check_username(username)
        check_password_rules(password, name)
        return await self._make_admin(name, password, code_hash=None, ip=None) is not None

    async def _make_admin(
        self, name: str, password: str, *, code_hash: str | None, ip: str | None
    ) -> str | None:
        hashed = await self._passwords.hash(password)
        now = self._clock.now()
        user = User(
            id=self._make_id(),
            username=name,
            email=None,
            role="admin",
            password_hash=hashed,
            disabled=False,
            created_at=now,
            updated_at=now,
            last_login_at=None,
        )
        try:
            async with self._database.session() as db:
                db.add(KeyValue(key=_DONE, value=user.id, updated_at=now))
                await db.flush()  # of two at once, the second fails here
                burn = delete(KeyValue).where(KeyValue.key == _CODE)
                if code_hash is not None:
                    burn = burn.where(KeyValue.value == code_hash)
                burned = await db.execute(burn)
                if code_hash is not None and not cast(Any, burned).rowcount:
                    raise Forbidden(
                        "The set-up code is out of date: the gateway has printed a newer one.",
                        code="bad_setup_code",
                    )
                db.add(user)
                await db.flush()
                await self._events.record(
                    "setup.completed", actor=name, object_id=user.id, ip=ip,
                    rule="setup_code" if code_hash else "settings", db=db,
                )  # fmt: skip
        except IntegrityError:
            return None
        return user.id


async def _is_open(db: AsyncSession) -> bool:
    if await db.get(KeyValue, _DONE) is not None:
        return False
    # An installation restored without its marker must not be open to whoever comes first.
    return not await db.scalar(select(func.count()).select_from(User).where(User.role == "admin"))


def _done() -> Conflict:
    return Conflict("Set-up is done already.", code="setup_done", hint="Sign in instead.")
