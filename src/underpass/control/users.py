"""The people who can sign in: making, reading, changing and removing them.

Whoever loses a right loses what runs on it. Disabling or deleting a user, or giving them another
password, ends their logins in the same transaction. These and a demotion are told to the bus (topic
``user`` with ``cut: true``), upon which their terminals and links are cut.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from underpass.control.credentials import end_logins
from underpass.control.events import Events
from underpass.control.live import LiveBus
from underpass.control.passwords import Passwords, check_password_rules
from underpass.control.subject import Role, Subject
from underpass.core.clock import Clock, rfc3339
from underpass.core.errors import Conflict, InvalidRequest, NotFound
from underpass.core.ids import IdMaker, is_id, new_id
from underpass.store.db.models import ApiToken, User

if TYPE_CHECKING:
    from underpass.store.db.database import Database

__all__ = ["ROLES", "UserChange", "Users", "check_email", "check_username", "user_record"]

ROLES: Final[tuple[Role, ...]] = ("admin", "auditor", "user")
"""From the most powerful down."""
_USERNAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,189}")
MAX_USERS: Final = 100_000


def check_username(username: str) -> str:
    """*username* in the form it is stored in (lower case).

    Raises:
        InvalidRequest: it has other characters than letters, digits and ``._@-``, or is too long.
    """
    name = username.strip().lower()
    if not _USERNAME.fullmatch(name):
        raise InvalidRequest(
            "The user name must be 1 to 64 letters, digits or ._@- and start with a letter or "
            "digit.",
            code="bad_username",
            details={"field": "username"},
        )
    return name


def check_email(email: str) -> str:
    """*email* if it looks like an address.

    Raises:
        InvalidRequest: it does not.
    """
    if not _EMAIL.fullmatch(email):
        raise InvalidRequest("email: this is not an e-mail address.", details={"field": "email"})
    return email


def user_record(user: User) -> dict[str, Any]:
    """The public fields of a user; never the password's hash."""
    return {
        "id": user.id,
        "username": user.username,
        "email": user.email,
        "role": user.role,
        "disabled": user.disabled,
        "created_at": rfc3339(user.created_at),
        "last_login_at": None if user.last_login_at is None else rfc3339(user.last_login_at),
    }


@dataclass(frozen=True, slots=True)
class UserChange:
    """What to change; ``None`` leaves a field as it is, an empty e-mail removes it."""

    role: Role | None = None
    disabled: bool | None = None
    email: str | None = None
    password: str | None = None


class Users:
    """The users of this installation."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        events: Events,
        bus: LiveBus,
        passwords: Passwords,
        make_id: IdMaker = new_id,
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._bus = bus
        self._passwords = passwords
        self._make_id = make_id

    async def create(
        self,
        by: Subject,
        *,
        username: str,
        password: str,
        role: Role = "user",
        email: str | None = None,
    ) -> dict[str, Any]:
        """Make a user.

        Raises:
            InvalidRequest: a field breaks its rule.
            Conflict: the name is taken (code ``username_taken``).
        """
        name = check_username(username)
        check_password_rules(password, name)
        address = check_email(email) if email else None
        hashed = await self._passwords.hash(password)
        now = self._clock.now()
        user = User(
            id=self._make_id(),
            username=name,
            email=address,
            role=role,
            password_hash=hashed,
            disabled=False,
            created_at=now,
            updated_at=now,
            last_login_at=None,
        )
        try:
            async with self._database.session() as db:
                if (await db.scalar(select(func.count()).select_from(User)) or 0) >= MAX_USERS:
                    raise Conflict(f"There are {MAX_USERS} users; no more are allowed.")
                db.add(user)
                await db.flush()
                await self._events.record(
                    "user.created",
                    actor=by,
                    object_id=user.id,
                    details={"username": name, "role": role},
                    db=db,
                )
        except IntegrityError:
            raise Conflict(
                f"The user name {name!r} is taken.", code="username_taken", hint="Choose another."
            ) from None
        return user_record(user)

    async def get(self, user_id: str) -> dict[str, Any]:
        """One user.

        Raises:
            NotFound: there is none with this id.
        """
        async with self._database.reading() as db:
            return user_record(await _load(db, user_id))

    async def page(
        self, *, page: int, page_size: int, text: str | None = None, sort: str = "username",
        descending: bool = False,
    ) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
        """One page of users and how many match in all."""
        where: list[Any] = []
        if text:
            where.append(
                or_(
                    User.username.contains(text.lower(), autoescape=True),
                    User.email.contains(text, autoescape=True),
                )
            )
        columns: dict[str, Any] = {
            "username": User.username,
            "role": User.role,
            "created_at": User.created_at,
            "last_login_at": User.last_login_at,
        }
        column = columns[sort]
        async with self._database.reading() as db:
            total = await db.scalar(select(func.count()).select_from(User).where(*where))
            rows = await db.scalars(
                select(User)
                .where(*where)
                .order_by(column.desc() if descending else column, User.id)
                .offset((page - 1) * page_size)
                .limit(page_size)
            )
            return [user_record(row) for row in rows], total or 0

    async def change(self, by: Subject, user_id: str, change: UserChange) -> dict[str, Any]:
        """Change a user; see the module for what ends with it.

        Raises:
            NotFound: there is none with this id.
            Conflict: it would leave no admin who can sign in (code ``last_admin``).
            InvalidRequest: a field breaks its rule.
        """
        hashed = None
        if change.password is not None:
            current = await self.get(user_id)
            check_password_rules(change.password, current["username"])
            hashed = await self._passwords.hash(change.password)
        email = check_email(change.email) if change.email else None
        cut: str | None = None
        async with self._database.session() as db:
            user = await _load(db, user_id, lock=True)
            changed: dict[str, Any] = {}
            if change.role is not None and change.role != user.role:
                if user.role == "admin":
                    await self._keep_an_admin(db, user)
                changed["role"] = [user.role, change.role]
                if ROLES.index(change.role) > ROLES.index(user.role):
                    cut = "demoted"
                user.role = change.role
            if change.disabled is not None and change.disabled != user.disabled:
                if change.disabled and user.role == "admin":
                    await self._keep_an_admin(db, user)
                changed["disabled"] = change.disabled
                user.disabled = change.disabled
                if change.disabled:
                    cut = "disabled"
            if change.email is not None and email != user.email:
                changed["email"] = True
                user.email = email
            if hashed is not None:
                changed["password"] = True
                user.password_hash = hashed
                cut = cut or "password_changed"
            if changed:
                user.updated_at = self._clock.now()
                if user.disabled or hashed is not None:
                    await end_logins(db, user.id, self._clock.now())
                await self._events.record(
                    _change_type(change), actor=by, object_id=user.id,
                    details={"username": user.username, "changed": changed}, db=db,
                )  # fmt: skip
            record = user_record(user)
        if changed:
            self._tell(user_id, cut or "changed", cut=cut is not None)
        return record

    async def delete(self, by: Subject, user_id: str) -> None:
        """Remove a user with their logins and tokens; sessions, recordings and events stay.

        Raises:
            NotFound: there is none with this id.
            Conflict: it is the last admin who can sign in (code ``last_admin``).
        """
        async with self._database.session() as db:
            user = await _load(db, user_id, lock=True)
            if user.role == "admin" and not user.disabled:
                await self._keep_an_admin(db, user)
            await end_logins(db, user.id, self._clock.now())
            await db.execute(delete(ApiToken).where(ApiToken.user_id == user.id))
            await db.delete(user)
            await self._events.record(
                "user.deleted", actor=by, object_id=user_id,
                details={"username": user.username}, db=db,
            )  # fmt: skip
        self._tell(user_id, "deleted", cut=True)

    async def ids_of(self, names: list[str]) -> dict[str, str]:
        """Ids by name, for those of *names* that exist."""
        async with self._database.reading() as db:
            rows = await db.execute(
                select(User.username, User.id).where(User.username.in_([n.lower() for n in names]))
            )
            return {str(row[0]): str(row[1]) for row in rows}

    def _tell(self, user_id: str, reason: str, *, cut: bool) -> None:
        self._bus.publish("user", {"id": user_id, "user_id": user_id, "reason": reason, "cut": cut})

    async def _keep_an_admin(self, db: AsyncSession, leaving: User) -> None:
        # All admins are locked, so that two of them demoting each other can't both succeed.
        admins = await db.scalars(
            select(User)
            .where(User.role == "admin", User.disabled.is_(False))
            .order_by(User.id)
            .with_for_update()
        )
        if not leaving.disabled and all(user.id == leaving.id for user in admins):
            raise Conflict(
                "This is the last admin who can sign in.",
                code="last_admin",
                hint="Make another user an admin first.",
            )


async def _load(db: AsyncSession, user_id: str, *, lock: bool = False) -> User:
    user = None
    if is_id(user_id):
        user = await db.get(User, user_id, with_for_update=True if lock else None)
    if user is None:
        raise NotFound("There is no such user.", hint="Check the id.")
    return user


def _change_type(change: UserChange) -> str:
    if change.disabled is not None:
        return "user.disabled" if change.disabled else "user.enabled"
    if change.role is not None:
        return "user.role_changed"
    return "user.password_set" if change.password is not None else "user.changed"
