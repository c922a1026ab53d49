"""The login of a SOCKS5 mapping, compared in constant time, and how often it may be guessed."""

from __future__ import annotations

import hmac
from typing import Final

from underpass.control.mapping import Options
from underpass.control.rate_limits import address_key
from underpass.core.clock import Clock

__all__ = ["GUESSES", "PERIOD", "Logins"]

GUESSES: Final = 10
"""Wrong logins from one address in a period; then it waits for the next."""
PERIOD: Final = 60.0
_MAX_KNOWN: Final = 4096


class Logins:
    """Checks logins and counts the wrong ones per address (IPv6: per /64).

    Args:
        clock: when a period is over.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wrong: dict[str, tuple[float, int]] = {}

    def check(self, options: Options, source: str, username: str, password: str) -> bool:
        """Whether the login is right, and *source* has not guessed too often.

        Args:
            source: the address it came from.
        """
        key = address_key(source)
        until, wrong = self._wrong.get(key, (0.0, 0))
        now = self._clock.monotonic()
        if now >= until:
            until, wrong = now + PERIOD, 0
        right = (
            bool(options.username and options.password)
            & hmac.compare_digest(username.encode(), (options.username or "").encode())
            & hmac.compare_digest(password.encode(), (options.password or "").encode())
        )
        if right and wrong < GUESSES:
            return True
        if len(self._wrong) >= _MAX_KNOWN:
            self._wrong.clear()
        self._wrong[key] = (until, wrong + 1)
        return False
