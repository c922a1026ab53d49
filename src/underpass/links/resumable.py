"""A stream over replaceable paths: links, gateways and carriers may go, the stream stays.

Both ends of it are ours (client and agent); what stands between them sees an ordinary stream, the
*path*, whose bytes are the records of ``wire/resumption.py``. Whoever owns the stream is told when
its path is lost and gives it another: :meth:`ResumableStream.dialled` at the client's end,
:meth:`ResumableStream.accepted` at the agent's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from underpass.core.errors import UnderpassError
from underpass.links.stream import BufferedStream, Stream, StreamReset, WriteGate
from underpass.wire.resume_records import Ended, Reset, ResumptionError, encode_reset
from underpass.wire.resumption import Resumption

__all__ = ["ACK_WITHIN", "ResumableOwner", "ResumableStream"]

ACK_WITHIN: Final = 0.2
"""Seconds after which the peer hears of any progress (of much progress: at once)."""
LINGER: Final = 120.0
"""Seconds without progress after which a closed stream is given up, its last bytes with it."""
_GIVEN_UP: Final = "resumable_given_up"
"""The code of a path that was aborted together with its stream; the text is the stream's code."""
_FINAL: Final = frozenset({"permission_lost", "unauthenticated", "terminated", "quota_exceeded"})
"""Codes of a path's end after which no other path can help."""


class ResumableOwner(Protocol):
    """Who keeps a resumable stream alive."""

    def detached(self, stream: ResumableStream, error: UnderpassError) -> None:
        """Its path is lost: bring another, or ``give_up``."""
        ...

    def over(self, stream: ResumableStream, error: UnderpassError | None) -> None:
        """It needs no path any more; None when both directions came to their end. Called once."""
        ...

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> object:
        """Run *coroutine* as a task the owner has."""
        ...


class _Path:
    """One path of a stream: the receiver of what it brings."""

    __slots__ = ("owner", "stream")

    def __init__(self, owner: ResumableStream, stream: Stream) -> None:
        self.owner = owner
        self.stream = stream

    def data(self, chunk: bytes | memoryview) -> None:
        self.owner.path_data(self, chunk)

    def eof(self) -> None:
        self.owner.path_lost(self, StreamReset("The path ended.", code="path_ended"))

    def lost(self, error: UnderpassError) -> None:
        self.owner.path_lost(self, error)

    def writable(self) -> None:
        self.owner.path_writable(self)


class ResumableStream(BufferedStream):
    """One end of a stream that outlives its paths.

    It takes at most ``WINDOW`` bytes into its replay ring before it is ``full``, and holds back
    the peer's writer when its own reader is slow, also while there is no path.

    Args:
        owner: told when a path is lost and when all is over.
        resumption: the state; only tests have a reason to give one.
    """

    def __init__(self, owner: ResumableOwner, resumption: Resumption | None = None) -> None:
        super().__init__()
        self.is_over = False
        """It needs no path any more."""
        self._owner = owner
        self._core = resumption or Resumption()
        self._path: _Path | None = None
        self._paused = False
        self._withheld = 0  # bytes pushed while paused: they count as consumed later
        self._was_full = False
        self._greeting = WriteGate()
        self._ack_timer: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._linger_at = 0
        self._loop = asyncio.get_running_loop()

    # -- paths ------------------------------------------------------------------------------------

    @property
    def has_path(self) -> bool:
        """Whether there is a path."""
        return self._path is not None

    @property
    def received(self) -> int:
        """What to claim to have when a path is opened."""
        return self._core.received

    @property
    def greeted(self) -> bool:
        """Whether the agent has been heard of at all."""
        return self._core.greeted

    @property
    def held(self) -> int:
        """Bytes of memory its replay ring takes."""
        return self._core.held

    async def settled(self) -> bool:
        """Wait until the agent has spoken on this path (True), or the path or all is over."""
        while self._path is not None and not self._core.ready:
            await self._greeting.wait()
        return self._path is not None

    def dialled(self, path: Stream) -> None:
        """Go on over *path*, which we opened to the agent."""
        if self.is_over:
            path.abort("closed")
            return
        self._core.dialled()
        self._attach(path, b"")

    def accepted(self, accept: Callable[[], Stream], peer_received: int) -> None:
        """Go on over the path that *accept* gives, for a client that has *peer_received*.

        Raises:
            ResumptionError: it can't have that; the stream is given up, nothing was accepted.
        """
        try:
            hello = self._core.accepted(peer_received)
        except ResumptionError as error:
            self.give_up(error)
            raise
        if self.is_over:
            # The client missed our last word: that we have everything.
            path = accept()
            path.send(hello)
            self._owner.spawn(path.close(), "end path")
        else:
            self._attach(accept(), hello)

    def _attach(self, stream: Stream, hello: bytes) -> None:
        old, self._path = self._path, None
        if old is not None:
            old.stream.abort("replaced", "Another path took its place.")
        self._path = path = _Path(self, stream)
        if hello:
            stream.send(hello)
        stream.attach(path)
        if self._path is path:
            self._moved()

    def path_data(self, path: _Path, chunk: bytes | memoryview) -> None:
        """A path's: bytes came."""
        if self._path is not path:
            return
        waited = not self._core.ready
        try:
            events = self._core.feed(chunk)
        except ResumptionError as error:
            self.give_up(error)
            return
        if waited and self._core.ready:
            self._greeting.open()
        for event in events:
            if self._path is not path:
                return  # given up by whoever took the bytes before
            if isinstance(event, memoryview):
                self._deliver(event)
            elif isinstance(event, Ended):
                if not self.closed:
                    self._ended()
            else:
                self._gone(event)
                return
        if self._path is path:
            self._moved()

    def path_writable(self, path: _Path) -> None:
        """A path's: it takes bytes again."""
        if self._path is path:
            self._moved()

    def path_lost(self, path: _Path, error: UnderpassError) -> None:
        """A path's: it is over."""
        if self._path is not path:
            return
        self._path = None
        self._core.detach()
        self._stop_ack_timer()
        self._greeting.open()
        path.stream.abort(error.code)  # a socket is closed by its owner, also after its end
        if error.code == _GIVEN_UP:
            self._gone(Reset(error.message or "stream_reset", ""))
        elif error.code in _FINAL:
            self._over(error)
        else:
            self._owner.detached(self, error)

    def _gone(self, reset: Reset) -> None:
        text = reset.message or "The other end gave the stream up."
        self._over(StreamReset(text, code=reset.code))

    def _deliver(self, piece: memoryview) -> None:
        size = len(piece)
        self.bytes_in += size
        if self.closed:
            self._core.consume(size)
            if self._core.delivered:  # nobody will read what comes; the writer should know
                self.give_up(StreamReset("The stream was closed at the other end.", code="closed"))
        elif self._receiver is None:
            self._arrived(piece)
        elif self._paused:
            # The receiver will keep it for a while; a view would pin the whole read it came in.
            self._withheld += size
            self._receiver.data(bytes(piece))
        else:
            self._receiver.data(piece)
            if self._paused:
                self._withheld += size
            else:
                self._core.consume(size)

    # -- sending ----------------------------------------------------------------------------------

    def _moved(self) -> None:
        """Something changed: do what can be done now."""
        self._pump()
        self._acknowledge_soon()
        if self._was_full and self._core.relieved:
            self._was_full = False
            self._open_gate()
            if self._receiver is not None:
                self._receiver.writable()
        if self._core.complete and not self.is_over:
            self._over(None)

    def _pump(self) -> None:
        path = self._path
        if path is not None:
            stream, core = path.stream, self._core
            while not stream.full and (record := core.next_record()) is not None:
                stream.send(record)

    def _acknowledge_soon(self) -> None:
        if self._core.owes_now:
            self._acknowledge()
        elif self._ack_timer is None and self._core.owes:
            self._ack_timer = self._loop.call_later(ACK_WITHIN, self._acknowledge)

    def _acknowledge(self) -> None:
        self._stop_ack_timer()
        if self._path is not None and self._core.owes:
            # Not held back by a full path: it is small, and the peer may be waiting for it.
            self._path.stream.send(self._core.acknowledge())

    def _stop_ack_timer(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None

    @property
    def full(self) -> bool:
        if self._core.full and not self.is_over:
            self._was_full = True
            return True
        return False

    def send(self, data: bytes | memoryview) -> None:
        if not (self.closed or self._core.finished):
            self.bytes_out += len(data)
            self._core.push(data)
            self._pump()

    def finish(self) -> None:
        if not self.closed:
            self._core.finish()
            self._moved()

    # -- receiving --------------------------------------------------------------------------------

    def _taken(self, count: int) -> None:
        if self._paused:
            self._withheld += count
        else:
            self._core.consume(count)
            self._acknowledge_soon()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        withheld, self._withheld = self._withheld, 0
        if withheld:
            self._core.consume(withheld)
            self._acknowledge_soon()

    # -- the end ----------------------------------------------------------------------------------

    async def close(self) -> None:
        if self.closed:
            return
        self._core.consume(self._withheld + self._buffered)
        self._chunks.clear()
        self._buffered = self._withheld = 0
        self._core.finish()
        self._lost(StreamReset("The stream was closed on this side.", code="closed"))
        if not self.is_over:
            self._watch_linger()
            self._moved()

    def _watch_linger(self) -> None:
        self._linger_at = self._core.acked
        self._linger = self._loop.call_later(LINGER, self._lingered)

    def _lingered(self) -> None:
        if self._core.acked > self._linger_at:
            self._watch_linger()
        else:
            text = "The stream was closed and its end did not come."
            self.give_up(StreamReset(text, code="lingered"))

    def abort(self, code: str = "cancelled", message: str = "") -> None:
        if not self.closed:
            self.give_up(StreamReset(message or "The stream was given up on this side.", code=code))

    def give_up(self, error: UnderpassError) -> None:
        """End it now because of *error*, also when it was closed and lingers. Idempotent."""
        path = self._path
        if path is not None and not self.is_over:
            # A full path would make a record wait; who never greeted us may not know records.
            if path.stream.full or not self._core.greeted:
                self._path = None
                path.stream.abort(_GIVEN_UP, error.code)
            else:
                path.stream.send(encode_reset(error.code, error.message))
        self._over(error)

    def _over(self, error: UnderpassError | None) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._stop_ack_timer()
        if self._linger is not None:
            self._linger.cancel()
        path, self._path = self._path, None
        if path is not None:
            self._owner.spawn(path.stream.close(), "end path")
        self._core.detach()
        self._core.clear()
        self._greeting.open()
        if error is not None:
            # What readers and writers of any stream expect.
            self._lost(StreamReset(error.message, code=error.code, hint=error.hint))
        self._owner.over(self, error)
