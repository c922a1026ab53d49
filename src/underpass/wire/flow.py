"""Flow control without I/O: how much each stream of a link may be sent, and how that adapts.

A receiver grants *credit*; a sender spends it. What is granted and not yet consumed is under way,
most of it in queues nothing can overtake: the sender's socket, the network, the receiver's socket.
So a window should be as large as the path needs to stay full, and not much larger:

- It **grows** when a whole window was consumed in less than the path's round trip takes to refill
  it (twice, with some slack for scheduling): then the window is what limits the stream. It doubles;
  on long paths, where that would take seconds, it becomes four times as large.
- It **halves** when consuming a whole window took more than twice that: then what is under way
  waits in a queue, and everybody else's bytes wait behind it.

The rule needs no message from the sender; it is the auto-tuning of QUIC implementations, plus the
way back. On a path of 100 ms a stream that keeps up gets to 16 MiB. On loopback it gets some MiB
for bulk alone, since few and large steps cost less; while the link is *calm* (somebody types) it
goes down to 16 KiB there, and a keystroke finds next to no queue. A link's windows share one
budget, of which a part is kept for those that grow: hundreds of idle streams must not slow the one
in use.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "EARLY_WINDOW",
    "INITIAL_WINDOW",
    "LINK_WINDOW",
    "MAX_WINDOW",
    "ReceiveWindow",
    "WindowBudget",
]

EARLY_WINDOW: Final = 16 << 10
"""Bytes an opener may send before the peer has accepted; also the least a stream ever has."""
INITIAL_WINDOW: Final = 256 << 10
"""Bytes a stream starts with once it is accepted, while half of the link's budget is left."""
MAX_WINDOW: Final = 16 << 20
"""Bytes a stream's window grows to at most."""
LINK_WINDOW: Final = 48 << 20
"""Bytes all windows of a link may have together (each stream keeps EARLY_WINDOW beyond that)."""
_SMALL_WINDOW: Final = 64 << 10
_SLACK: Final = 0.004
"""Seconds that busy processes may need to hand over to each other, on any path."""
_NO_DISTANCE: Final = 0.0003
"""Seconds of a round trip that are scheduling, not distance; a calm link grants nothing for it."""
_UNKNOWN_TRIP: Final = 0.05
"""Seconds taken for the round trip before it was measured."""
_LONG_TRIP: Final = 0.02
"""Seconds: on paths longer than this a window grows to four times its size at once."""
_SHORT_TRIP: Final = 0.005
"""Seconds: on paths longer than this a window never shrinks below INITIAL_WINDOW, because growing
again would take long."""


class WindowBudget:
    """What the windows of one link share.

    Args:
        cap: bytes in all.
    """

    __slots__ = ("cap", "used")

    def __init__(self, cap: int = LINK_WINDOW) -> None:
        self.cap = cap
        self.used = 0

    def first(self) -> int:
        """Bytes a new stream should start with, by what is left."""
        if self.used < self.cap // 2:
            return INITIAL_WINDOW
        return _SMALL_WINDOW if self.used < self.cap - self.cap // 8 else EARLY_WINDOW

    def take(self, want: int) -> int:
        """Take up to *want* bytes; returns what was there (perhaps 0)."""
        got = max(0, min(want, self.cap - self.used))
        self.used += got
        return got

    def give_back(self, count: int) -> None:
        """Return *count* bytes taken before."""
        self.used -= count


class ReceiveWindow:
    """What one stream's peer may send, seen from the receiving end.

    The mux counts ``left``, the credit the peer still has, down and ends the link when it would go
    below zero; it counts what the reader consumed up in ``owed`` and asks for a :meth:`grant` when
    that has reached ``step``.

    Args:
        budget: shared by the link's streams.
        largest: bytes the window may grow to.
    """

    __slots__ = (
        "_budget",
        "_epoch",
        "_epoch_bytes",
        "_largest",
        "_taken",
        "left",
        "owed",
        "size",
        "step",
    )

    def __init__(self, budget: WindowBudget, largest: int = MAX_WINDOW) -> None:
        self._budget = budget
        self._largest = largest
        self._taken: int = 0
        self.size = self.left = EARLY_WINDOW
        self.owed = 0
        self.step = self._step()
        self._epoch: float | None = None
        self._epoch_bytes = 0

    def widen(self, size: int | None = None) -> int:
        """Grow to *size* bytes (default: what a new stream has) as far as the budget allows.

        Returns:
            the bytes of new credit.
        """
        if size is None:
            size = self._budget.first()
        more = self._budget.take(min(size, self._largest) - self.size)
        self._taken += more
        self.size += more
        self.left += more
        self.step = self._step()
        return more

    def _step(self) -> int:
        """Bytes per grant: of a small window the half, or grants would cost more than the bytes."""
        return self.size // (2 if self.size <= _SMALL_WINDOW else 4)

    def _narrow(self, least: int) -> None:
        """Halve the window, not below *least*, by owing less than was consumed."""
        less = max(0, min(self.size - max(self.size // 2, least), self.owed, self._taken))
        self._budget.give_back(less)
        self._taken -= less
        self.size -= less
        self.owed -= less
        self.step = self._step()

    def grant(self, now: float, rtt: float | None, *, calm: bool = False) -> int:
        """The credit to announce now that ``owed`` has reached ``step``; adapts the window.

        Args:
            now: seconds on a monotonic clock.
            rtt: the path's round trip in seconds without queues, None while unknown.
            calm: interactive streams are in use on the link.

        Returns:
            bytes; 0 when the window shrank by as much.
        """
        more = 0
        if self._epoch is None:
            self._epoch = now
        else:
            self._epoch_bytes += self.owed
            if self._epoch_bytes >= self.size:
                trip = rtt if rtt is not None else _UNKNOWN_TRIP
                worth = 2 * max(0.0, trip - _NO_DISTANCE) if calm else 2 * trip + _SLACK
                wanted = worth * self._epoch_bytes
                lasted = (now - self._epoch) * self.size
                if lasted < wanted:
                    more = self.widen(self.size * (4 if trip > _LONG_TRIP else 2))
                elif lasted > 2 * wanted:
                    self._narrow(EARLY_WINDOW if trip < _SHORT_TRIP else INITIAL_WINDOW)
                self._epoch = now
                self._epoch_bytes = 0
        credit = self.owed
        self.owed = 0
        self.left += credit
        return credit + more

    def release(self) -> None:
        """The stream is over: give the budget back. Safe to call twice."""
        self._budget.give_back(self._taken)
        self._taken = 0
