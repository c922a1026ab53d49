"""Hosts in addresses."""

from __future__ import annotations

import pytest

from underpass.core.addresses import host_of


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
