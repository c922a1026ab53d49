"""What the tunnels of one person may still use on this node: shared by all of their streams.

Bytes are counted where streams count them anyway, and added up now and then. Only where a month's
traffic is limited each chunk is taken off what is left, in between, so that many connections at
once can't use more than there is: at most one chunk too much, whatever their number.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final, Protocol
from weakref import WeakSet

from underpass.control.quota import Quota, month_of, traffic_used_up
from underpass.core import metrics
from underpass.core.clock import Clock
from underpass.core.errors import UnderpassError
from underpass.core.token_bucket import TokenBucket
from underpass.gateway.entrypoints.metered import MeteredStream
from underpass.gateway.entrypoints.traffic import Counted
from underpass.links.stream import Stream

__all__ = ["Allowance", "Bookkeeper", "Cut", "Watcher"]

Cut = Callable[[UnderpassError], None]
"""Ends something open; the error says why."""


class Bookkeeper(Protocol):
    """Who keeps the account of all nodes (``allowances.Allowances``)."""

    def began(self, allowance: Allowance) -> None:
        """Something opened: there will be bytes to account for."""
        ...

    def used_up(self, allowance: Allowance) -> None:
        """The month's traffic has just been used up."""
        ...

    async def load(self, allowance: Allowance) -> None:
        """See how much of the month was used before.

        Raises:
            Unavailable: the account can't be read.
        """
        ...


class Watcher(Protocol):
    """What follows the quota while it lives."""

    def quota_changed(self) -> None:
        """Other limits hold from now on."""
        ...


class _Nobody:
    """Keeps no account: what is counted here is all there is."""

    def began(self, allowance: Allowance) -> None:
        """Nothing to do."""

    def used_up(self, allowance: Allowance) -> None:
        """Nothing to do."""

    async def load(self, allowance: Allowance) -> None:
        allowance.settle(allowance.month, 0)


_NOBODY: Final = _Nobody()


class Allowance:
    """See the module.

    Args:
        user_id: whose.
        clock: tells the month, and fills the buckets.
        quota: the limits; :meth:`change` gives others.
        books: the account it belongs to; without one it stands alone.

    Attributes:
        sent, received: the bandwidth, towards targets and back from them.
        watchers: told of other limits.
        spliced: pairs of sockets whose bytes the kernel moves.
    """

    def __init__(
        self, user_id: str, clock: Clock, quota: Quota | None = None,
        books: Bookkeeper = _NOBODY,
    ) -> None:  # fmt: skip
        self.user_id = user_id
        self.clock = clock
        self.month = month_of(clock.now())
        self.sent = TokenBucket(None, None, clock)
        self.received = TokenBucket(None, None, clock)
        self.watchers: WeakSet[Watcher] = WeakSet()
        self.spliced: set[Any] = set()
        self.loaded = False
        self._books = books
        self._open: dict[Counted, tuple[int, Cut | None]] = {}
        self._over = 0  # bytes of what is not open any more
        self._accounted = 0  # of all our bytes: in the account
        self._account = 0  # the account of this month, of all nodes
        self._left = math.inf
        self.quota = Quota()
        self.change(quota or Quota())

    # -- the limits -----------------------------------------------------------------------------

    def change(self, quota: Quota) -> None:
        """Other limits, also for what is open."""
        self.quota = quota
        self.sent.rate = self.received.rate = quota.bandwidth
        self.refresh()
        for watcher in tuple(self.watchers):
            watcher.quota_changed()

    @property
    def is_metered(self) -> bool:
        """Whether every chunk has to be counted as it passes."""
        return self.quota.monthly_traffic is not None

    @property
    def used(self) -> int:
        """Bytes of this month, of all nodes as far as known."""
        return self._account + self.unaccounted

    @property
    def unaccounted(self) -> int:
        """Bytes that no account has yet."""
        still = sum(each.bytes_in + each.bytes_out - base for each, (base, _) in self._open.items())
        return self._over + still - self._accounted

    @property
    def is_used_up(self) -> bool:
        """Whether nothing may pass any more this month."""
        return self._left <= 0

    @property
    def active(self) -> int:
        """How many streams are open."""
        return len(self._open)

    def check(self) -> None:
        """See whether anything may pass, as far as is known now.

        Raises:
            TooManyRequests: code ``quota_exceeded``: the month's traffic is used up.
        """
        limit = self.quota.monthly_traffic
        if limit is not None and self.is_used_up:
            metrics.QUOTA_REFUSALS.labels("monthly_traffic").inc()
            raise traffic_used_up(limit, self.used, self.clock.now())

    async def require(self) -> None:
        """The same, for certain.

        Raises:
            TooManyRequests: as :meth:`check`.
            Unavailable: the account can't be read.
        """
        if self.is_metered and not self.loaded:
            await self._books.load(self)
        self.check()

    # -- bytes ----------------------------------------------------------------------------------

    def begin(self, stream: Counted, cut: Cut, base: int = 0) -> None:
        """*stream*, the user's end of something, opened.

        Args:
            cut: called when it has to end.
            base: bytes it has counted so far that are none of the user's.
        """
        self._open[stream] = (base, cut)
        self._books.began(self)

    def end(self, stream: Counted) -> None:
        """It is over. Idempotent."""
        found = self._open.pop(stream, None)
        if found is not None:
            self._over += stream.bytes_in + stream.bytes_out - found[0]

    def take(self, count: int) -> bool:
        """Take *count* bytes off what is left; False: nothing was, and they may not pass.

        Those that need more than is left may pass, and are the last.
        """
        if self._left <= 0:
            return False
        self._left -= count
        if self._left <= 0:
            # Not from inside the stream that found out.
            asyncio.get_running_loop().call_soon(self._cut_all)
        return True

    def metered(self, stream: Stream) -> Stream:
        """*stream*, each chunk of which is taken off what is left."""
        return MeteredStream(stream, self.take)

    def refresh(self) -> None:
        """Add up what has passed; end everything when that is all there was."""
        if month_of(self.clock.now()) != self.month:
            return  # whoever keeps the books turns the page first
        limit = self.quota.monthly_traffic
        before = self._left
        self._left = math.inf if limit is None else limit - self.used
        if self._left <= 0 and (self._open or before > 0):
            self._cut_all()

    def _cut_all(self) -> None:
        limit = self.quota.monthly_traffic
        if limit is None or self._left > 0:
            return  # raised meanwhile
        error = traffic_used_up(limit, self.used, self.clock.now())
        for stream, (base, cut) in tuple(self._open.items()):
            if cut is not None and stream in self._open:
                self._open[stream] = (base, None)  # it may take a moment to end, and is told once
                metrics.QUOTA_CUTS.inc()
                cut(error)
        self._books.used_up(self)

    # -- the account ----------------------------------------------------------------------------

    def book(self) -> int:
        """Bytes to be added to the account of :attr:`month` now; they count as accounted for."""
        count = self.unaccounted
        self._accounted += count
        self._account += count
        return count

    def unbook(self, count: int) -> None:
        """*count* bytes could not be added; the next :meth:`book` has them again."""
        self._accounted -= count
        self._account -= count

    def settle(self, month: str, used: int) -> None:
        """The account of *month* holds *used* bytes, of all nodes."""
        if month == self.month:
            self._account = used
            self.loaded = True
            self.refresh()

    def turn(self) -> tuple[str, int] | None:
        """Begin a new month if it is time; gives the old one and bytes still to be added to it."""
        now = month_of(self.clock.now())
        if now == self.month:
            return None
        owed = (self.month, self.book())
        self.month, self._account, self.loaded = now, 0, False
        self.refresh()
        return owed
