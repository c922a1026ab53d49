"""How many spare connections to keep for a link, and which targets are worth one. No I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["BULK_STREAM", "MOST_SPARES", "Demand", "TargetHistory"]

MOST_SPARES: Final = 8
FORGET: Final = 60.0
"""Seconds without a wish after which no spares are kept."""
CALM: Final = 30.0
"""Seconds without a missing spare after which half as many are kept, but at least one."""
BULK_STREAM: Final = 1 << 20
"""Bytes a target's streams carry on average above which each gets a connection of its own."""
_WEIGHT: Final = 0.3
_MAX_TARGETS: Final = 256


class Demand:
    """How many spares to keep: doubled when one is missing, halved when none has been for a while.

    Args:
        monotonic: where the time comes from, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._size = 0
        self._last = self._missed = monotonic()

    def wanted(self, *, hit: bool) -> None:
        """Somebody wanted a spare; *hit*: there was one."""
        self._decay()
        self._last = self._monotonic()
        if not hit:
            self._missed = self._last
            self._size = min(MOST_SPARES, max(1, self._size * 2))

    @property
    def size(self) -> int:
        """Spares to keep now, 0 to :data:`MOST_SPARES`."""
        self._decay()
        return self._size

    def _decay(self) -> None:
        now = self._monotonic()
        if now - self._last >= FORGET:
            self._size = 0
        while self._size > 1 and now - self._missed >= CALM:
            self._missed += CALM
            self._size //= 2


class Measured(Protocol):
    """What a :class:`TargetHistory` looks at: a stream."""

    closed: bool
    bytes_in: int
    bytes_out: int


class TargetHistory:
    """What the streams to each target of one link carried, as a moving average.

    Looks at the newest stream to a target whenever the next one is opened: what it carried if it
    is over, what it has carried so far if that is much already; nothing has to be told at its end.
    """

    def __init__(self) -> None:
        self._averages: OrderedDict[str, float | None] = OrderedDict()
        self._newest: dict[str, Measured] = {}

    def is_bulk(self, target: str) -> bool:
        """Whether a new stream to *target* is expected to carry much."""
        stream = self._newest.get(target)
        if stream is not None:
            size = stream.bytes_in + stream.bytes_out
            if stream.closed or size >= BULK_STREAM:
                del self._newest[target]
                before = self._averages.get(target)
                step = size - before if before is not None else 0
                self._averages[target] = (size if before is None else before) + _WEIGHT * step
        return (self._averages.get(target) or 0.0) >= BULK_STREAM

    def opened(self, target: str, stream: Measured) -> None:
        """*stream* was opened to *target*."""
        self._averages.setdefault(target, None)
        self._averages.move_to_end(target)
        self._newest[target] = stream
        if len(self._averages) > _MAX_TARGETS:
            oldest, _ = self._averages.popitem(last=False)
            self._newest.pop(oldest, None)
