"""A UDP socket without queues: datagrams are handed over as they come, and sent now or dropped.

Where a stream waits, UDP loses: what does not fit into the kernel's buffer is dropped and counted,
so that memory stays flat and nobody waits for anybody. An ICMP error about one datagram (nobody
listens there, the way is gone) is told by the kernel on the next call; it ends nothing.

A socket bound to every address answers from the one that was spoken to (``links/packet_info.py``):
answer to the very :data:`Address` that came with the question.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Final

from underpass.links.packet_info import ROOM, Address, ask, joined, parted

__all__ = ["Address", "DatagramSocket"]

_BATCH: Final = 64
"""Datagrams taken in one turn of the loop; then others have theirs."""
_LARGEST: Final = 65_536
_BUFFER: Final = 4 << 20
"""What is asked of the kernel for bursts; it gives what its limit allows."""
_FORCE: Final = {"SO_RCVBUFFORCE": 33, "SO_SNDBUFFORCE": 32}
"""Linux; Python has no names for them."""
_PAUSE: Final = 0.1
"""Seconds without reading when the kernel has no memory for us."""
_EXHAUSTED: Final = frozenset({errno.ENOMEM, errno.ENOBUFS})


class DatagramSocket:
    """One UDP socket of the running loop.

    Args:
        sock: bound or connected; owned from now on.
        received: called with each datagram and where it came from. May close the socket.

    Attributes:
        dropped: datagrams that could not be sent.
        errors: ICMP and other errors that were told and passed over.
    """

    def __init__(
        self, sock: socket.socket, received: Callable[[bytes, Address], None] | None = None
    ) -> None:
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with contextlib.suppress(OSError):  # then the default has to do
                sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        for name in ("SO_RCVBUFFORCE", "SO_SNDBUFFORCE"):
            with contextlib.suppress(OSError):  # only root may go above the limit
                sock.setsockopt(socket.SOL_SOCKET, _FORCE[name], _BUFFER)
        self._told = ask(sock)
        self._sock = sock
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False
        self.dropped = 0
        self.errors = 0
        self._errors_seen = 0
        if received is not None:
            self.start(received)

    @property
    def address(self) -> Address:
        """Where it is bound."""
        return self._sock.getsockname()

    def start(self, received: Callable[[bytes, Address], None]) -> None:
        """Begin to read; until then the kernel keeps what comes."""
        self._received = received
        if not self.closed:
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def send(self, data: bytes, address: Address | None = None) -> bool:
        """Send one datagram, to *address* or to where the socket is connected; never waits.

        Returns:
            False when it was dropped: the kernel's buffer is full, or it is too large for the way.
        """
        if self.closed:
            return False
        for _ in range(2):
            try:
                if address is None:
                    self._sock.send(data)
                elif self._told:
                    where, ancillary = parted(address)
                    self._sock.sendmsg((data,), ancillary, 0, where)
                else:
                    self._sock.sendto(data, address)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # A connected socket tells of an earlier datagram's fate and has not sent this one.
                self.errors += 1
                if error.errno not in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
                    break
            else:
                return True
        self.dropped += 1
        return False

    def close(self) -> None:
        """Give the port back. Idempotent."""
        if not self.closed:
            self.closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _readable(self) -> None:
        received = self._received
        assert received is not None
        nothing = True
        for _ in range(_BATCH):
            if self.closed:
                return
            try:
                if self._told:
                    data, ancillary, _flags, address = self._sock.recvmsg(_LARGEST, ROOM)
                    address = joined(address, ancillary)
                else:
                    data, address = self._sock.recvfrom(_LARGEST)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self.errors += 1
                if error.errno in _EXHAUSTED:
                    self._loop.remove_reader(self._sock.fileno())
                    self._timer = self._loop.call_later(_PAUSE, self.start, received)
                    return
            else:
                nothing = False
                received(data, address)
        if (nothing or self.errors != self._errors_seen) and not self.closed:
            # We were called for an error, which ``send`` may have taken already. libuv watches a
            # descriptor no more once it has told of an error, so have it watch anew.
            self._errors_seen = self.errors
            self._loop.remove_reader(self._sock.fileno())
            self._loop.add_reader(self._sock.fileno(), self._readable)
