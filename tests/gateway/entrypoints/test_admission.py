"""Address lists and places."""

from __future__ import annotations

import pytest

from underpass.gateway.entrypoints.admission import AddressRules, Places, plain_host


@pytest.mark.parametrize(
    ("allow", "deny", "host", "admitted"),
    [
        ((), (), "anything", True),
        (("10.0.0.0/8",), (), "10.1.2.3", True),
        (("10.0.0.0/8",), (), "::ffff:10.1.2.3", True),
        (("10.0.0.0/8",), (), "11.1.2.3", False),
        (("10.0.0.0/8",), ("10.1.0.0/16",), "10.1.2.3", False),
        ((), ("10.1.0.0/16",), "10.1.2.3", False),
        ((), ("10.1.0.0/16",), "::ffff:10.1.2.3", False),
        ((), ("10.1.0.0/16",), "10.2.2.3", True),
        ((), ("10.1.0.0/16",), "::ffff:a01:203", False),
        ((), ("::ffff:10.1.0.0/112",), "10.1.2.3", False),
        ((), ("::ffff:10.1.2.3",), "::ffff:10.1.2.3", False),
        ((), ("::ffff:0:0/96",), "10.1.2.3", False),
        (("::ffff:10.1.2.3",), (), "10.1.2.3", True),
        ((), ("::/0",), "10.1.2.3", True),
        (("2001:db8::/32",), (), "2001:db8::7%eth0", True),
        (("2001:db8::/32",), (), "10.1.2.3", False),
        (("0.0.0.0/0",), (), "no address", False),
        ((), ("0.0.0.0/0",), "no address", False),
    ],
)
def test_lists(allow: tuple[str, ...], deny: tuple[str, ...], host: str, admitted: bool) -> None:
    assert AddressRules(allow, deny).admits(host) is admitted


def test_denying_looks_at_the_deny_list_only() -> None:
    rules = AddressRules(["10.0.0.1"], ["192.0.2.0/24"])
    assert rules.denies("192.0.2.1")
    assert not rules.denies("203.0.113.1")
    assert not AddressRules(["10.0.0.1"]).denies("203.0.113.1")


def test_plain_hosts() -> None:
    assert plain_host("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain_host("fe80::1%eth0") == "fe80::1"
    assert plain_host("::ffff:1") == "::ffff:1"


def test_places() -> None:
    places = Places(2)
    assert [places.take() for _ in range(3)] == [True, True, False]
    places.limit = 1  # who is in stays in
    places.free()
    assert not places.take()
    places.limit = None
    assert places.take()
    assert places.taken == 2
