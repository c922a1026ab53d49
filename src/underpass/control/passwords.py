"""Passwords: what makes one acceptable, and argon2id off the event loop with bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

from underpass.core.errors import InvalidRequest, TooManyRequests

__all__ = ["CONCURRENT", "MAX_PASSWORD", "MIN_PASSWORD", "Passwords", "check_password_rules"]

T = TypeVar("T")
P = ParamSpec("P")

MIN_PASSWORD: Final = 10
MAX_PASSWORD: Final = 256

MEMORY_KIB: Final = 32 * 1024
TIME_COST: Final = 3
"""32 MiB and three passes: above OWASP's floor for argon2id (19 MiB, two passes), and two at once
cost 64 MiB at most."""

CONCURRENT: Final = 2
"""Hashes computed at a time."""
_MAX_WAITING: Final = 200


def check_password_rules(password: str, username: str = "") -> None:
    """Refuse a weak password, saying why.

    Raises:
        InvalidRequest: code ``weak_password``; the message says which rule and what would do.
    """
    if len(password) < MIN_PASSWORD:
        reason = f"it has {len(password)} characters, at least {MIN_PASSWORD} are needed"
    elif len(password) > MAX_PASSWORD:
        reason = f"it is longer than {MAX_PASSWORD} characters"
    elif username and password.casefold() == username.casefold():
        reason = "it is the user name"
    elif len(set(password)) < 4:
        reason = "it has fewer than 4 different characters"
    elif password.casefold() in _WELL_KNOWN:
        reason = "it is one of the first an attacker tries"
    else:
        return
    raise InvalidRequest(
        f"The password can't be used: {reason}.",
        code="weak_password",
        hint="Four random words make a good one.",
        details={"field": "password"},
    )


_WELL_KNOWN = frozenset(
    {
        "1234567890", "0123456789", "0987654321", "12345678910", "123456789012", "1q2w3e4r5t",
        "1q2w3e4r5t6y", "administrator", "changeme123", "iloveyou123", "letmein123", "p@ssw0rd123",
        "password10", "password12", "password123", "password1234", "passw0rd123", "qwerty12345",
        "qwerty123456", "qwertyuiop", "qwertyuiop123", "underpass123", "welcome123", "welcome1234",
    }
)  # fmt: skip


class Passwords:
    """Hashes and verifies with argon2id in two threads of its own.

    At most two hashes are computed at a time, so a hundred logins at once take longer, not more
    memory; when two hundred are waiting, the next is refused.

    Args:
        memory_kib: memory of one hash in KiB; tests lower it.
        time_cost: passes over that memory.
    """

    def __init__(self, memory_kib: int = MEMORY_KIB, time_cost: int = TIME_COST) -> None:
        self._hasher = PasswordHasher(
            time_cost=time_cost, memory_cost=memory_kib, parallelism=1, type=Type.ID
        )
        self._threads = ThreadPoolExecutor(CONCURRENT, thread_name_prefix="argon2")
        self._waiting = 0
        # Verified when there is no such user, so that the answer takes the same time.
        self._nobody = self._hasher.hash("the password of nobody")

    async def hash(self, password: str) -> str:
        """The argon2id hash of *password*, parameters and salt included.

        Raises:
            TooManyRequests: too many are waiting already.
        """
        return await self._run(self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether *password* matches *stored*; ``None`` (nobody) takes as long and says no.

        Raises:
            TooManyRequests: too many are waiting already.
        """
        return await self._run(self._verify, stored, password)

    def needs_rehash(self, stored: str) -> bool:
        """Whether *stored* was made with other parameters than today's."""
        try:
            return self._hasher.check_needs_rehash(stored)
        except InvalidHashError:
            return True

    def close(self) -> None:
        """End the threads; what is still being computed is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, stored: str | None, password: str) -> bool:
        try:
            self._hasher.verify(stored or self._nobody, password[:MAX_PASSWORD])
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._waiting >= _MAX_WAITING:
            raise TooManyRequests(
                "Too many people are signing in at once.", hint="Try again.", retry_after=2
            )
        self._waiting += 1
        try:
            work = partial(function, *args, **kwargs)
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1
