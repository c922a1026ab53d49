"""Mappings as values: targets, ports, and what others are shown of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from underpass.control.mapping import (
    GATEWAY,
    Mapping,
    MappingLive,
    Options,
    Source,
    mapping_record,
    mapping_stats,
)

BASE = Mapping(
    id="m-1", name="web", user_id="u-1", protocol="tcp", source=Source(port=20_001),
    target_agent_id="a-1", target_host="127.0.0.1", target_port=22,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "target", "transports"),
    [
        ({}, "tcp:127.0.0.1:22", ("tcp",)),
        ({"target_host": "::1"}, "tcp:[::1]:22", ("tcp",)),
        ({"target_host": None}, "tcp:127.0.0.1:22", ("tcp",)),
        ({"protocol": "udp", "target_host": "dns.lan"}, "udp:dns.lan:22", ("udp",)),
        ({"protocol": "unix", "target_path": "/run/x.sock"}, "unix:/run/x.sock", ("tcp",)),
        ({"protocol": "socks5"}, "", ("tcp", "udp")),
    ],
)
def test_targets(changes: dict[str, Any], target: str, transports: tuple[str, ...]) -> None:
    mapping = replace(BASE, **changes)
    assert mapping.target == target
    assert mapping.transports == transports


def test_each_port_of_a_range_has_a_target_of_its_own() -> None:
    source = Source(port=7000, port_range=(7000, 7010))
    mapping = replace(BASE, source=source, target_port=80)
    assert mapping.target == mapping.target_for(7000) == "tcp:127.0.0.1:80"
    assert mapping.target_for(7010) == "tcp:127.0.0.1:90"
    assert list(source.ports) == list(range(7000, 7011))
    assert mapping.public_port == 7000
    assert source.to_json() == {"port_range": "7000-7010"}


def test_a_port_at_an_agent_is_no_public_one() -> None:
    source = Source("agent", 5432, agent_id="a-2", bind="127.0.0.1")
    mapping = replace(BASE, source=source)
    assert mapping.public_port is None
    assert source.place == "a-2"
    assert source.to_json() == {"client_id": "a-2", "port": 5432, "bind": "127.0.0.1"}
    assert mapping_record(mapping, MappingLive(), "gw")["public_url"] is None


def test_no_port_yet() -> None:
    source = Source()
    assert list(source.ports) == []
    assert source.place == GATEWAY
    assert replace(BASE, source=source).public_port is None
    assert replace(BASE, source=source).at_port(20_005).public_port == 20_005


@pytest.mark.parametrize(
    ("changes", "host", "url"),
    [
        ({}, "gw.example.org", "tcp://gw.example.org:20001"),
        ({"protocol": "udp"}, "2001:db8::1", "udp://[2001:db8::1]:20001"),
        ({"protocol": "socks5"}, "gw", "socks5://gw:20001"),
        ({"protocol": "unix"}, "gw", "tcp://gw:20001"),
        ({"source": Source(port=20_001, bind="127.0.0.1")}, "gw", "tcp://127.0.0.1:20001"),
        ({"source": Source(port=20_001, bind="0.0.0.0")}, "gw", "tcp://gw:20001"),
    ],
)
def test_public_addresses(changes: dict[str, Any], host: str, url: str) -> None:
    assert mapping_record(replace(BASE, **changes), MappingLive(), host)["public_url"] == url


def test_nobody_is_shown_a_password() -> None:
    mapping = replace(BASE, options=Options(username="ada", password="hunter22hunter"))
    record = mapping_record(mapping, MappingLive(), "gw")
    assert record["options"]["username"] == "ada"
    assert "hunter22" not in str(record)
    assert "hunter22" not in repr(mapping)


def test_stats_are_the_row_and_what_is_not_written_yet() -> None:
    mapping = replace(BASE, total_connections=5, bytes_sent=100, bytes_received=7)
    assert mapping_stats(mapping, MappingLive())["last_active_at"] is None
    live = MappingLive(2, 1.0, 1.0, 1, 10, 3, last_active_at=1_700_000_000.0)
    assert mapping_stats(replace(mapping, last_active_at=1.0), live) == {
        "total_connections": 6, "active": 2, "bytes_sent": 110, "bytes_received": 10,
        "last_active_at": "2023-11-14T22:13:20.000Z",
    }  # fmt: skip


@pytest.mark.parametrize(("status", "on"), [("active", True), ("error", True), ("disabled", False)])
def test_enabled(status: Any, on: bool) -> None:
    assert replace(BASE, status=status).enabled is on
