"""Which way an agent's next link is dialled first when it may choose: a pure object.

``auto`` dials TCP, then a WebSocket, then QUIC. What is remembered between links:

- A WebSocket that worked is tried first once, since TCP before it would only fail again.
- QUIC that worked because the TCP ways took long to fail is tried first for an hour.
- When a TCP or WebSocket link *stalled*, QUIC is tried first for the next one; if that stalls as
  well or is not to be had, it is left alone for ten minutes.
- QUIC that fell silent (UDP is blocked from some moment on) is left alone as long, and the usual
  ways come first.
- A link that is not the best there could be is looked after: :meth:`LinkChoice.better` says what is
  worth a try while it carries nothing. Over WebSocket or QUIC that is TCP; over TCP or WebSocket
  that stalls, QUIC.

**Measured** is what people feel: the round trip of pings through the link itself, every ten
seconds. A ping stalls when it takes longer than the quickest by more than 0.2 s, and by more than
twice as much as that took: over TCP everything waits while one lost segment is sent again, over
QUIC only its own stream does. A link is poor when at least a third of its last thirty pings (and of
no fewer than six) stalled.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

from underpass.links.dial import DialTransport
from underpass.links.transports.transport import Carrier

__all__ = ["LinkChoice", "PathQuality"]

SLOW: Final = 5.0
"""Seconds of an ``auto`` dial that ended with QUIC from which on TCP first is not worth it."""
PREFER_QUIC: Final = 3600.0
LEAVE_QUIC: Final = 600.0
_SAMPLES: Final = 30
_LEAST: Final = 6
_STALL: Final = 0.2


class PathQuality:
    """Whether one link stalls."""

    def __init__(self) -> None:
        self._trips: deque[float] = deque(maxlen=_SAMPLES)

    def add(self, trip: float) -> None:
        """Take the round trip of a ping, in seconds."""
        self._trips.append(trip)

    @property
    def poor(self) -> bool:
        """Whether so many pings stalled that another way may be better."""
        if len(self._trips) < _LEAST:
            return False
        quickest = min(self._trips)
        limit = quickest + max(_STALL, 2 * quickest)
        return 3 * sum(trip > limit for trip in self._trips) >= len(self._trips)


class LinkChoice:
    """What is dialled first, from how the links before went."""

    def __init__(self) -> None:
        self._next: DialTransport = "auto"
        self._quic_until = float("-inf")
        self._no_quic_until = float("-inf")
        self.why = "nothing is known of other ways"
        """Why the last :meth:`first` was what it was."""
        self._next_why = ""

    def first(self) -> DialTransport:
        """What to dial now; ``auto`` after that, until a link tells otherwise."""
        first, self._next = self._next, "auto"
        self.why, self._next_why = self._next_why or "the usual ways in order", ""
        return first

    def _say(self, first: DialTransport, why: str) -> None:
        self._next, self._next_why = first, why

    def better(self, carrier: Carrier, *, poor: bool, now: float) -> Literal["tcp", "quic"] | None:
        """A way that may be better than the link there is, if one is known."""
        if poor and carrier != "quic":
            return "quic" if now >= self._no_quic_until else None
        if carrier == "websocket" or (carrier == "quic" and now >= self._quic_until):
            return "tcp"
        return None

    def prefer(self, way: Literal["tcp", "quic"], now: float) -> None:
        """*way* was tried while the link idled, and works."""
        self._say(way, f"{way} works and is better than the link before")
        if way == "quic":
            self._quic_until = now + PREFER_QUIC

    def quic_failed(self, now: float) -> None:
        """QUIC was tried first, and did not get through."""
        self._quic_until = now
        self._no_quic_until = now + LEAVE_QUIC

    def ended(
        self,
        carrier: Carrier,
        *,
        dialled_in: float,
        poor: bool,
        now: float,
        silent: bool = False,
    ) -> None:
        """A link is over.

        Args:
            carrier: what carried it.
            dialled_in: seconds its dial took.
            poor: what its :class:`PathQuality` said.
            now: seconds on a monotonic clock.
            silent: it ended because nothing came any more.
        """
        if self._next_why:
            return  # it was given up for a better one
        if carrier == "quic":
            if silent:
                self.quic_failed(now)
                self._say("auto", "quic fell silent")
                return
            if poor:
                self.quic_failed(now)
            elif dialled_in >= SLOW:
                self._quic_until = now + PREFER_QUIC
            if now < self._quic_until:
                self._say("quic", "quic served well before")
        elif poor and now >= self._no_quic_until:
            self._quic_until = now + PREFER_QUIC
            self._say("quic", f"{carrier} stalled")
        elif carrier == "websocket":
            self._say("websocket", "websocket worked before")
