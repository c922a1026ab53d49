"""Takes the ports of a mapping: all of them or none, on IPv4 and, where there is one, IPv6.

The gateway's, and those of an agent that listens for mappings.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from underpass.core.errors import Conflict, Unavailable

__all__ = ["BACKLOG", "addresses_of", "bind"]

BACKLOG: Final = 1024
"""Connections the kernel keeps until we take them."""
_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""A peer that vanished without a word is noticed after two minutes."""


def addresses_of(bind_to: str | None, own: str) -> tuple[str, ...]:
    """Where to listen: the first must work, the others only where there is IPv6.

    Args:
        bind_to: what a mapping asks for.
        own: the address the gateway listens on, which counts when it asks for nothing. Who keeps
            the gateway on loopback does not want its mappings in the world either.
    """
    if bind_to is not None:
        return ("0.0.0.0", "::") if bind_to == "::" else (bind_to,)
    if own in ("0.0.0.0", "::"):
        return ("0.0.0.0", "::")
    if own in ("127.0.0.1", "localhost"):
        return ("127.0.0.1", "::1")
    return (own,)


def bind(
    transport: Literal["tcp", "udp"],
    ports: Iterable[int],
    addresses: Sequence[str],
    *,
    who: str = "gateway",
) -> list[socket.socket]:
    """Sockets on *ports*, listening when they are TCP, not blocking.

    Args:
        transport: what for.
        ports: which; 0 takes a free one, the same on every address.
        addresses: from :func:`addresses_of`.
        who: what errors call this machine.

    Raises:
        Conflict: code ``port_in_use``: somebody else has one of them; nothing stays taken.
        Unavailable: code ``bind_failed``: it can't be had for another reason.
    """
    taken: list[socket.socket] = []
    try:
        for port in ports:
            for address in addresses:
                try:
                    sock = _socket(transport, address, port)
                except OSError as error:
                    if address != addresses[0] and error.errno in _NO_IPV6:
                        continue  # a machine without IPv6
                    raise _why(error, transport, address, port, who) from None
                taken.append(sock)
                port = port or int(sock.getsockname()[1])
    except BaseException:
        for sock in taken:
            sock.close()
        raise
    return taken


def _socket(transport: str, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if transport == "tcp":
            # Connections of the port's last user may still be waiting out their minutes. (For UDP
            # the same option would let two programs share the port.)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted ones inherit it
            for name, value in _KEEPALIVE:
                with contextlib.suppress(AttributeError, OSError):  # not on every system
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        sock.bind((address, port))
        if transport == "tcp":
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _why(
    error: OSError, transport: str, address: str, port: int, who: str
) -> Conflict | Unavailable:
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"{transport.upper()} port {port} is in use on the {who}.",
            code="port_in_use",
            hint="Choose another port, or 0 for any.",
        )
    reason = error.strerror or str(error)
    return Unavailable(
        f"The {who} can't listen on {transport.upper()} port {port} of {address}: {reason}.",
        code="bind_failed",
    )
