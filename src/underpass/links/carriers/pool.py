"""The node's end of dedicated carriers: asks agents for spares, holds them, hands them out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

import structlog

from underpass.core.clock import Clock, SystemClock
from underpass.links.carriers.demand import Demand, TargetHistory
from underpass.links.carriers.preface import TICKET_BYTES, BadSpare, Hello, HelloReader, answer
from underpass.links.carriers.spare import Spare
from underpass.links.link import Link

__all__ = ["FEATURE", "WANT", "SpareDesk", "SparePool"]

_log = structlog.get_logger(__name__)

FEATURE: Final = "dedicated"
"""What an agent that dials spares says in its handshake."""
WANT: Final = "carrier.want"
"""The notice that carries tickets, one for each spare that is wanted."""
IDLE: Final = 60.0
"""Seconds an unused spare is held."""
TICKET_LIFE: Final = 15.0
"""Seconds an agent has to come with a ticket."""
GREETING: Final = 10.0
"""Seconds a connection has for its hello."""
MAX_GREETINGS: Final = 1024
_LONGEST_PAUSE: Final = 300.0


class SparePool:
    """The spares of one link.

    Args:
        link: over plain TCP, to an agent that knows :data:`FEATURE`.
        key: see :func:`underpass.links.carriers.preface.carrier_key`.
        desk: where tickets are found again.
        clock: for the demand.
        idle: seconds an unused spare is held.
        ticket_life: seconds a ticket can be used.
    """

    def __init__(
        self,
        link: Link,
        key: bytes,
        desk: SpareDesk,
        *,
        clock: Clock,
        idle: float = IDLE,
        ticket_life: float = TICKET_LIFE,
    ) -> None:
        self.key = key
        self.history = TargetHistory()
        self._link = link
        self._desk = desk
        self._monotonic = clock.monotonic
        self._demand = Demand(clock.monotonic)
        self._idle = idle
        self._ticket_life = ticket_life
        self._loop = asyncio.get_running_loop()
        self._spares: list[Spare] = []
        self._issued: dict[bytes, asyncio.TimerHandle] = {}
        self._failures = 0
        self._pause_until = 0.0
        self._closed = False

    def __len__(self) -> int:
        """How many spares are held."""
        return len(self._spares)

    def take(self) -> Spare | None:
        """A spare for a stream, if there is one; either way it is noted that one was wanted."""
        spare = None
        while self._spares and spare is None:
            newest = self._spares.pop()  # the oldest go unused until they are let go
            spare = newest if newest.alive else None
        self._demand.wanted(hit=spare is not None)
        self._ask()
        return spare

    def _ask(self) -> None:
        """Tell the agent how many more are wanted."""
        missing = self._demand.size - len(self._spares) - len(self._issued)
        if missing <= 0 or self._closed or self._link.closed:
            return
        if self._monotonic() < self._pause_until:
            return
        tickets = [secrets.token_bytes(TICKET_BYTES) for _ in range(missing)]
        for ticket in tickets:
            self._desk.tickets[ticket] = self
            self._issued[ticket] = self._loop.call_later(self._ticket_life, self._expired, ticket)
        self._link.notify(WANT, {"tickets": tickets})

    def redeemed(self, ticket: bytes) -> None:
        """*ticket* was shown, rightly or not, and is worth nothing any more."""
        self._issued.pop(ticket).cancel()

    def _expired(self, ticket: bytes) -> None:
        self._desk.tickets.pop(ticket, None)
        del self._issued[ticket]
        if not self._issued:
            # The agent can't come: perhaps there is a balancer between us. Ask ever more rarely.
            self._failures += 1
            pause = min(_LONGEST_PAUSE, self._ticket_life * 2.0**self._failures)
            self._pause_until = self._monotonic() + pause
            _log.info("no_spares_came", agent=self._link.peer.id, again_in=pause)

    def add(self, spare: Spare) -> None:
        """Hold *spare*, which was proven."""
        self._failures = 0
        self._pause_until = 0.0
        if self._closed:
            spare.drop()
            return
        self._spares.append(spare)
        timer = self._loop.call_later(self._idle, spare.drop)

        def over(_: object) -> None:
            timer.cancel()
            if spare in self._spares:
                self._spares.remove(spare)

        spare.over.add_done_callback(over)

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        self._closed = True
        for ticket, timer in self._issued.items():
            timer.cancel()
            self._desk.tickets.pop(ticket, None)
        self._issued.clear()
        spares, self._spares = self._spares, []
        for spare in spares:
            spare.drop()


class SpareDesk:
    """Takes in connections that say they are spares, and knows every link's pool.

    Args:
        clock: where the time comes from.
        greeting: seconds a connection has for its hello.
        max_greetings: connections that have not said it; one more is dropped.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        greeting: float = GREETING,
        max_greetings: int = MAX_GREETINGS,
    ) -> None:
        self.tickets: dict[bytes, SparePool] = {}
        self._clock = clock or SystemClock()
        self._pools: dict[str, SparePool] = {}
        self._greeting = greeting
        self._max_greetings = max_greetings
        self._greetings: set[_Greeting] = set()

    def open(
        self, link: Link, key: bytes, *, idle: float = IDLE, ticket_life: float = TICKET_LIFE
    ) -> SparePool:
        """Make the pool of *link*; :meth:`close` it with the link."""
        pool = SparePool(link, key, self, clock=self._clock, idle=idle, ticket_life=ticket_life)
        self._pools[link.id] = pool
        return pool

    def pool_of(self, link: Link) -> SparePool | None:
        """The link's pool, if it can have dedicated carriers."""
        return self._pools.get(link.id)

    def close(self, link: Link) -> None:
        """The link is over."""
        pool = self._pools.pop(link.id, None)
        if pool is not None:
            pool.close()

    def stop(self) -> None:
        """Drop the connections that have not said their hello."""
        for greeting in tuple(self._greetings):
            greeting.drop()

    def take(self, transport: asyncio.Transport, seen: bytes) -> None:
        """Look after a connection whose first bytes, *seen*, are a spare's preface."""
        if len(self._greetings) >= self._max_greetings:
            transport.abort()
            return
        _Greeting(transport, self._greetings, self._greeting, self._came).data_received(seen)

    def _came(self, transport: asyncio.Transport, said: Hello) -> None:
        pool = self.tickets.pop(said.ticket, None)  # burned, whatever comes of it
        if pool is None:
            transport.abort()
            return
        pool.redeemed(said.ticket)
        if not said.proves(pool.key):
            _log.warning("spare_refused", ticket=said.ticket.hex())
            transport.abort()
            return
        spare = Spare(transport, said.ticket)
        transport.write(answer(pool.key, said.ticket))
        pool.add(spare)


class _Greeting(asyncio.Protocol):
    """A connection until its hello is whole."""

    def __init__(
        self,
        transport: asyncio.Transport,
        greetings: set[_Greeting],
        deadline: float,
        came: Callable[[asyncio.Transport, Hello], None],
    ) -> None:
        self._transport = transport
        self._greetings = greetings
        self._came = came
        self._reader = HelloReader()
        greetings.add(self)
        self._timer = asyncio.get_running_loop().call_later(deadline, self.drop)
        transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        try:
            said = self._reader.feed(data)
        except BadSpare:
            self.drop()
            return
        if said is not None:
            self._done()
            self._came(self._transport, said)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()
        self._transport.close()

    def drop(self) -> None:
        """End it."""
        self._done()
        self._transport.abort()

    def _done(self) -> None:
        self._timer.cancel()
        self._greetings.discard(self)
