"""Hosts in addresses, networks in lists."""

from __future__ import annotations

import pytest

from underpass.core.addresses import host_of, network_of


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("1.2.3.4:5", "1.2.3.4"),
        ("[::1]:5", "::1"),
        ("::1", "::1"),
        ("1.2.3.4", "1.2.3.4"),
        ("box:22", "box"),
        ("", None),
        (None, None),
    ],
)
def test_the_host_of_an_address(address: str | None, host: str | None) -> None:
    assert host_of(address) == host


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:c000:207/120", "192.0.2.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:0:0/95", "::fffe:0:0/95"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
    ],
)
def test_networks_are_of_ipv4_where_ipv6_wraps_it(text: str, network: str) -> None:
    assert str(network_of(text)) == network


@pytest.mark.parametrize("text", ["", "x", "192.0.2.0/33", "::/129"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear"):
        network_of(text)
