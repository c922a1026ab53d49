"""The bandwidth limit of a mapping: one bucket each way, shared by everything that passes.

It can come, change and go while connections are open. Where the kernel moves their bytes from
socket to socket, a limit that comes later is the kernel's too (pacing), shared out evenly.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Final

from underpass.control.mapping import Mapping
from underpass.core.clock import Clock
from underpass.core.token_bucket import TokenBucket
from underpass.gateway.entrypoints.limitable import LimitableStream
from underpass.links.shaping import shaped
from underpass.links.sockets import SocketStream
from underpass.links.splice import can_splice
from underpass.links.stream import Stream

__all__ = ["Shape"]

_PACING: Final = getattr(socket, "SO_MAX_PACING_RATE", 47)
"""Linux; Python has no name for it."""
_UNPACED: Final = 0xFFFFFFFF


class Shape:
    """The buckets of one mapping.

    Args:
        mapping: whose limits.
        clock: what the buckets are filled by.
    """

    def __init__(self, mapping: Mapping, clock: Clock) -> None:
        limits = mapping.limits
        self._sent = TokenBucket(limits.bandwidth, limits.burst, clock)
        self._received = TokenBucket(limits.bandwidth, limits.burst, clock)
        self._limitable: set[LimitableStream] = set()
        self._spliced: set[tuple[SocketStream, SocketStream]] = set()

    def change(self, mapping: Mapping) -> None:
        """Take over new limits, also for what is open."""
        for bucket in (self._sent, self._received):
            bucket.burst = mapping.limits.burst
            bucket.rate = mapping.limits.bandwidth
        if self._sent.rate is not None:
            while self._limitable:
                self._limitable.pop().limit(self._shaped)
        self._pace()

    @contextlib.contextmanager
    def around(self, stream: Stream, remote: Stream) -> Iterator[Stream]:
        """*stream*, a user's end of what is relayed to *remote*, within the limits."""
        if self._sent.rate is not None:
            yield self._shaped(stream)
        elif (
            can_splice(stream, remote)
            and isinstance(stream, SocketStream)
            and isinstance(remote, SocketStream)
        ):
            pair = (stream, remote)
            self._spliced.add(pair)
            try:
                yield stream
            finally:
                self._spliced.discard(pair)
        else:
            limitable = LimitableStream(stream)
            self._limitable.add(limitable)
            try:
                yield limitable
            finally:
                self._limitable.discard(limitable)

    def admits(self, size: int, *, sent: bool) -> bool:
        """Whether a datagram of *size* bytes may pass now; one that may not is dropped.

        Args:
            sent: it goes to the target (False: comes back from it).
        """
        bucket = self._sent if sent else self._received
        if bucket.rate is None:
            return True
        if bucket.available() < min(size, bucket.burst):
            return False
        bucket.reserve(size)
        return True

    def _shaped(self, stream: Stream) -> Stream:
        return shaped(stream, inbound=(self._sent,), outbound=(self._received,))

    def _pace(self) -> None:
        if not self._spliced:
            return
        rate = self._sent.rate
        share = _UNPACED if rate is None else max(1, int(rate / len(self._spliced)))
        for end in (each for pair in self._spliced for each in pair):
            _pace(end, min(share, _UNPACED))


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
