"""Splicing: bytes from one socket to another that never leave the kernel (Linux).

A :class:`Splice` takes over one direction of a relay between two plain sockets while bytes come in
bulk, and gives it back when they no longer do, at the end, and when anything is in doubt. So ends
and half-close are found by the ordinary path, and only bytes and broken connections are met here.

The event loops forbid watching a transport's own descriptor, so each splice watches duplicates of
the two, and the source's transport is paused meanwhile. A duplicate keeps a connection open: it is
closed by :meth:`Splice.stop` before anybody expects the peer to hear of the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from typing import Final

from underpass.links.sockets import SocketStream

__all__ = ["BULK_CHUNK", "BULK_START", "PIPES", "Pipes", "Splice", "can_splice"]

BULK_START: Final = 256 << 10
"""Bytes that must have come in large pieces, without a small one between, before splicing pays."""
BULK_CHUNK: Final = 16 << 10
"""Bytes of a piece that counts as large."""
_SMALL_RUN: Final = 32
"""Small pieces in a row after which the ordinary path is the faster one again."""
_PIPE: Final = 1 << 20
_LEAST_PIPE: Final = 64 << 10
_TURN: Final = 1 << 20
"""Bytes that splices together move in one turn of the loop: others wait for theirs."""
_LEAST_TURN: Final = 256 << 10
"""Bytes one splice may move in a turn, however many there are."""
_CALM_TURN: Final = 256 << 10
_LEAST_CALM_TURN: Final = 32 << 10
"""The same while somebody types."""
_NEAR: Final = 4
"""A calm turn's part where both sockets lead to programs of this machine: all of them, and those of
the one who types, share its processors."""
_TYPED: Final = 2.0
"""Seconds somebody types after they were seen to."""
_CALM_GAP: Final = 0.001
"""Seconds between two such turns: a program that never sleeps keeps the others from running, those
of the one who types among them."""
_NOT_HERE: Final = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ENOMEM, errno.ENOBUFS}
)
"""The kernel does not do this with these sockets, or not now; the connections are fine."""

Pipe = tuple[int, int]
"""Descriptors: where it is read, where it is written."""


def can_splice(source: object, target: object) -> bool:
    """Whether bytes from *source* to *target* could be moved in the kernel."""
    return (
        isinstance(source, SocketStream)
        and isinstance(target, SocketStream)
        and hasattr(os, "splice")
        and source.descriptor is not None
        and target.descriptor is not None
    )


class Pipes:
    """Pipes to splice through; one is held only while it has bytes in it.

    Args:
        most: pipes in use at a time. The kernel lets an ordinary user have 64 MiB of them, and
            gives only tiny ones above that, to all of the user's programs.
        kept: empty pipes kept for later.
    """

    def __init__(self, most: int = 24, kept: int = 4) -> None:
        self._most = most
        self._kept = kept
        self._free: list[Pipe] = []
        self.taken = 0
        self.splices = 0
        """How many splices have begun and not ended."""
        self._links = 0  # over which somebody types
        self._typed_until = 0.0

    def calmed(self, calm: bool) -> None:
        """Somebody types over one link more, or one less."""
        self._links += 1 if calm else -1

    def typed(self, now: float) -> None:
        """Somebody types on a connection of its own; *now* is the event loop's time."""
        self._typed_until = now + _TYPED

    def calm(self, now: float) -> bool:
        """Whether somebody types: then splices move little at a time."""
        return self._links > 0 or now < self._typed_until

    def take(self) -> Pipe | None:
        """An empty pipe, or None when there are no more."""
        if self._free:
            self.taken += 1
            return self._free.pop()
        if self.taken >= self._most:
            return None
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None  # no descriptors left
        with contextlib.suppress(OSError):  # the user's pipes are above the kernel's limit
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, _PIPE)
        if fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ) < _LEAST_PIPE:
            _close(*pipe)
            return None
        self.taken += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Return *pipe*, which is empty."""
        self.taken -= 1
        if len(self._free) < self._kept:
            self._free.append(pipe)
        else:
            _close(*pipe)

    def drop(self, pipe: Pipe) -> None:
        """Close *pipe* with what is in it."""
        self.taken -= 1
        _close(*pipe)


PIPES: Final = Pipes()
"""The process's."""


class Splice:
    """One direction, moved in the kernel from now on.

    It begins when what was already written to *target* has been sent; until then bytes that are
    still pushed go the ordinary way, in front.

    Args:
        source: paused by this; whoever is told *left* resumes it.
        target: nobody else may write to it meanwhile.
        moved: told how many bytes were taken from *source*.
        left: told that the direction is given back, once: with bytes that go first (nearly always
            none), and whether another try may be made later.
    """

    __slots__ = (
        "_gap", "_held", "_in", "_left", "_loop", "_moved", "_near", "_out", "_over", "_pipe",
        "_pipes", "_reading", "_scheduled", "_small", "_source", "_target", "_writing",
    )  # fmt: skip

    def __init__(
        self,
        source: SocketStream,
        target: SocketStream,
        moved: Callable[[int], None],
        left: Callable[[bytes, bool], None],
        pipes: Pipes = PIPES,
    ) -> None:
        self._source = source
        self._target = target
        self._moved = moved
        self._left = left
        self._pipes = pipes
        self._pipe: Pipe | None = None
        self._held = 0  # bytes in the pipe
        self._in = self._out = -1  # the duplicates
        self._reading = self._writing = False
        self._small = 0
        self._near = source.local and target.local
        self._scheduled = False
        self._gap: asyncio.TimerHandle | None = None
        self._over = False
        self._loop = asyncio.get_running_loop()
        source.pause()
        target.tell_when_empty(True)
        self._loop.call_soon(self.begin)

    def begin(self) -> None:
        """Begin if the target has nothing unsent; to be called again when it is writable."""
        if self._over or self._in >= 0 or self._target.unsent:
            return
        source, target = self._source.descriptor, self._target.descriptor
        if source is None or target is None:
            self._leave(again=False)
            return
        try:
            self._in = os.dup(source)
            self._out = os.dup(target)
        except OSError:
            self._leave(again=False)
            return
        self._pipes.splices += 1
        self._read(True)

    def stop(self) -> None:
        """Let go of everything, with bytes that are under way. Idempotent."""
        if self._over:
            return
        self._over = True
        if self._gap is not None:
            self._gap.cancel()
        self._read(False)
        self._write(False)
        if self._out >= 0:
            self._pipes.splices -= 1
        _close(self._in, self._out)
        self._in = self._out = -1
        if self._pipe is not None:
            self._pipes.drop(self._pipe)
            self._pipe = None
        self._target.tell_when_empty(False)

    # -- moving -----------------------------------------------------------------------------------

    def _readable(self) -> None:
        """The source has bytes, its end, or an error."""
        if not self._scheduled:
            self._move()

    def _go_on(self) -> None:
        self._scheduled = False
        if self._gap is not None:
            self._gap = None
            if not self._over:
                self._read(True)
        self._move()

    def _rest(self) -> None:
        """Let others run for a moment before the next turn."""
        self._scheduled = True
        self._read(False)
        self._gap = self._loop.call_later(_CALM_GAP, self._go_on)

    def _move(self) -> None:
        calm = self._calm
        left = self._turn(calm)
        while left > 0:
            if self._over or self._held or not self._fill(left):
                break
            left -= self._held
            if not self._empty():
                return
        if self._over or self._held:
            return
        if calm:
            self._rest()
            return
        if left > 0:
            return
        # uvloop tells of an error only once, perhaps with bytes before it: so go on until there
        # are none. But others have their turn first.
        self._scheduled = True
        self._loop.call_soon(self._go_on)

    @property
    def _calm(self) -> bool:
        return self._pipes.calm(self._loop.time())

    def _turn(self, calm: bool) -> int:
        splices = max(1, self._pipes.splices)
        if calm:
            turn = max(_LEAST_CALM_TURN, _CALM_TURN // splices)
            return turn // _NEAR if self._near else turn
        return max(_LEAST_TURN, _TURN // splices)

    def _writable(self) -> None:
        """The target takes bytes again, or has failed."""
        if self._over or (self._held and not self._empty()):
            return
        if self._calm:
            self._write(False)
            self._rest()
        elif self._fill(self._turn(False)):
            self._empty()
        elif not self._over:
            self._write(False)
            self._read(True)

    def _fill(self, most: int) -> bool:
        """Take bytes from the source into the empty pipe; False when there are none."""
        pipe = self._pipe or self._pipes.take()
        if pipe is None:
            self._leave(again=False)
            return False
        self._pipe = pipe
        try:
            count = os.splice(self._in, pipe[1], most, flags=_FLAGS)
        except BlockingIOError:
            self._release()
            return False
        except OSError as error:
            self._release()
            if error.errno in _NOT_HERE:
                self._leave(again=False)
            else:
                self.stop()
                self._source.broken(error)
            return False
        if not count:
            self._release()
            self._leave(again=True)  # the end, which the transport is to find
            return False
        self._held = count
        self._moved(count)
        self._small = self._small + 1 if count < BULK_CHUNK else 0
        return True

    def _empty(self) -> bool:
        """Give the pipe's bytes to the target; False when some are left, or it is over."""
        assert self._pipe is not None
        try:
            while self._held:
                self._held -= os.splice(self._pipe[0], self._out, self._held, flags=_FLAGS)
        except BlockingIOError:
            self._read(False)
            self._write(True)
            return False
        except OSError as error:
            if error.errno in _NOT_HERE:
                self._leave(again=False)
            else:
                self.stop()
                self._target.broken(error)
            return False
        self._release()
        if self._small >= _SMALL_RUN:
            self._leave(again=True)
            return False
        return True

    def _release(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._pipes.give_back(pipe)

    def _leave(self, *, again: bool) -> None:
        rest = b""
        if self._pipe is not None:
            while len(rest) < self._held:
                rest += os.read(self._pipe[0], self._held - len(rest))
            self._held = 0
            self._release()
        self.stop()
        self._left(rest, again)

    # -- watching ---------------------------------------------------------------------------------

    def _read(self, wanted: bool) -> None:
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._in, self._readable)
            else:
                self._loop.remove_reader(self._in)

    def _write(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._out, self._writable)
            else:
                self._loop.remove_writer(self._out)


_FLAGS: Final = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
