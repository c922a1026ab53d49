"""Retry (RFC 9000, 8.1.2): proof that whoever dials receives at the address they say they have.

A gateway that is asked by too many who have not proved that answers with a Retry packet: a token,
and nothing kept. Who repeats the question with the token does receive there. Pure functions of
bytes, key and time.

A token is ``version u8, expires u32, length u8, original connection id, HMAC``; the first 16 bytes
of HMAC-SHA256 over all of that, the peer's host and port, and the connection id it was told to use
from then on, so that none of them can be another's.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["LIFETIME", "RetryTokens", "initial_token", "retry_packet"]

LIFETIME: Final = 10.0
"""Seconds a token is worth something; a dial has less (RFC 9000, 8.1.3: short)."""
_VERSION: Final = 1
_HEAD: Final = struct.Struct("!BIB")
_MAC: Final = 16
_MAX_CID: Final = 20
_QUIC_1: Final = b"\0\0\0\x01"
_RETRY: Final = 0xFF
# RFC 9001, 5.8
_INTEGRITY: Final = AESGCM(bytes.fromhex("be0c690b9f66575a1d766b54e368c84e"))
_INTEGRITY_NONCE: Final = bytes.fromhex("461599d35d632bf2239825bb")


class RetryTokens:
    """Makes tokens, and knows its own again.

    Args:
        now: seconds; only differences count.
        key: 32 secret bytes; whoever has them can pretend to be anywhere. Made when not given.
        lifetime: seconds a token is good for.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        key: bytes | None = None,
        lifetime: float = LIFETIME,
    ) -> None:
        self._key = key or secrets.token_bytes(32)
        self._now = now
        self._lifetime = lifetime

    def make(self, host: str, port: int, original: bytes, next_cid: bytes) -> bytes:
        """A token for whoever is at *host*, *port*.

        Args:
            original: the connection id their first packet was for.
            next_cid: the one the Retry packet tells them to use.
        """
        expires = int(self._now() + self._lifetime) & 0xFFFFFFFF
        said = _HEAD.pack(_VERSION, expires, len(original)) + original
        return said + self._mac(said, host, port, next_cid)

    def original(self, token: bytes, host: str, port: int, used_cid: bytes) -> bytes | None:
        """The connection id of the first packet; None when it is no token of ours for this peer.

        Args:
            used_cid: the connection id the packet with the token is for.
        """
        if len(token) < _HEAD.size + _MAC:
            return None
        said, mac = token[:-_MAC], token[-_MAC:]
        if not hmac.compare_digest(mac, self._mac(said, host, port, used_cid)):
            return None
        version, expires, length = _HEAD.unpack_from(said)
        if version != _VERSION or length != len(said) - _HEAD.size:
            return None
        left = (expires - int(self._now())) & 0xFFFFFFFF
        return said[_HEAD.size :] if left <= self._lifetime else None

    def _mac(self, said: bytes, host: str, port: int, cid: bytes) -> bytes:
        where = host.encode()
        bound = struct.pack("!HHB", len(where), port, len(cid)) + where + cid
        return hmac.digest(self._key, b"underpass retry 1\0" + bound + said, "sha256")[:_MAC]


def initial_token(datagram: bytes) -> tuple[bytes, bytes] | None:
    """Who sent an Initial packet, by connection id, and its token (RFC 9000, 17.2.2).

    Returns:
        (source connection id, token); None when the packet is cut short or not an Initial.
    """
    if len(datagram) < 7 or datagram[0] & 0xF0 != 0xC0 or datagram[1:5] != _QUIC_1:
        return None
    at = 6 + datagram[5]
    if datagram[5] > _MAX_CID or at >= len(datagram) or datagram[at] > _MAX_CID:
        return None
    source = datagram[at + 1 : at + 1 + datagram[at]]
    at += 1 + datagram[at]
    if at >= len(datagram):
        return None
    size = 1 << (datagram[at] >> 6)
    if at + size > len(datagram):
        return None
    length = int.from_bytes(datagram[at : at + size], "big") & ((1 << (8 * size - 2)) - 1)
    at += size
    if at + length > len(datagram):
        return None
    return source, datagram[at : at + length]


def retry_packet(original: bytes, peer_cid: bytes, next_cid: bytes, token: bytes) -> bytes:
    """The Retry packet (RFC 9000, 17.2.5) that answers a first packet.

    Args:
        original: the connection id that packet was for.
        peer_cid: the one its sender goes by.
        next_cid: the one to repeat it with.
    """
    packet = b"".join(
        (
            bytes((_RETRY,)), _QUIC_1, bytes((len(peer_cid),)), peer_cid,
            bytes((len(next_cid),)), next_cid, token,
        )
    )  # fmt: skip
    pseudo = bytes((len(original),)) + original + packet
    return packet + _INTEGRITY.encrypt(_INTEGRITY_NONCE, b"", pseudo)
