"""Whose QUIC packet a datagram holds: the version-independent header (RFC 8999), no more."""

from __future__ import annotations

from typing import Final

__all__ = ["CID_LENGTH", "MIN_INITIAL", "destination", "is_initial"]

CID_LENGTH: Final = 8
"""Bytes of the connection ids we give out."""
MIN_INITIAL: Final = 1200
"""A client's first datagram is never smaller (RFC 9000, 14.1), so that we never answer more."""
_VERSION_1: Final = b"\0\0\0\x01"
_MAX_CID: Final = 20


def destination(datagram: bytes) -> bytes | None:
    """The connection id the first packet in *datagram* is for; None when it is no QUIC packet."""
    if len(datagram) < 1 + CID_LENGTH:
        return None
    if not datagram[0] & 0x80:
        return datagram[1 : 1 + CID_LENGTH]
    length = datagram[5]
    if length > _MAX_CID or len(datagram) < 7 + length:
        return None
    return datagram[6 : 6 + length]


def is_initial(datagram: bytes) -> bool:
    """Whether *datagram* may begin a connection of version 1 (RFC 9000, 17.2.2)."""
    return (
        len(datagram) >= MIN_INITIAL
        and datagram[0] & 0xF0 == 0xC0
        and datagram[1:5] == _VERSION_1
        and datagram[5] >= 8
    )
