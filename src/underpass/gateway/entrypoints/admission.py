"""Who may come in at all: address lists, and places that run out. Pure decisions."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from underpass.core.addresses import Network, network_of

__all__ = ["AddressRules", "Places", "plain_host"]


def plain_host(host: str) -> str:
    """*host* as lists and logs name it: no scope id, and IPv4 for IPv4 inside IPv6."""
    host = host.partition("%")[0]
    if host.startswith("::ffff:") and "." in host:
        return host[7:]
    return host


class AddressRules:
    """The allow and deny lists of a mapping. Deny beats allow; no allow list lets everybody in.

    Args:
        allow: networks in CIDR form.
        deny: networks in CIDR form.
    """

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        self._allow = _networks(allow)
        self._deny = _networks(deny)

    def admits(self, host: str) -> bool:
        """Whether *host*, an address, may come in. What is no address is let in by no list."""
        if not (self._allow or self._deny):
            return True
        address = _address(host)
        if address is None or _within(address, self._deny):
            return False
        return not self._allow or _within(address, self._allow)

    def denies(self, host: str) -> bool:
        """Whether the deny list names *host*, whatever the allow list says."""
        if not self._deny:
            return False
        address = _address(host)
        return address is None or _within(address, self._deny)


class Places:
    """So many at a time.

    Attributes:
        limit: how many; None for no limit. May be changed; who is in stays in.
        taken: how many are in.
    """

    __slots__ = ("limit", "taken")

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.taken = 0

    def take(self) -> bool:
        """Take a place; False when there is none."""
        if self.limit is not None and self.taken >= self.limit:
            return False
        self.taken += 1
        return True

    def free(self) -> None:
        """Give one back."""
        self.taken -= 1


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    return tuple(network_of(text) for text in texts)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(plain_host(host))
    except ValueError:
        return None
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return inner or address


def _within(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: tuple[Network, ...]
) -> bool:
    return any(address in network for network in networks)
