"""Which of this machine's addresses a datagram came to, so that its answer leaves from there.

A UDP socket bound to every address leaves the choice of an answer's source to the kernel's routes;
on a machine with several addresses that may be another than the one the question was sent to, and
who asked throws the answer away. ``IP_PKTINFO`` (ip(7)) and ``IPV6_PKTINFO`` (RFC 3542, 6) tell and
set it for each datagram.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["ROOM", "Address", "Ancillary", "arrived_at", "ask", "joined", "parted"]

Address = tuple[Any, ...]
"""What ``recvfrom`` gives: host and port, for IPv6 flow label and scope. From a socket that was
:func:`ask`-ed one more: the address here, as the kernel wants it back."""
Ancillary = tuple[int, int, bytes]
"""A control message, as ``sendmsg`` takes it."""

_IP_PKTINFO: Final = 8
"""Linux; Python has no name for it before 3.14."""
_V4: Final = struct.Struct("=I4s4s")
_V6: Final = struct.Struct("=16sI")
_NATURAL: Final = {_V4.size: 2, _V6.size: 4}
"""Members of an address of the family, by the size of what is joined to it."""
ROOM: Final = socket.CMSG_SPACE(_V4.size) + socket.CMSG_SPACE(_V6.size)
"""Bytes of control messages to leave room for in ``recvmsg``."""


def ask(sock: socket.socket) -> bool:
    """Have *sock* tell, when it is bound to every address; whether it does from now on.

    Not for one that is bound to one address (there is nothing to tell) or to none yet (each
    datagram's source is the kernel's choice, and stays so).
    """
    host, port = sock.getsockname()[:2]
    if not port or not ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        return False
    with contextlib.suppress(OSError, AttributeError):  # a system that can't: as before
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            return True
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            return True
    return False


def joined(address: Address, ancillary: Iterable[Ancillary]) -> Address:
    """*address* with what *ancillary* tells of where the datagram came to; alone if nothing."""
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(value) == _V4.size:
            # The middle one is the address to answer from even when a broadcast was received.
            _, local, _ = _V4.unpack(value)
            return (*address, _V4.pack(0, local, bytes(4)))
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and len(value) == _V6.size:
            local, _ = _V6.unpack(value)
            if local[0] != 0xFF:  # nobody can send from a multicast address
                return (*address, _V6.pack(local, 0))
    return address


def parted(address: Address) -> tuple[Address, list[Ancillary]]:
    """What ``sendmsg`` needs to send to *address* from where the datagram of it came to."""
    value = address[-1]
    if not isinstance(value, bytes):
        return address, []
    natural = address[: _NATURAL[len(value)]]
    if len(value) == _V4.size:
        return natural, [(socket.IPPROTO_IP, _IP_PKTINFO, value)]
    return natural, [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, value)]


def arrived_at(address: Address) -> str | None:
    """The address here that the datagram from *address* came to; None when it was not told."""
    value = address[-1]
    if not isinstance(value, bytes):
        return None
    if len(value) == _V4.size:
        return str(ipaddress.IPv4Address(_V4.unpack(value)[1]))
    return str(ipaddress.IPv6Address(_V6.unpack(value)[0]))
