"""The PROXY protocol, versions 1 and 2: who really connects, said before the first byte.

As HAProxy's ``doc/proxy-protocol.txt`` describes it (§2.1 the line of version 1, §2.2 the binary
header of version 2). What version 2 carries behind the addresses (TLVs) is skipped. A header says
what its sender likes: take it only from addresses that are listed as balancers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal, NoReturn

from underpass.core.errors import InvalidRequest

__all__ = [
    "MAX_V1",
    "MAX_V2",
    "Address",
    "Decoder",
    "Header",
    "ProxyProtocolError",
    "encode_v1",
    "encode_v2",
]

Address = tuple[str, int]
"""An IPv4 or IPv6 address and a port."""

MAX_V1: Final = 107
"""Bytes of the longest line of version 1, its CRLF included (§2.1)."""
MAX_V2: Final = 536
"""Bytes of a header of version 2 that are taken: what any path carries in one segment (§2.2)."""
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V1_START: Final = b"PROXY "
_V2_SIZE: Final = 16
_LOCAL: Final = 0
_PROXY: Final = 1
_NO_FAMILY: Final = 0
_INET: Final = 1
_INET6: Final = 2
_SIZES: Final = {_INET: 12, _INET6: 36, 3: 216}
"""Bytes of both addresses by family; 3 is UNIX."""
_TRANSPORTS: Final[dict[int, Literal["tcp", "udp"]]] = {1: "tcp", 2: "udp"}

_ports = struct.Struct("!HH")


class ProxyProtocolError(InvalidRequest):
    """No PROXY header came, or one that cannot be used; close the connection (§2)."""

    code = "bad_proxy_header"


@dataclass(frozen=True, slots=True)
class Header:
    """What a header said.

    Attributes:
        source: the client, as the first proxy saw it; None when the proxy speaks for itself (LOCAL)
            or cannot say (UNKNOWN, UNSPEC, UNIX addresses): then the connection's own holds.
        destination: where the client had connected to; None with *source*.
        version: 1 or 2.
        transport: how the client had connected; None with *source*.
    """

    source: Address | None
    destination: Address | None
    version: Literal[1, 2]
    transport: Literal["tcp", "udp"] | None = None


def _pair(
    source: Address | None, destination: Address | None
) -> tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address] | None:
    """Both addresses in one family (IPv6 when they differ); None when one is no IP address."""
    if source is None or destination is None:
        return None
    for port in (source[1], destination[1]):
        if not 0 <= port <= 65535:
            raise ProxyProtocolError(f"{port} is no port.", code="bad_address")
    first, second = _plain(source[0]), _plain(destination[0])
    if first is None or second is None:
        return None
    if isinstance(first, IPv4Address) and isinstance(second, IPv4Address):
        return first, second
    return _mapped(first), _mapped(second)


def _plain(host: str) -> IPv4Address | IPv6Address | None:
    """The address; IPv4 that a dual-stack socket shows as IPv6 is IPv4, and zones stay here."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _mapped(address: IPv4Address | IPv6Address) -> IPv6Address:
    return IPv6Address(f"::ffff:{address}") if isinstance(address, IPv4Address) else address


def encode_v1(source: Address | None, destination: Address | None) -> bytes:
    """The line of version 1 (§2.1); UNKNOWN when either is None or no IP address.

    Raises:
        ProxyProtocolError: code ``bad_address``; a port is not in 0..65535.
    """
    pair = _pair(source, destination)
    if pair is None or source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    family = "TCP4" if isinstance(pair[0], IPv4Address) else "TCP6"
    return f"PROXY {family} {pair[0]} {pair[1]} {source[1]} {destination[1]}\r\n".encode("ascii")


def encode_v2(
    source: Address | None,
    destination: Address | None,
    transport: Literal["tcp", "udp"] = "tcp",
) -> bytes:
    """The header of version 2 (§2.2); LOCAL when either is None or no IP address.

    Raises:
        ProxyProtocolError: code ``bad_address``; a port is not in 0..65535.
    """
    pair = _pair(source, destination)
    if pair is None or source is None or destination is None:
        return _SIGNATURE + bytes((0x20 | _LOCAL, 0, 0, 0))
    family = _INET if isinstance(pair[0], IPv4Address) else _INET6
    kind = family << 4 | (1 if transport == "tcp" else 2)
    addresses = pair[0].packed + pair[1].packed + _ports.pack(source[1], destination[1])
    return _SIGNATURE + bytes((0x20 | _PROXY, kind, 0, len(addresses))) + addresses


class Decoder:
    """Reads one header of either version from the front of a connection, or from a datagram.

    It holds less than MAX_V2 bytes until the header is whole. It waits for ever: the deadline is
    the caller's.
    """

    __slots__ = ("_buffer", "_over")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._over = False

    @property
    def leftover(self) -> bytes:
        """What came behind the header: the first bytes of the connection proper."""
        return bytes(self._buffer) if self._over else b""

    def feed(self, data: bytes | bytearray | memoryview) -> Header | None:
        """Take the next *data*; returns the header once it is whole.

        Raises:
            ProxyProtocolError: code ``no_proxy_header`` as soon as it cannot become one,
                ``bad_proxy_header`` for one that breaks the rules.
            RuntimeError: the header is here already, or was none; a bug of the caller.
        """
        if self._over:
            raise RuntimeError("nothing more to decode")
        buffer = self._buffer
        buffer += data
        if buffer.startswith(_SIGNATURE):
            header = self._read_v2()
        elif buffer.startswith(_V1_START):
            header = self._read_v1()
        elif _SIGNATURE.startswith(buffer) or _V1_START.startswith(buffer):
            return None
        else:
            self._fail("The connection does not begin with a PROXY header.", "no_proxy_header")
        self._over = header is not None
        return header

    def _read_v1(self) -> Header | None:
        buffer = self._buffer
        end = buffer.find(b"\n", 0, MAX_V1)
        if end < 0:
            if len(buffer) >= MAX_V1:
                self._fail(f"A PROXY line is longer than {MAX_V1} bytes.")
            return None
        if buffer[end - 1] != 0x0D:
            self._fail("A PROXY line does not end with CRLF.")
        line = bytes(buffer[len(_V1_START) : end - 1])
        del buffer[: end + 1]
        family, _, rest = line.partition(b" ")
        if family == b"UNKNOWN":  # whatever follows it means nothing
            return Header(None, None, 1)
        parts = rest.split(b" ")
        if family not in (b"TCP4", b"TCP6") or len(parts) != 4:
            self._fail("A PROXY line is not made of a family, two addresses and two ports.")
        kind = IPv4Address if family == b"TCP4" else IPv6Address
        source, destination = self._host(kind, parts[0]), self._host(kind, parts[1])
        ports = self._port(parts[2]), self._port(parts[3])
        return Header((source, ports[0]), (destination, ports[1]), 1, "tcp")

    def _host(self, kind: type[IPv4Address] | type[IPv6Address], text: bytes) -> str:
        try:
            # A zone of somebody else's machine makes it no address, where Python would take it.
            return str(kind(text.decode("ascii").replace("%", " ")))
        except ValueError:
            self._fail("A PROXY line has an address that is none.")

    def _port(self, text: bytes) -> int:
        if not text.isdigit() or len(text) > 5 or (text[0] == 0x30 and len(text) > 1):
            self._fail("A PROXY line has a port that is none.")
        port = int(text)
        if port > 65535:
            self._fail("A PROXY line has a port that is none.")
        return port

    def _read_v2(self) -> Header | None:
        buffer = self._buffer
        if len(buffer) < _V2_SIZE:
            return None
        version, command = buffer[12] >> 4, buffer[12] & 15
        if version != 2 or command > _PROXY:
            self._fail(f"A PROXY header has version {version} and command {command}.")
        size = _V2_SIZE + (buffer[14] << 8 | buffer[15])
        if size > MAX_V2:
            self._fail(f"A PROXY header of {size} bytes is longer than {MAX_V2}.")
        kind = buffer[13]
        family, protocol = kind >> 4, kind & 15
        if command == _PROXY and kind != _NO_FAMILY:
            if family not in _SIZES or protocol not in _TRANSPORTS:
                self._fail(f"A PROXY header has the unknown family 0x{kind:02x}.")
            if size < _V2_SIZE + _SIZES[family]:
                self._fail("A PROXY header is too short for its addresses.")
        if len(buffer) < size:
            return None
        body = bytes(buffer[_V2_SIZE:size])
        del buffer[:size]
        if command == _LOCAL or family not in (_INET, _INET6):
            return Header(None, None, 2)
        width = (_SIZES[family] - _ports.size) // 2
        address = IPv4Address if family == _INET else IPv6Address
        source, destination = address(body[:width]), address(body[width : 2 * width])
        ports = _ports.unpack_from(body, 2 * width)
        return Header(
            (str(source), ports[0]), (str(destination), ports[1]), 2, _TRANSPORTS[protocol]
        )

    def _fail(self, message: str, code: str = "bad_proxy_header") -> NoReturn:
        self._over = True
        self._buffer.clear()
        raise ProxyProtocolError(message, code=code)
