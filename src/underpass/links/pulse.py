"""Whether the peer of a link is alive, and how long a round trip takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

__all__ = ["Pulse"]

_FIRST_PINGS: Final = 5
"""As many ticks ping at once: a single sample of the round trip says little."""
_ASLEEP: Final = 5.0
"""Seconds between two ticks that mean that this process did not run."""
_REMEMBERED: Final = 60
"""Round trips whose minimum counts: ten minutes' worth, so that a new route is noticed."""


class Pulse:
    """Counts what is heard of the peer, and pings it.

    Args:
        monotonic: a clock in seconds.
        ping: sends a ping with these 8 bytes.
        ping_every: seconds between pings.
        dead_after: seconds without a byte after which the peer is dead.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        ping: Callable[[bytes], None],
        ping_every: float,
        dead_after: float,
    ) -> None:
        self.monotonic = monotonic
        self.heard = True
        """Something came since the last tick; whoever receives sets it."""
        self.rtt: float | None = None
        """The last ping's round trip in seconds."""
        self.rtt_low: float | None = None
        """The shortest round trip lately: what the path takes without our own queues."""
        self._ping = ping
        self._ping_every = ping_every
        self._dead_after = dead_after
        self._heard_at = self._tick_at = monotonic()
        self._ping_at = self._heard_at
        self._number = 0
        self._sent: dict[int, float] = {}
        self._trips: deque[float] = deque(maxlen=_REMEMBERED)

    def ping(self) -> None:
        """Measure the round trip now."""
        self._ping_at = self.monotonic()
        self._number += 1
        for old in list(islice(self._sent, max(0, len(self._sent) - 7))):
            del self._sent[old]  # nobody answers those any more
        self._sent[self._number] = self._ping_at
        self._ping(self._number.to_bytes(8, "big"))

    def pong(self, payload: bytes) -> None:
        """The answer to a ping came; one we did not send says nothing."""
        sent = self._sent.pop(int.from_bytes(payload[:8], "big"), None)
        if sent is not None:
            self.rtt = max(0.0, self.monotonic() - sent)
            self._trips.append(self.rtt)
            self.rtt_low = min(self._trips)

    def tick(self) -> bool:
        """Ping when it is time; call it every second. False when the peer is dead."""
        now = self.monotonic()
        asleep = now - self._tick_at > _ASLEEP
        self._tick_at = now
        if self.heard or asleep:
            # Time in which this process did not run says nothing about the peer.
            self.heard = False
            self._heard_at = now
        elif now - self._heard_at >= self._dead_after:
            return False
        if self._number < _FIRST_PINGS or now - self._ping_at >= self._ping_every:
            self.ping()
        return True
