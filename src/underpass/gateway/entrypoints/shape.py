"""The bandwidth limits of a mapping and of its owner: one bucket each way and each, shared by
everything that passes; and the meter of those whose monthly traffic is limited.

They can come, change and go while connections are open. Where the kernel moves their bytes from
socket to socket, a limit that comes later is the kernel's too (pacing), shared out evenly.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any, Final

from underpass.control.mapping import Limits
from underpass.core.clock import Clock
from underpass.core.token_bucket import TokenBucket
from underpass.gateway.entrypoints.allowance import Allowance
from underpass.gateway.entrypoints.limitable import LimitableStream
from underpass.links.shaping import shaped
from underpass.links.sockets import SocketStream
from underpass.links.splice import can_splice
from underpass.links.stream import Stream

__all__ = ["Shape", "Shaping"]

_PACING: Final = getattr(socket, "SO_MAX_PACING_RATE", 47)
"""Linux; Python has no name for it."""
_UNPACED: Final = 0xFFFFFFFF


class Shaping:
    """A user's end while it is under a :class:`Shape`.

    Args:
        stream: what is to be relayed.
        listed: sets the shape finds it in meanwhile, each with its entry.
    """

    __slots__ = ("_listed", "_stream")

    def __init__(self, stream: Stream, listed: tuple[tuple[set[Any], object], ...]) -> None:
        self._stream = stream
        self._listed = listed

    def __enter__(self) -> Stream:
        for entries, entry in self._listed:
            entries.add(entry)
        return self._stream

    def __exit__(self, *_: object) -> None:
        for entries, entry in self._listed:
            entries.discard(entry)


class Shape:
    """The buckets of one mapping, and those its owner's tunnels share.

    Args:
        limits: the mapping's.
        clock: what the buckets are filled by.
        allowance: what the owner may use; without it as much as they like.
    """

    def __init__(self, limits: Limits, clock: Clock, allowance: Allowance | None = None) -> None:
        self.allowance = allowance or Allowance("", clock)
        self._own = tuple(TokenBucket(limits.bandwidth, limits.burst, clock) for _ in range(2))
        self._sent = (self._own[0], self.allowance.sent)
        self._received = (self._own[1], self.allowance.received)
        self._limitable: set[LimitableStream] = set()
        self._spliced: set[tuple[SocketStream, SocketStream]] = set()
        self.allowance.watchers.add(self)

    def change(self, limits: Limits) -> None:
        """Take over new limits, also for what is open."""
        for bucket in self._own:
            bucket.burst = limits.burst
            bucket.rate = limits.bandwidth
        self.quota_changed()

    def quota_changed(self) -> None:
        """The allowance's: the same for what the owner may use."""
        for stream in self._limitable:
            self._restrain(stream)
        self._pace()

    def around(self, stream: Stream, remote: Stream) -> Shaping:
        """``with`` it gives *stream*, a user's end of what is relayed to *remote*, within the
        limits."""
        if (
            not (self._is_limited or self.allowance.is_metered)
            and can_splice(stream, remote)
            and isinstance(stream, SocketStream)
            and isinstance(remote, SocketStream)
        ):
            pair = (stream, remote)
            return Shaping(stream, ((self._spliced, pair), (self.allowance.spliced, pair)))
        limitable = LimitableStream(stream)
        self._restrain(limitable)
        return Shaping(limitable, ((self._limitable, limitable),))

    def admits(self, size: int, *, sent: bool) -> bool:
        """Whether a datagram of *size* bytes may pass now; one that may not is dropped.

        Args:
            sent: it goes to the target (False: comes back from it).
        """
        buckets = self._sent if sent else self._received
        limits = [bucket for bucket in buckets if bucket.rate is not None]
        if any(bucket.available() < min(size, bucket.burst) for bucket in limits):
            return False
        if not self.allowance.take(size):
            return False
        for bucket in limits:
            bucket.reserve(size)
        return True

    @property
    def _is_limited(self) -> bool:
        return any(bucket.rate is not None for bucket in self._sent)

    def _restrain(self, stream: LimitableStream) -> None:
        """Put *stream* under what holds now; what it is under already changes by itself."""
        if self.allowance.is_metered and not stream.metered:
            stream.metered = True
            stream.limit(self.allowance.metered)
        if self._is_limited and not stream.shaped:
            stream.shaped = True
            stream.limit(self._shaped)

    def _shaped(self, stream: Stream) -> Stream:
        return shaped(stream, inbound=self._sent, outbound=self._received)

    def _pace(self) -> None:
        if not self._spliced:
            return
        share = float(_UNPACED)
        for bucket, pairs in zip(self._sent, (self._spliced, self.allowance.spliced), strict=True):
            if bucket.rate is not None:
                share = min(share, bucket.rate / len(pairs))
        for end in (each for pair in self._spliced for each in pair):
            _pace(end, max(1, int(share)))


def _pace(stream: SocketStream, rate: int) -> None:
    """Have the kernel send at most *rate* bytes a second on *stream*'s socket."""
    descriptor = stream.descriptor
    if descriptor is None:
        return
    sock = socket.socket(fileno=descriptor)
    try:
        with contextlib.suppress(OSError):  # a kernel that can't
            sock.setsockopt(socket.SOL_SOCKET, _PACING, struct.pack("=I", rate))
    finally:
        sock.detach()  # the descriptor is not ours
