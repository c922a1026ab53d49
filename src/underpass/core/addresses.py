"""Network addresses as text: the host in ``host:port``."""

from __future__ import annotations

__all__ = ["host_of"]


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
