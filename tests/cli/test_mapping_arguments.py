"""Targets, amounts and flags of mappings, as people type them."""

from __future__ import annotations

import io
from typing import Any

import pytest
import typer

from underpass.cli.mapping_arguments import (
    amount,
    asked,
    given_password,
    health_of,
    source_of,
    target_of,
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0", 0), ("500", 500), ("64k", 64_000), ("1.5M", 1_500_000), ("1Mi", 2**20), ("2GB", 2e9)],
)
def test_amounts(text: str, wanted: int) -> None:
    assert amount(text) == wanted


@pytest.mark.parametrize("text", ["", "k", "-1", "1x", "1 000", "1e9", "x" * 50])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        amount(text)


@pytest.mark.parametrize(
    ("protocol", "text", "wanted"),
    [
        ("tcp", "22", {"target_port": 22}),
        ("udp", "ns.lan:53", {"target_port": 53, "target_host": "ns.lan"}),
        ("tcp", "[::1]:80", {"target_port": 80, "target_host": "::1"}),
        ("unix", "/run/x", {"target_path": "/run/x"}),
        ("socks5", None, {}),
    ],
)
def test_targets(protocol: str, text: str | None, wanted: dict[str, Any]) -> None:
    assert target_of(protocol, text) == wanted


@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        ("tcp", None), ("tcp", "ssh"), ("tcp", "0"), ("tcp", "65536"), ("tcp", ":22"),
        ("tcp", "::1:22"), ("tcp", "²"), ("unix", "run/x"), ("unix", None), ("socks5", "22"),
    ],
)  # fmt: skip
def test_what_is_no_target(protocol: str, text: str | None) -> None:
    with pytest.raises(typer.BadParameter):
        target_of(protocol, text)


def test_requests_hold_only_what_was_given() -> None:
    assert asked(protocol="tcp", name=None, options={"allow_ips": None}) == {"protocol": "tcp"}
    assert source_of(None, None, None, None) == {}
    assert source_of(0, None, "::1", "id") == {"port": 0, "bind": "::1", "client_id": "id"}
    full = asked(
        bandwidth="1k", burst="2k", connections=3, idle="5m",
        options={"allow_ips": ["::/0"], "proxy_protocol": "v2"},
    )  # fmt: skip
    assert full == {
        "limits": {"bandwidth": 1000, "burst": 2000, "connections": 3},
        "options": {"allow_ips": ["::/0"], "proxy_protocol": "v2", "idle_timeout": 300},
    }


def test_nothing_and_zero_take_away() -> None:
    assert asked(
        bandwidth="0", connections=0, idle="0",
        options={"allow_ips": ["any"], "proxy_protocol": "none"},
    ) == {
        "limits": {"bandwidth": None, "connections": None},
        "options": {"allow_ips": [], "proxy_protocol": None, "idle_timeout": None},
    }  # fmt: skip


def test_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(given_password(False)) >= 22
    assert given_password(False) != given_password(False)
    monkeypatch.setattr("sys.stdin", io.StringIO("secret\n"))
    assert given_password(True) == "secret"
    with pytest.raises(typer.BadParameter):
        given_password(True)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, {}),
        ("none", {"health": None}),
        ("tcp", {"health": {"type": "tcp"}}),
        ("http", {"health": {"type": "http"}}),
        ("http:/a:b,interval=1m,rise=4", {
            "health": {"type": "http", "path": "/a:b", "interval": 60, "rise": 4},
        }),
        ("tcp,fall=2", {"health": {"type": "tcp", "fall": 2}}),
    ],
)  # fmt: skip
def test_checks(text: str | None, wanted: dict[str, Any]) -> None:
    assert health_of(text) == wanted


@pytest.mark.parametrize("text", ["", "icmp", "tcp:/x", "tcp,fall=x", "http:/,every=3", "tcp,fall"])
def test_what_is_no_check(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        health_of(text)
