"""Addresses in SOCKS5 form (RFC 1928 §5): a type, an IPv4 or IPv6 address or a name, and a port.

Host names are taken strictly, because they become part of a target that others read: letters,
digits, ``-``, ``_`` and ``.``; international names come in their ASCII form (``xn--``).
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from underpass.wire.socks5.codes import Socks5Error

__all__ = [
    "MAX_HOST",
    "address_end",
    "check_host",
    "check_port",
    "decode_address",
    "encode_address",
]

MAX_HOST: Final = 255
"""Bytes in a name: its length is one byte."""
_IPV4: Final = 1
_NAME: Final = 3
_IPV6: Final = 4
_is_name = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}", re.ASCII).fullmatch


def check_host(host: str) -> str:
    """*host* when it is a name or an address (IPv6 without brackets, in its shortest form).

    Raises:
        Socks5Error: code ``bad_address``; it is neither, or names a zone of the sender's machine.
    """
    if _is_name(host):
        return host
    try:
        if "%" not in host:
            return str(IPv6Address(host))
    except ValueError:
        pass
    raise Socks5Error("The host is neither a name nor an address.", code="bad_address")


def check_port(port: int) -> int:
    """*port* when something can be sent there.

    Raises:
        Socks5Error: code ``bad_address``; it is not in 1..65535.
    """
    if not 1 <= port <= 65535:
        raise Socks5Error(f"There is no port {port} to reach.", code="bad_address")
    return port


@lru_cache(1024)
def _encode_host(host: str) -> bytes:
    try:
        # A zone (``%eth0``) means nothing on another machine, and has no place in the form.
        address = ip_address(host.partition("%")[0])
    except ValueError:
        name = check_host(host).encode("ascii")
        return bytes((_NAME, len(name))) + name
    return bytes((_IPV4 if isinstance(address, IPv4Address) else _IPV6,)) + address.packed


@lru_cache(1024)
def _ipv6_text(packed: bytes) -> str:
    return str(IPv6Address(packed))


def encode_address(host: str, port: int) -> bytes:
    """*host* and *port* as ATYP, ADDR and PORT.

    Args:
        host: an IPv4 or IPv6 address (without brackets) or a name.
        port: 0..65535; 0 where none is known (RFC 1928 §4).

    Raises:
        Socks5Error: code ``bad_address``.
    """
    if not 0 <= port <= 65535:
        raise Socks5Error(f"{port} is no port.", code="bad_address")
    return _encode_host(host) + port.to_bytes(2, "big")


def address_end(buffer: bytes | bytearray | memoryview, offset: int) -> int | None:
    """Where the address at *offset* ends; None while too little of it is there to say.

    Raises:
        Socks5Error: code ``address_type_not_supported``.
    """
    if len(buffer) <= offset:
        return None
    kind = buffer[offset]
    if kind == _IPV4:
        return offset + 7
    if kind == _IPV6:
        return offset + 19
    if kind == _NAME:
        return offset + 4 + buffer[offset + 1] if len(buffer) > offset + 1 else None
    raise Socks5Error(f"Address type {kind} is unknown.", code="address_type_not_supported")


def decode_address(buffer: bytes | bytearray | memoryview, offset: int = 0) -> tuple[str, int, int]:
    """The address at *offset* as (host, port, offset behind it).

    Raises:
        Socks5Error: code ``truncated`` when *buffer* ends before the address does,
            ``address_type_not_supported``, or ``bad_address`` for a name that is none.
    """
    end = address_end(buffer, offset)
    if end is None or end > len(buffer):
        raise Socks5Error("The address is cut off.", code="truncated")
    port = buffer[end - 2] << 8 | buffer[end - 1]
    kind = buffer[offset]
    if kind == _IPV4:
        a, b, c, d = buffer[offset + 1 : offset + 5]
        return f"{a}.{b}.{c}.{d}", port, end
    if kind == _IPV6:
        return _ipv6_text(bytes(buffer[offset + 1 : offset + 17])), port, end
    # Whatever is not ASCII becomes a character no host has.
    name = bytes(buffer[offset + 2 : end - 2]).decode("ascii", "replace")
    return check_host(name), port, end
