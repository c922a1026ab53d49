"""``relay(a, b)``: move bytes both ways between two streams until both directions have ended.

The only copy loop in the code base. Each direction is a :class:`_Flow` between the callbacks of one
stream and the ``send`` of the other: no task and no await per chunk. Half-close is kept: the end of
one direction is passed on and the other goes on. Whatever happens, both streams are closed after.
Between two plain sockets, bulk is moved in the kernel (``splice.py``).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from underpass.core.errors import UnderpassError
from underpass.links.habit import CONVINCED, SMALL, SPARSE
from underpass.links.sockets import SocketStream
from underpass.links.splice import BULK_CHUNK, BULK_START, PIPES, Splice, can_splice
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

    def stop(self) -> None:
        """The relay is over: move nothing more."""


class _SplicingFlow(_Flow):
    """One direction between two plain sockets: in the kernel while bytes come in bulk."""

    __slots__ = ("_bulk", "_may_splice", "_moved_lately", "_since", "_small", "_splice")
    _source: SocketStream
    _target: SocketStream

    def __init__(self, source: SocketStream, target: SocketStream, over: _Over) -> None:
        super().__init__(source, target, over)
        self._bulk = 0
        self._may_splice = True
        self._splice: Splice | None = None
        self._since = 0.0  # when the second began in which these were counted:
        self._small = self._moved_lately = 0

    def data(self, chunk: bytes | memoryview) -> None:
        super().data(chunk)
        size = len(chunk)
        if PIPES.splices:
            self._notice(size)
        if size < BULK_CHUNK:
            self._bulk = 0
            return
        self._bulk += size
        if self._bulk >= BULK_START and self._splice is None and self._may_splice:
            self._splice = Splice(self._source, self._target, self._moved, self._left)

    def _notice(self, size: int) -> None:
        """Bytes passed beside splices: they make room when somebody types here."""
        now = asyncio.get_running_loop().time()
        if now - self._since > 1.0:
            self._since = now
            self._small = self._moved_lately = 0
        self._moved_lately += size
        if size <= SMALL:
            self._small += 1
            if self._small >= CONVINCED and self._moved_lately <= SPARSE:
                PIPES.typed(now)

    def lost(self, error: UnderpassError) -> None:
        # The splices' descriptors must not keep alive what is being ended.
        self.stop()
        if self.other is not None:
            self.other.stop()
        super().lost(error)

    def go_on(self) -> None:
        if self._splice is None:
            super().go_on()
        else:
            self._splice.begin()

    def stop(self) -> None:
        splice, self._splice = self._splice, None
        self._may_splice = False
        if splice is not None:
            splice.stop()

    def _moved(self, count: int) -> None:
        self.count += count
        self._source.bytes_in += count
        self._target.bytes_out += count

    def _left(self, rest: bytes, again: bool) -> None:
        self._splice = None
        self._bulk = 0
        self._may_splice = again
        if rest:
            self._target.send(rest)
        self._paused = self._target.full
        if not self._paused:
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


async def relay(
    a: Stream, b: Stream, *, tap: Tap | None = None, splice: bool = True
) -> RelayResult:
    """Relay between *a* and *b* until both directions have ended or either stream is lost.

    Both streams are closed afterwards: gracefully when both directions came to their end, else
    by abort with the code of what happened. Cancelling aborts both.

    Args:
        tap: sees all bytes.
        splice: whether bulk may be moved in the kernel where both ends are plain sockets.
    """
    over = _Over()
    forth, back = _flows(a, b, over, tap, splice)
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
        forth.stop()
        back.stop()
        forth.other = back.other = None  # let go without waiting for the garbage collector
    if error is None:
        await a.close()
        await b.close()
    else:
        a.abort(error.code, error.message)
        b.abort(error.code, error.message)
    return RelayResult(forth.count, back.count, error)


def _flows(a: Stream, b: Stream, over: _Over, tap: Tap | None, splice: bool) -> tuple[_Flow, _Flow]:
    if tap is not None:
        return _TappedFlow(a, b, over, tap.a_to_b), _TappedFlow(b, a, over, tap.b_to_a)
    if splice and can_splice(a, b) and isinstance(a, SocketStream) and isinstance(b, SocketStream):
        return _SplicingFlow(a, b, over), _SplicingFlow(b, a, over)
    return _Flow(a, b, over), _Flow(b, a, over)
