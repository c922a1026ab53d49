"""``relay(a, b)``: move bytes both ways between two streams until both directions have ended.

The only copy loop in the code base. Each direction is a :class:`_Flow` between the callbacks of one
stream and the ``send`` of the other: no task and no await per chunk. Half-close is kept: the end of
one direction is passed on and the other goes on. Whatever happens, both streams are closed after.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from underpass.core.errors import UnderpassError
from underpass.links.stream import Stream

__all__ = ["RelayResult", "Tap", "relay"]


class Tap(Protocol):
    """Sees the bytes that pass, in order, before they are sent on. Must be quick; may not raise."""

    def a_to_b(self, data: bytes) -> None:
        """*data* goes from the first stream to the second."""
        ...

    def b_to_a(self, data: bytes) -> None:
        """*data* goes from the second stream to the first."""
        ...


@dataclass(frozen=True, slots=True)
class RelayResult:
    """What passed, and how it ended."""

    a_to_b: int
    """Bytes."""
    b_to_a: int
    """Bytes."""
    error: UnderpassError | None = None
    """What cut it short; None when both directions came to their end."""


class _Flow:
    """One direction: the receiver of *source*, writing to *target*."""

    __slots__ = ("_over", "_paused", "_source", "_target", "count", "ended", "other")

    def __init__(self, source: Stream, target: Stream, over: _Over) -> None:
        self._source = source
        self._target = target
        self._over = over
        self.other: _Flow | None = None
        self._paused = False
        self.count = 0
        self.ended = False

    def data(self, chunk: bytes | memoryview) -> None:
        self.count += len(chunk)
        target = self._target
        target.send(chunk)
        if target.full and not self._paused:
            self._paused = True
            self._source.pause()

    def eof(self) -> None:
        self.ended = True
        self._target.finish()
        if self.other is not None and self.other.ended:
            self._over.set(None)

    def lost(self, error: UnderpassError) -> None:
        self._over.set(error)

    def writable(self) -> None:
        # Our source, as the other flow's target, can be written again: its source may go on.
        if self.other is not None:
            self.other.go_on()

    def go_on(self) -> None:
        if self._paused and not self._target.full:
            self._paused = False
            self._source.resume()


class _TappedFlow(_Flow):
    __slots__ = ("_tap",)

    def __init__(self, source: Stream, target: Stream, over: _Over, tap: object) -> None:
        super().__init__(source, target, over)
        self._tap = tap

    def data(self, chunk: bytes | memoryview) -> None:
        chunk = chunk if type(chunk) is bytes else bytes(chunk)
        self._tap(chunk)  # type: ignore[operator]
        super().data(chunk)


class _Over:
    """The end of a relay, told once."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[UnderpassError | None] = (
            asyncio.get_running_loop().create_future()
        )

    def set(self, error: UnderpassError | None) -> None:
        if not self.future.done():
            self.future.set_result(error)


async def relay(a: Stream, b: Stream, *, tap: Tap | None = None) -> RelayResult:
    """Relay between *a* and *b* until both directions have ended or either stream is lost.

    Both streams are closed afterwards: gracefully when both directions came to their end, else
    by abort with the code of what happened. Cancelling aborts both.

    Args:
        tap: sees all bytes.
    """
    over = _Over()
    if tap is None:
        forth, back = _Flow(a, b, over), _Flow(b, a, over)
    else:
        forth, back = _TappedFlow(a, b, over, tap.a_to_b), _TappedFlow(b, a, over, tap.b_to_a)
    forth.other = back
    back.other = forth
    try:
        a.attach(forth)
        b.attach(back)
        error = await over.future
    except BaseException:
        a.abort("cancelled", "The relay was cancelled.")
        b.abort("cancelled", "The relay was cancelled.")
        raise
    finally:
        forth.other = back.other = None  # let go without waiting for the garbage collector
    if error is None:
        await a.close()
        await b.close()
    else:
        a.abort(error.code, error.message)
        b.abort(error.code, error.message)
    return RelayResult(forth.count, back.count, error)
