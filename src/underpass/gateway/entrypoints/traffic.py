"""What passes through one mapping: connections and bytes, live and since the last look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Counted", "Traffic", "Usage"]


class Counted(Protocol):
    """The user's end of something open; counts on as long as it lives (every ``Stream`` does)."""

    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What has passed.

    Attributes:
        connections: that began (for UDP: flows).
        sent: bytes from users to the target.
        received: bytes from the target to users.
        last_active_at: Unix seconds of the last beginning or byte; None for never.
    """

    connections: int = 0
    sent: int = 0
    received: int = 0
    last_active_at: float | None = None

    def __bool__(self) -> bool:
        return bool(self.connections or self.sent or self.received)


class Traffic:
    """The counters of one mapping.

    What is open is read where it counts, so that a download shows while it runs, and nothing is
    added up per chunk.

    Attributes:
        last_active_at: Unix seconds; None for never.
        sent_rate: bytes per second from users, over the last two samples.
        received_rate: bytes per second to users.
        dropped: datagrams lost here, for whatever reason.
        writes: how often what was taken began to be written where it lasts.
    """

    def __init__(self) -> None:
        self._open: dict[Counted, tuple[int, int]] = {}
        self._connections = 0
        self._sent = 0
        self._received = 0
        self._taken = Usage()
        self._kept = Usage()
        self._writing = 0
        self.writes = 0
        self._seen = (0, 0)
        self._sampled: tuple[float, int, int] | None = None
        self.last_active_at: float | None = None
        self.sent_rate = 0.0
        self.received_rate = 0.0
        self.dropped = 0

    @property
    def active(self) -> int:
        """How many are open."""
        return len(self._open)

    def begin(self, stream: Counted, now: float, preamble: int = 0) -> None:
        """*stream* is the user's end of something that opened.

        Args:
            now: Unix seconds.
            preamble: its first bytes, which were for us and not for the target. What was written
                to it so far came from us, too.
        """
        self._open[stream] = (preamble, stream.bytes_out)
        self._connections += 1
        self.last_active_at = now

    def end(self, stream: Counted, now: float) -> None:
        """It is over. Idempotent."""
        base = self._open.pop(stream, None)
        if base is not None:
            self._sent += stream.bytes_in - base[0]
            self._received += stream.bytes_out - base[1]
            self.last_active_at = now

    def total(self) -> Usage:
        """Everything since the entry point opened."""
        sent, received = self._sent, self._received
        for stream, base in self._open.items():
            sent += stream.bytes_in - base[0]
            received += stream.bytes_out - base[1]
        return Usage(self._connections, sent, received, self.last_active_at)

    @property
    def settled(self) -> bool:
        """Whether nothing is being written: then totals that last and :meth:`pending` are all."""
        return not self._writing

    def pending(self) -> Usage:
        """What is not known to last yet; what is just being written is."""
        return _minus(self.total(), self._kept)

    def take(self) -> Usage:
        """What has passed since the last ``take``; count it where it lasts, then :meth:`keep` it
        or :meth:`give_back` (not when it is nothing)."""
        total = self.total()
        usage, self._taken = _minus(total, self._taken), total
        if usage:
            self._writing += 1
            self.writes += 1
        return usage

    def keep(self, usage: Usage) -> None:
        """*usage*, which was taken, is where it lasts."""
        self._writing -= 1
        self._kept = Usage(
            self._kept.connections + usage.connections,
            self._kept.sent + usage.sent,
            self._kept.received + usage.received,
        )

    def give_back(self, usage: Usage) -> None:
        """*usage* could not be kept; the next ``take`` has it again."""
        self._writing -= 1
        self._taken = _minus(self._taken, usage)

    def sample(self, now: float, monotonic: float) -> None:
        """Look at what passes; the rates are over the time since the last look.

        Args:
            now: Unix seconds.
            monotonic: seconds of a clock that never jumps.
        """
        total = self.total()
        if (total.sent, total.received) != self._seen:
            self._seen = (total.sent, total.received)
            self.last_active_at = now
        if self._sampled is not None:
            then, sent, received = self._sampled
            if monotonic <= then:
                return
            self.sent_rate = (total.sent - sent) / (monotonic - then)
            self.received_rate = (total.received - received) / (monotonic - then)
        self._sampled = (monotonic, total.sent, total.received)


def _minus(total: Usage, part: Usage) -> Usage:
    return Usage(
        total.connections - part.connections,
        total.sent - part.sent,
        total.received - part.received,
        total.last_active_at,
    )
