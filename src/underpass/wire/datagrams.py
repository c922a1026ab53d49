"""Datagrams on a stream: a UDP flow keeps its boundaries while it travels over a link.

Each datagram is its length (u16, big-endian) and its payload; an empty datagram is a datagram too.
On ``udp:host:port`` every payload goes to that one address. On ``udp`` (SOCKS5's UDP ASSOCIATE)
every payload begins with an address as ``underpass.wire.socks5.encode_address`` writes it.
"""

from __future__ import annotations

import struct
from typing import Final

from underpass.core.errors import InvalidRequest, TooLarge

__all__ = [
    "MAX_ADDRESSED",
    "MAX_DATAGRAM",
    "DatagramDecoder",
    "DatagramError",
    "encode",
]

MAX_DATAGRAM: Final = 65_507
"""Bytes that fit into one UDP datagram over IPv4 (65,535 less the IP and UDP headers)."""
MAX_ADDRESSED: Final = 65_535
"""Bytes of address and payload together, where each datagram names its address."""
_PREFIX: Final = 2

_pack_length = struct.Struct("!H").pack


class DatagramError(InvalidRequest):
    """The peer announced a datagram that cannot exist; the flow cannot go on."""

    code = "bad_datagram"


def encode(payload: bytes | bytearray | memoryview, *, limit: int = MAX_DATAGRAM) -> bytes:
    """One datagram as it travels.

    Args:
        payload: 0 to *limit* bytes.
        limit: MAX_DATAGRAM, or MAX_ADDRESSED where the payload begins with an address.

    Raises:
        TooLarge: *payload* is longer; the flow goes on without this datagram.
    """
    size = len(payload)
    if size > limit:
        raise TooLarge(
            f"A datagram of {size} bytes is larger than {limit}.", code="datagram_too_large"
        )
    return _pack_length(size) + payload


class DatagramDecoder:
    """Cuts a byte stream into the datagrams it carries, however it arrives.

    It holds less than one datagram between two calls.

    Args:
        limit: bytes a payload may have: MAX_DATAGRAM, or MAX_ADDRESSED where it begins with an
            address.
    """

    __slots__ = ("_kept", "_limit", "_wanted")

    def __init__(self, limit: int = MAX_DATAGRAM) -> None:
        self._limit = limit
        self._kept = bytearray()  # the front of a datagram
        self._wanted = _PREFIX  # bytes from which on something can be said about it

    @property
    def mid_datagram(self) -> bool:
        """Whether the bytes fed so far end inside a datagram; at the stream's end it is lost."""
        return bool(self._kept)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take the next *data* from the peer; returns the payloads it completed, in order.

        Raises:
            DatagramError: a payload is announced as longer than the limit. What else *data* held is
                lost, and the decoder is spent.
        """
        kept = self._kept
        if kept:
            if len(kept) + len(data) < self._wanted:
                kept += data
                return []
            data = bytes(kept) + data
            kept.clear()
        found: list[bytes] = []
        size = len(data)
        offset = 0
        wanted = _PREFIX
        while (start := offset + _PREFIX) <= size:
            length = data[offset] << 8 | data[offset + 1]
            if length > self._limit:
                raise DatagramError(
                    f"A datagram of {length} bytes was announced; {self._limit} are possible."
                )
            if start + length > size:
                wanted = _PREFIX + length
                break
            found.append(bytes(data[start : start + length]))
            offset = start + length
        self._wanted = wanted
        if offset < size:
            kept += data[offset:]
        return found
