"""Telling apart streams somebody waits for from bulk, when nobody said which they are.

A stream is *quick* while it sends little and in small pieces: a keystroke, a question, the first
bytes of a connection. Quick streams go before bulk, as if opened as interactive, and somebody who
goes on typing keeps the link calm (``outbox.py``). Nobody has to be believed:

- a piece above 2 KiB is not quick, nor is what queues behind it;
- a stream that has sent more than 64 KiB in this second or the last is not;
- quick streams together have a quarter of what the link sends, or 16 KiB a second where that is
  more. Whoever cuts bulk into small pieces, over however many streams, gets no more than that.

Only where there is something to go before: on a link that is neither waiting nor carries bulk,
nothing of this is looked at. Pure; time is counted in the mux's ticks.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CONVINCED", "SMALL", "SPARSE", "Habit", "Traffic"]

SMALL: Final = 2 << 10
"""Bytes of the largest piece that is quick."""
SPARSE: Final = 64 << 10
"""Bytes a second of a stream that is quick, each way."""
_FREE: Final = 16 << 10
"""Bytes a second quick streams have on any link."""
_SHARE: Final = 4
_HEAVY: Final = 1 << 20
"""Bytes a second in large pieces from which on a link carries bulk."""
CONVINCED: Final = 4
"""Quick pieces, sent or received beside bulk in two seconds, that are somebody typing."""


class Traffic:
    """What one link carries, by the second.

    Attributes:
        second: how many ticks there were.
        heavy: it carries bulk, now or a second ago.
    """

    __slots__ = ("_large", "_quick", "_sent", "heavy", "second")

    def __init__(self) -> None:
        self.second = 0
        self.heavy = False
        self._large = 0
        self._sent = 0
        self._quick = 0

    def tick(self, *, beside: bool = False) -> None:
        """A second has passed.

        Args:
            beside: bulk goes by beside the link, on connections of its own.
        """
        self.second += 1
        self.heavy = beside or self._large >= _HEAVY
        self._large = self._sent = self._quick = 0

    def large(self, size: int) -> None:
        """*size* bytes came in large pieces."""
        self._large += size
        if self._large >= _HEAVY:
            self.heavy = True

    def sent(self, size: int) -> None:
        """*size* bytes were sent in large pieces, or after waiting."""
        self._sent += size
        self.large(size)

    def grant(self, size: int) -> bool:
        """Whether *size* bytes more may go before others; counts them."""
        quick = self._quick + size
        if quick > _FREE and quick * _SHARE > self._sent:
            return False
        self._quick = quick
        return True


class Habit:
    """What one stream has done lately.

    Args:
        traffic: of its link.
    """

    __slots__ = ("_before", "_received", "_second", "_sent", "_small", "_small_before", "_traffic")

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._second = traffic.second
        self._sent = self._received = self._before = 0
        self._small = self._small_before = 0

    def _look(self) -> None:
        passed = self._traffic.second - self._second
        if passed:
            self._second += passed
            lately = passed == 1
            self._before = max(self._sent, self._received) if lately else 0
            self._small_before = self._small if lately else 0
            self._sent = self._received = self._small = 0

    @property
    def typing(self) -> bool:
        """Whether somebody seems to wait for its bytes, again and again."""
        return (
            self._small + self._small_before >= CONVINCED
            and max(self._before, self._sent, self._received) <= SPARSE
        )

    def sending(self, size: int, behind: int = 0) -> bool:
        """*size* bytes are to be sent; whether they may go before others.

        Args:
            behind: bytes of the stream that still wait.
        """
        self._look()
        self._sent += size
        if behind + size > SMALL or self._sent > SPARSE or self._before > SPARSE:
            return False
        if not self._traffic.grant(size):
            return False
        self._small += 1
        return True

    def receiving(self, size: int) -> None:
        """*size* bytes were received."""
        self._look()
        self._received += size
        if size <= SMALL:
            self._small += 1
