"""A UDP socket for QUIC: many datagrams per system call where the kernel can (Linux GSO and GRO).

asyncio's own datagram endpoint makes one call per datagram and, without uvloop, one turn of the
loop; that halves what a QUIC link carries (docs/adr/0008-quic-links.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from underpass.links.packet_info import ROOM, Address, ask, joined, parted

__all__ = ["Address", "Datagram", "UdpSocket", "bound_socket", "client_socket"]

Datagram = tuple[bytes, Address]

MAX_QUEUED: Final = 1024
"""Datagrams kept while the kernel takes none; more are dropped, and QUIC sends them again."""
_BURST: Final = 32
"""Reads in one turn of the event loop."""
_BUFFER: Final = 1 << 20
"""Bytes of socket buffer asked for, each way."""
_LINUX: Final = sys.platform == "linux"
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_SEGMENTS: Final = 60
_SEGMENTS_SIZE: Final = 60_000
_NO_GSO: Final = frozenset({errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT})
_RECVERR: Final = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (41, 25)}
_MTU_DISCOVER: Final = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (41, 23)}
_MTU_PROBE: Final = 3
_MSG_ERRQUEUE: Final = 0x2000


def bound_socket(address: Address, family: int) -> socket.socket:
    """A socket that takes datagrams for *address*.

    Raises:
        OSError: it is in use, or not allowed.
    """
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def client_socket(family: int) -> socket.socket:
    """A socket for one connection.

    Neither bound to an address nor connected, so that the kernel picks the source for each
    datagram: when the machine's address changes, the link goes on from the new one.

    Raises:
        OSError: there is no such family here.
    """
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    if _LINUX:
        # A port nobody listens on is told at once instead of by a deadline.
        with contextlib.suppress(OSError):
            sock.setsockopt(*_RECVERR[socket.AddressFamily(family)], 1)
    return sock


class UdpSocket:
    """Sends and receives on a socket, as part of the running event loop.

    One bound to every address gives and takes addresses with the one here joined to them, so that
    answers leave from where was spoken to (``links/packet_info.py``).

    Args:
        sock: not blocking; closed with this.
        received: see :attr:`received`.
        failed: see :attr:`failed`.
    """

    def __init__(
        self,
        sock: socket.socket,
        received: Callable[[bytes, int, Address], None] = lambda _data, _size, _source: None,
        failed: Callable[[OSError], None] = lambda _error: None,
    ) -> None:
        self.sock = sock
        self.received = received
        """Given (bytes, size of each datagram in them, source); a size of 0: it is a single one."""
        self.failed = failed
        """Told what the network said about a datagram of ours."""
        self.dropped = 0
        """Datagrams the kernel took too slowly."""
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Datagram] = deque()
        self._closed = False
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with contextlib.suppress(OSError):  # then it stays what it is
                sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._told = ask(sock)
        self._gso = self._offers(_UDP_SEGMENT, 0)
        self._gro = self._offers(_UDP_GRO, 1)
        if _LINUX:
            # The library looks for the largest datagram that gets through; don't cut it in pieces.
            with contextlib.suppress(OSError):
                sock.setsockopt(*_MTU_DISCOVER[sock.family], _MTU_PROBE)
        self._loop.add_reader(sock.fileno(), self._readable)

    def _offers(self, option: int, value: int) -> bool:
        if not _LINUX:
            return False
        try:
            self.sock.setsockopt(_SOL_UDP, option, value)
        except OSError:
            return False
        return True

    # -- receiving ------------------------------------------------------------------------------

    def _readable(self) -> None:
        room = socket.CMSG_SPACE(4) + ROOM
        for _ in range(_BURST):
            if self._closed:
                return
            try:
                data, ancillary, _flags, address = self.sock.recvmsg(65_535, room)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._trouble(error)
                return
            if not data:
                continue
            size = 0
            if self._gro:
                for level, kind, value in ancillary:
                    if level == _SOL_UDP and kind == _UDP_GRO:
                        size = int(struct.unpack_from("=H", value)[0])
            if self._told:
                address = joined(address, ancillary)
            self.received(data, size if 0 < size < len(data) else 0, address)

    def _trouble(self, error: OSError) -> None:
        if _LINUX:
            # Until they are read, the kernel calls the socket readable.
            for _ in range(_BURST):
                try:
                    self.sock.recvmsg(1, 512, _MSG_ERRQUEUE)
                except OSError:
                    break
        self.failed(error)

    # -- sending --------------------------------------------------------------------------------

    def send(self, datagrams: Sequence[Datagram]) -> None:
        """Send *datagrams* in order; what the kernel does not take now follows, or is dropped."""
        if self._closed or not datagrams:
            return
        if self._queue:
            self._keep(datagrams)
            return
        sent = self._send(datagrams)
        if sent < len(datagrams):
            self._keep(datagrams[sent:])
            self._loop.add_writer(self.sock.fileno(), self._writable)

    def _keep(self, datagrams: Sequence[Datagram]) -> None:
        room = max(0, MAX_QUEUED - len(self._queue))
        self._queue.extend(datagrams[:room])
        self.dropped += max(0, len(datagrams) - room)

    def _writable(self) -> None:
        queued = list(self._queue)
        sent = self._send(queued)
        for _ in range(sent):
            self._queue.popleft()
        if not self._queue and not self._closed:
            self._loop.remove_writer(self.sock.fileno())

    def _send(self, datagrams: Sequence[Datagram]) -> int:
        """Hand *datagrams* to the kernel; how many it took (or refused for good)."""
        done = 0
        while done < len(datagrams) and not self._closed:
            count = self._alike(datagrams, done) if self._gso else 1
            data, address = datagrams[done]
            where, ancillary = parted(address)
            try:
                if count == 1 and not ancillary:
                    self.sock.sendto(data, where)
                else:
                    if count > 1:
                        segment = struct.pack("=H", len(data))
                        ancillary.append((_SOL_UDP, _UDP_SEGMENT, segment))
                    parts = [part for part, _ in datagrams[done : done + count]]
                    self.sock.sendmsg(parts, ancillary, 0, where)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if count > 1 and error.errno in _NO_GSO:
                    self._gso = False
                    continue
                # One that is too large for the path was a probe; any other is sent again by QUIC.
                if error.errno != errno.EMSGSIZE:
                    self._trouble(error)
            done += count
        return done

    def _alike(self, datagrams: Sequence[Datagram], start: int) -> int:
        """How many from *start* on may go in one call: one address, one size, a shorter last."""
        first, address = datagrams[start]
        size = len(first)
        most = min(len(datagrams) - start, _SEGMENTS, max(1, _SEGMENTS_SIZE // size))
        count = 1
        while count < most:
            data, to = datagrams[start + count]
            if to != address or len(data) > size:
                break
            count += 1
            if len(data) < size:
                break
        return count

    def close(self) -> None:
        """Stop and close the socket. Idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.clear()
            self._loop.remove_reader(self.sock.fileno())
            self._loop.remove_writer(self.sock.fileno())
            self.sock.close()
