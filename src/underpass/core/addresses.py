"""Network addresses as text: the host in ``host:port``, and networks in lists."""

from __future__ import annotations

import ipaddress

__all__ = ["Network", "host_of", "network_of"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network_of(text: str) -> Network:
    """The network *text* (CIDR, or an address) names; one of IPv4 where IPv6 wraps it.

    Addresses are compared as IPv4 wherever they are (``::ffff:192.0.2.1`` is 192.0.2.1), so that
    a list that wraps them (RFC 4291 section 2.5.5.2) would name nobody.

    Raises:
        ValueError: it is none.
    """
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        inner = network.network_address.ipv4_mapped
        if inner is not None:
            return ipaddress.IPv4Network((int(inner), network.prefixlen - 96))
    return network


def host_of(address: str | None) -> str | None:
    """The host of *address*.

    Args:
        address: ``host:port``, ``[IPv6]:port``, a bare host, or nothing.

    Returns:
        the host without port and brackets, as events, rows and caps name it; None for nothing.
    """
    if not address:
        return None
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.rpartition(":")[0] if address.count(":") == 1 else address
