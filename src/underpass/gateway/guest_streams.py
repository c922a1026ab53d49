"""Holds guests' streams to what guests may use: connections, bandwidth, bytes in total."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from underpass.control.guest import is_guest
from underpass.control.guest_quota import Account, GuestQuota
from underpass.control.rate_limits import address_key
from underpass.control.subject import Subject
from underpass.links.relay import Tap
from underpass.links.shaping import shaped
from underpass.links.stream import Stream

__all__ = ["GuestPassage", "GuestStreams"]

Cut = Callable[[str, str], None]
"""(code, message): ends the stream."""

_UNKNOWN: Final = "unknown"


class GuestPassage:
    """One stream in which a guest takes part; as a tap it counts what passes."""

    def __init__(self, accounts: list[Account], cut: Cut) -> None:
        self._accounts = accounts
        self._cut = cut
        self._over = False

    @property
    def tap(self) -> Tap | None:
        """What counts; nothing for a stream without guests."""
        return self if self._accounts else None

    def around(self, remote: Stream) -> Stream:
        """*remote* within the guests' bandwidth."""
        return shaped(
            remote,
            inbound=[account.inbound for account in self._accounts],
            outbound=[account.outbound for account in self._accounts],
        )

    def a_to_b(self, data: bytes) -> None:
        self._count(len(data))

    def b_to_a(self, data: bytes) -> None:
        self._count(len(data))

    def _count(self, size: int) -> None:
        for account in self._accounts:
            account.used += size
        if not self._over and any(account.used_up for account in self._accounts):
            self._over = True
            # Not from within the relay, which is about to send this.
            asyncio.get_running_loop().call_soon(
                self._cut, "guest_traffic", "Guests may not transfer so much."
            )


class GuestStreams:
    """Args:
    quota: the accounts.
    address_of: where a guest who offers came from, by their id.
    """

    def __init__(self, quota: GuestQuota, address_of: Callable[[str], str | None]) -> None:
        self._quota = quota
        self._address_of = address_of

    def knock(self, subject: Subject) -> None:
        """*subject* asks for a stream, allowed or not.

        Raises:
            TooManyRequests, Unavailable: see :meth:`GuestQuota.knock`.
        """
        if subject.role == "guest":
            self._quota.knock([(subject.user_id, address_key(subject.ip))])

    @contextmanager
    def passing(self, subject: Subject, agent_id: str, cut: Cut) -> Iterator[GuestPassage]:
        """A stream of *subject*'s to *agent_id*, for as long as the context lasts. Whoever of the
        two is a guest has it counted.

        Raises:
            TooManyRequests, Unavailable: see :meth:`GuestQuota.enter`.
        """
        guests: list[tuple[str, str]] = []
        if subject.role == "guest":
            guests.append((subject.user_id, address_key(subject.ip)))
        if is_guest(agent_id):
            host = (agent_id, self._address_of(agent_id) or _UNKNOWN)
            self._quota.knock([host])
            guests.append(host)
        accounts = self._quota.enter(guests)
        try:
            yield GuestPassage(accounts, cut)
        finally:
            for account in accounts:
                account.leave()
