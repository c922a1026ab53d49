"""Everybody's allowances on this node: kept equal to the stored quotas, and accounted for.

What passes is added to the month's account (``control.monthly_traffic``) every few seconds, and at
once when somebody's traffic is used up; the account is shared by all nodes and outlives them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

import structlog
from sqlalchemy.exc import SQLAlchemyError

from underpass.control.live import LiveBus, LiveMessage
from underpass.control.quota import WARN_AT, Quota, month_of
from underpass.control.quotas import TOPIC
from underpass.core.clock import Clock
from underpass.core.errors import Unavailable, UnderpassError
from underpass.core.supervisor import Supervisor
from underpass.gateway.entrypoints.allowance import Allowance

__all__ = ["FLUSH", "SWEEP", "TICK", "Allowances"]

_log = structlog.get_logger(__name__)

TICK: Final = 1.0
"""Seconds between two looks at what has passed."""
FLUSH: Final = 5.0
"""Seconds between two entries into the account; what a crash loses."""
STOP_TIMEOUT: Final = 5.0
"""Seconds for the entry that is being made, and again for the last ones, when the node stops."""
SWEEP: Final = 6 * 3600.0
"""Seconds between looks for what nobody needs any more."""
_TIMEOUT: Final = 5.0
_MAX_TOLD: Final = 10_000
_DATABASE: Final = (UnderpassError, SQLAlchemyError, OSError, TimeoutError)


class QuotasLike(Protocol):
    """Where quotas are stored (``control.quotas.Quotas``)."""

    @property
    def defaults(self) -> Quota: ...
    async def stored(self) -> dict[str, dict[str, int | None]]: ...
    async def forget(self) -> None: ...


class TrafficLike(Protocol):
    """The account (``control.monthly_traffic.MonthlyTraffic``)."""

    async def used(self, user_id: str, month: str) -> int: ...
    async def add(self, user_id: str, month: str, count: int) -> int: ...
    async def tell(
        self, user_id: str, month: str, percent: int, details: dict[str, Any]
    ) -> bool: ...
    async def forget(self) -> None: ...


class Allowances:
    """See the module.

    Args:
        quotas: the limits.
        traffic: the account.
        bus: news of changed limits, which hold at once.
    """

    def __init__(
        self, quotas: QuotasLike, traffic: TrafficLike, clock: Clock, bus: LiveBus
    ) -> None:
        self._quotas = quotas
        self._traffic = traffic
        self._clock = clock
        self._limits: dict[str, dict[str, int | None]] = {}
        self._known: WeakValueDictionary[str, Allowance] = WeakValueDictionary()
        self._busy: set[Allowance] = set()  # something is open or not accounted for
        self._owed: list[tuple[str, str, int]] = []  # user, month gone by, bytes
        self._told: dict[str, tuple[str, int]] = {}
        self._turn = asyncio.Lock()
        self._supervisor = Supervisor("quotas")
        bus.listen(self._heard)

    async def start(self) -> None:
        """Read the limits, then keep accounts until :meth:`stop`.

        Raises:
            SQLAlchemyError, OSError: the database can't be read.
        """
        # News that came meanwhile are newer than what is read.
        self._limits = await self._quotas.stored() | self._limits
        for allowance in tuple(self._known.values()):
            allowance.change(self._quota(allowance.user_id))
        self._supervisor.start(self._keep(), "keep")

    async def stop(self) -> None:
        """Account for everything that has passed, if the database can. Idempotent."""
        try:
            # Not while an entry is being made: nobody would know whether it was.
            async with asyncio.timeout(STOP_TIMEOUT), self._turn:
                await self._supervisor.close()
        except TimeoutError:
            _log.warning("traffic_not_settled", waited=STOP_TIMEOUT)
            await self._supervisor.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await self.flush()
        except TimeoutError:
            _log.error("traffic_lost", people=len(self._busy) + len(self._owed))

    def of(self, user_id: str) -> Allowance:
        """Somebody's, the same for all of their streams."""
        allowance = self._known.get(user_id)
        if allowance is None:
            allowance = Allowance(user_id, self._clock, self._quota(user_id), self)
            self._known[user_id] = allowance
        return allowance

    def active(self, user_id: str) -> int:
        """How many streams somebody has open on this node."""
        allowance = self._known.get(user_id)
        return 0 if allowance is None else allowance.active

    async def used(self, user_id: str) -> int:
        """Bytes of this month, those not accounted for included.

        Raises:
            SQLAlchemyError, OSError: the database can't be read.
        """
        allowance = self._known.get(user_id)
        if allowance is not None:
            # Whoever asks may lose their patience; an entry once begun is made.
            with contextlib.suppress(RuntimeError):  # on the way out
                await asyncio.shield(self._supervisor.start(self._settle(allowance), "asked"))
        waiting = 0 if allowance is None else allowance.unaccounted
        return waiting + await self._traffic.used(user_id, month_of(self._clock.now()))

    def _quota(self, user_id: str) -> Quota:
        return self._quotas.defaults.with_limits(self._limits.get(user_id, {}))

    def _heard(self, message: LiveMessage) -> None:
        if message.topic != TOPIC:
            return
        user_id = str(message.data["user_id"])
        self._limits[user_id] = message.data["limits"]
        allowance = self._known.get(user_id)
        if allowance is not None:
            allowance.change(self._quota(user_id))

    # -- Bookkeeper (allowance.py) --------------------------------------------------------------

    def began(self, allowance: Allowance) -> None:
        """An allowance's: there will be bytes to account for."""
        self._busy.add(allowance)

    def used_up(self, allowance: Allowance) -> None:
        """An allowance's: it is used up."""
        try:
            self._supervisor.start(self._settle(allowance), "used up")
        except RuntimeError:
            return  # on the way out; ``stop`` accounts for everything

    async def load(self, allowance: Allowance) -> None:
        """An allowance's: see how much of the month was used before."""
        try:
            async with asyncio.timeout(_TIMEOUT), self._turn:
                if not allowance.loaded:
                    month = allowance.month
                    allowance.settle(month, await self._traffic.used(allowance.user_id, month))
        except (SQLAlchemyError, OSError, TimeoutError):
            raise Unavailable(
                "Nobody can say how much of this month's traffic is used: the database does not "
                "answer.",
                code="no_answer", hint="Try again in a moment.", retry_after=1,
            ) from None  # fmt: skip

    # -- the account ----------------------------------------------------------------------------

    async def _keep(self) -> None:
        flushed = swept = self._clock.monotonic()
        while True:
            await asyncio.sleep(TICK)
            try:
                await self.tick()
                now = self._clock.monotonic()
                if now - flushed >= FLUSH - TICK / 2:  # a tick is never exact
                    flushed = now
                    await self.flush()
                if now - swept >= SWEEP:
                    swept = now
                    await self._traffic.forget()
                    await self._quotas.forget()
            except Exception:  # noqa: BLE001 - whatever goes wrong once must not end the keeping
                _log.exception("quotas_not_kept")

    async def tick(self) -> None:
        """Turn the month's page, and end what has used up its traffic."""
        known = tuple(self._known.values())
        for allowance in known:
            owed = allowance.turn()
            if owed is not None and owed[1]:
                self._owed.append((allowance.user_id, *owed))
            if allowance.is_metered and allowance.loaded:
                allowance.refresh()
        for allowance in known:
            if allowance.is_metered and allowance.active and not allowance.loaded:
                try:
                    await self.load(allowance)
                except _DATABASE as error:
                    _log.warning("traffic_not_read", user=allowance.user_id, error=str(error)[:300])
                    return

    async def flush(self) -> None:
        """Account for what has passed since the last time."""
        async with self._turn:
            owed, self._owed = self._owed, []
            for index, (user_id, month, count) in enumerate(owed):
                try:
                    await self._traffic.add(user_id, month, count)
                except _DATABASE as error:
                    self._owed += owed[index:]
                    _log.warning("traffic_not_kept", user=user_id, error=str(error)[:300])
                    break
            for allowance in tuple(self._busy):
                if not await self._account(allowance):
                    break
                if not allowance.active and not allowance.unaccounted:
                    self._busy.discard(allowance)

    async def _settle(self, allowance: Allowance) -> None:
        async with self._turn:
            await self._account(allowance)

    async def _account(self, allowance: Allowance) -> bool:
        """Enter what is new; False when the database can't."""
        month, count = allowance.month, allowance.book()
        if not count:
            return True
        try:
            used = await self._traffic.add(allowance.user_id, month, count)
        except _DATABASE as error:
            if month == allowance.month:
                allowance.unbook(count)
            else:
                self._owed.append((allowance.user_id, month, count))
            _log.warning("traffic_not_kept", user=allowance.user_id, error=str(error)[:300])
            return False
        allowance.settle(month, used)
        try:
            await self._tell(allowance, month, used)
        except _DATABASE as error:
            _log.warning("quota_not_told", user=allowance.user_id, error=str(error)[:300])
        return True

    async def _tell(self, allowance: Allowance, month: str, used: int) -> None:
        limit = allowance.quota.monthly_traffic
        if limit is None or used < WARN_AT * limit:
            return
        percent = 100 if used >= limit else round(100 * WARN_AT)
        if self._told.get(allowance.user_id, ("", 0)) >= (month, percent):
            return
        if len(self._told) >= _MAX_TOLD:
            self._told.clear()  # the account knows, too
        await self._traffic.tell(allowance.user_id, month, percent, {"limit": limit, "used": used})
        self._told[allowance.user_id] = (month, percent)
