"""What guests may use: counted per guest and per address, so that a new login is no new quota.

Pure counting in memory; bandwidth is a pair of token buckets that the streams' carrier applies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from underpass.core.clock import Clock
from underpass.core.errors import TooManyRequests, Unavailable, UnderpassError
from underpass.core.token_bucket import TokenBucket

__all__ = ["PER_ADDRESS", "PER_GUEST", "Account", "Allowed", "GuestQuota"]

WINDOW: Final = 12 * 3600.0
"""Seconds after which an address's traffic counts from nothing; a guest's login lasts as long."""
MINUTE: Final = 60.0
MAX_ACCOUNTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Allowed:
    """One account's limits.

    Attributes:
        offers: live at a time.
        links: at a time.
        connections: open at a time.
        openings: tried in a minute, allowed or not.
        traffic: bytes both ways in :data:`WINDOW`.
        bandwidth: bytes a second, each way.
    """

    offers: int
    links: int
    connections: int
    openings: int
    traffic: int
    bandwidth: float


PER_GUEST: Final = Allowed(3, 2, 32, 240, 2 << 30, 2e6)
PER_ADDRESS: Final = Allowed(10, 10, 64, 480, 4 << 30, 4e6)


class Account:
    """What one guest, or one address, has used.

    Attributes:
        connections: open now.
        used: bytes in this window.
        inbound, outbound: what its bytes wait for, towards the guest's peer and back.
    """

    def __init__(self, allowed: Allowed, clock: Clock) -> None:
        self.allowed = allowed
        self.connections = 0
        self.used = 0
        self.inbound = TokenBucket(allowed.bandwidth, clock=clock)
        self.outbound = TokenBucket(allowed.bandwidth, clock=clock)
        self._clock = clock
        self._window_ends = clock.monotonic() + WINDOW
        self._knocks = 0
        self._minute_ends = 0.0

    @property
    def idle(self) -> bool:
        """Whether forgetting it gives nothing away."""
        return not self.connections and self._clock.monotonic() >= self._window_ends

    @property
    def used_up(self) -> bool:
        """Whether nothing more may pass."""
        return self.used >= self.allowed.traffic

    def check(self) -> None:
        """Raises:
        TooManyRequests: one connection more is too many.
        """
        now = self._clock.monotonic()
        if now >= self._window_ends:
            self.used, self._window_ends = 0, now + WINDOW
        if self.used_up:
            raise spent()
        if self.connections >= self.allowed.connections:
            raise too_many()

    def knock(self) -> None:
        """Somebody tries to open a connection.

        Raises:
            TooManyRequests: too many did so within a minute.
        """
        now = self._clock.monotonic()
        if now >= self._minute_ends:
            self._knocks, self._minute_ends = 0, now + MINUTE
        if self._knocks >= self.allowed.openings:
            raise too_many()
        self._knocks += 1

    def enter(self) -> None:
        """A connection begins."""
        self.connections += 1

    def leave(self) -> None:
        """A connection is over."""
        self.connections -= 1


class GuestQuota:
    """The accounts of all guests and their addresses."""

    def __init__(
        self,
        clock: Clock,
        per_guest: Allowed = PER_GUEST,
        per_address: Allowed = PER_ADDRESS,
        max_accounts: int = MAX_ACCOUNTS,
    ) -> None:
        self.per_guest = per_guest
        self.per_address = per_address
        self._clock = clock
        self._max = max_accounts
        self._accounts: dict[str, Account] = {}

    def __len__(self) -> int:
        """How many accounts are remembered."""
        return len(self._accounts)

    def knock(self, guests: Iterable[tuple[str, str]]) -> None:
        """These guests (id, address key) try to open something, which costs us a look-up and a
        line in the audit trail whatever comes of it.

        Raises:
            TooManyRequests, Unavailable: as :meth:`enter`.
        """
        for account in self._of(guests):
            account.knock()

    def enter(self, guests: Iterable[tuple[str, str]]) -> list[Account]:
        """A connection of these guests (id, address key) begins; every account is told.

        Raises:
            TooManyRequests: for one of them it is too much (``guest_connections``,
                ``guest_traffic``); nothing is counted then.
            Unavailable: so many guests are not remembered (``too_many_guests``).
        """
        accounts = self._of(guests)
        for account in accounts:
            account.check()
        for account in accounts:
            account.enter()
        return accounts

    def _of(self, guests: Iterable[tuple[str, str]]) -> list[Account]:
        accounts: dict[str, Account] = {}
        for guest_id, address in guests:
            accounts[guest_id] = self._account(guest_id, self.per_guest)
            key = f"address:{address}"
            accounts[key] = self._account(key, self.per_address)
        return list(accounts.values())

    def _account(self, key: str, allowed: Allowed) -> Account:
        found = self._accounts.get(key)
        if found is None:
            if len(self._accounts) >= self._max:
                for old in [old for old, account in self._accounts.items() if account.idle]:
                    del self._accounts[old]
            if len(self._accounts) >= self._max:
                raise Unavailable("There are too many guests right now.", code="too_many_guests")
            found = self._accounts[key] = Account(allowed, self._clock)
        return found


def too_many() -> UnderpassError:
    """The error for who has, or tries to have, too many connections."""
    return TooManyRequests(
        "Guests may not have so many connections.", code="guest_connections",
        hint="Sign in, or close some.", retry_after=MINUTE,
    )  # fmt: skip


def spent() -> UnderpassError:
    """The error for who has used up the traffic."""
    return TooManyRequests(
        "Guests may not transfer so much.", code="guest_traffic", hint="Sign in.",
        retry_after=WINDOW,
    )  # fmt: skip
