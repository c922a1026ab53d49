"""The header in front of every datagram of a SOCKS5 UDP association (RFC 1928 §7)."""

from __future__ import annotations

from underpass.wire.socks5.address import check_port, decode_address, encode_address
from underpass.wire.socks5.codes import Socks5Error

__all__ = ["build_udp", "parse_udp"]

_PLAIN = b"\0\0\0"


def parse_udp(datagram: bytes | bytearray | memoryview) -> tuple[str, int, bytes]:
    """Host, port and data of a *datagram* from a client.

    Raises:
        Socks5Error: it must be dropped, and only it: code ``fragmented`` (fragments are optional in
            RFC 1928 and not put together here), ``bad_datagram``, ``truncated``,
            ``address_type_not_supported`` or ``bad_address``.
    """
    head = bytes(datagram[:3])
    if head != _PLAIN:
        if len(head) < 3 or head[:2] != b"\0\0":
            raise Socks5Error("This is no SOCKS5 datagram.", code="bad_datagram")
        raise Socks5Error("Fragments of datagrams are not taken.", code="fragmented")
    host, port, end = decode_address(datagram, 3)
    return host, check_port(port), bytes(datagram[end:])


def build_udp(host: str, port: int, data: bytes | bytearray | memoryview) -> bytes:
    """*data* that came from *host* and *port*, as the client gets it; longer by 8 to 262 bytes.

    Raises:
        Socks5Error: code ``bad_address``.
    """
    return _PLAIN + encode_address(host, check_port(port)) + data
