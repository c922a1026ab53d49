"""What may be asked of a mapping: good requests give what they say, bad ones name the field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from underpass.control.mapping import Balancing, Health, Limits, Mapping, Options, Source
from underpass.control.mapping_requests import changed_mapping, check_login, new_mapping
from underpass.core.errors import InvalidRequest

ID = "6f1c2a9e-0b7d-4c55-9d63-2f0a5b9e7c11"
AGENT = "0b9c7f1e-5d1a-4a53-8f0e-3c1f2a7d9e44"
OTHER = "1b9c7f1e-5d1a-4a53-8f0e-3c1f2a7d9e44"
TCP = {"protocol": "tcp", "target_client_id": AGENT, "target_port": 22}
UDP = TCP | {"protocol": "udp", "target_port": 53}
SOCKS = {"protocol": "socks5", "target_client_id": AGENT}
UNIX = {"protocol": "unix", "target_client_id": AGENT, "target_path": "/run/x.sock"}
AT_AGENT = {"source": {"client_id": OTHER, "port": 5432}}


def make(wanted: dict[str, Any]) -> Mapping:
    return new_mapping(wanted, id=ID, user_id="u-1", now=5.0)


def test_the_least_one_can_say() -> None:
    assert make(TCP) == Mapping(
        id=ID, name="tcp-6f1c2a9e", user_id="u-1", protocol="tcp", source=Source(),
        target_agent_id=AGENT, target_host="127.0.0.1", target_port=22, created_at=5.0,
        updated_at=5.0,
    )  # fmt: skip
    assert make(UDP).target == "udp:127.0.0.1:53"
    assert make(UNIX).target == "unix:/run/x.sock"
    assert make(SOCKS).target_host is None


def test_everything_one_can_say() -> None:
    mapping = make(
        TCP
        | {
            "name": "db", "source": {"port": 20_000, "bind": "127.0.0.1"}, "status": "disabled",
            "target_host": "DB.lan.", "limits": {"bandwidth": 10_000, "connections": 5, "burst": 9},
            "options": {
                "proxy_protocol": "v2", "accept_proxy_protocol": True,
                "allow_ips": ["192.0.2.7/24", "2001:db8::/32"], "deny_ips": ["192.0.2.1"],
                "compression": "zstd", "carrier": "dedicated", "idle_timeout": 30,
            },
            "group": "web", "balance": "least_connections",
            "health": {"type": "http", "path": "/ok", "interval": 5, "fall": 2, "rise": 1},
        }
    )  # fmt: skip
    assert mapping.source == Source("port", 20_000, None, None, "127.0.0.1")
    assert mapping.target == "tcp:db.lan.:22"
    assert mapping.limits == Limits(10_000, 5, 9)
    assert mapping.options == Options(
        proxy_protocol="v2", accept_proxy_protocol=True,
        allow_ips=("192.0.2.0/24", "2001:db8::/32"), deny_ips=("192.0.2.1/32",),
        compression="zstd", carrier="dedicated", idle_timeout=30.0,
    )  # fmt: skip
    assert mapping.balancing == Balancing("least_connections", Health("http", "/ok", 5.0, 2, 1))
    assert (mapping.name, mapping.group, mapping.status) == ("db", "web", "disabled")


@pytest.mark.parametrize("protocol", ["http", "https", "websocket"])
def test_protocols_of_a_later_version(protocol: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        make({"protocol": protocol, "target_client_id": AGENT, "source": {"host": "app"}})
    assert refused.value.code == "protocol_not_offered"
    assert refused.value.details == {"field": "protocol"}
    assert protocol in refused.value.message


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({}, "protocol"),
        (TCP | {"protocol": "sctp"}, "protocol"),
        (TCP | {"protocol": 6}, "protocol"),
        ({"protocol": "tcp", "target_port": 22}, "target_client_id"),
        (TCP | {"target_client_id": "web-1"}, "target_client_id"),
        (TCP | {"target_client_id": 7}, "target_client_id"),
        ({"protocol": "tcp", "target_client_id": AGENT}, "target_port"),
        (TCP | {"target_port": 0}, "target_port"),
        (TCP | {"target_port": 65_536}, "target_port"),
        (TCP | {"target_port": "22"}, "target_port"),
        (TCP | {"target_port": True}, "target_port"),
        (TCP | {"target_port": 22.5}, "target_port"),
        (TCP | {"target_host": ""}, "target_host"),
        (TCP | {"target_host": "a b"}, "target_host"),
        (TCP | {"target_host": "x" * 254}, "target_host"),
        (TCP | {"target_host": "-x"}, "target_host"),
        (TCP | {"target_host": "300.1.1.1"}, "target_host"),
        (TCP | {"target_host": "host:22"}, "target_host"),
        (TCP | {"target_host": 5}, "target_host"),
        (TCP | {"target_path": "/x"}, "target_path"),
        ({"protocol": "unix", "target_client_id": AGENT}, "target_path"),
        (UNIX | {"target_path": "x.sock"}, "target_path"),
        (UNIX | {"target_path": "/" + "x" * 107}, "target_path"),
        (UNIX | {"target_path": "/x\0"}, "target_path"),
        (UNIX | {"target_port": 1}, "target_port"),
        (SOCKS | {"target_host": "127.0.0.1"}, "target_host"),
        (TCP | {"name": "a b"}, "name"),
        (TCP | {"name": "x" * 65}, "name"),
        (TCP | {"status": "error"}, "status"),
        (TCP | {"status": 1}, "status"),
        (TCP | {"source": 22}, "source"),
        (TCP | {"source": {"prot": 22}}, "source.prot"),
        (TCP | {"source": {"port": -1}}, "source.port"),
        (TCP | {"source": {"port": 65_536}}, "source.port"),
        (TCP | {"source": {"port": "x"}}, "source.port"),
        (TCP | {"source": {"port": 1, "port_range": "1-2"}}, "source.port"),
        (TCP | {"source": {"port_range": "7010-7000"}}, "source.port_range"),
        (TCP | {"source": {"port_range": "7000"}}, "source.port_range"),
        (TCP | {"source": {"port_range": "7000-7100"}}, "source.port_range"),
        (TCP | {"source": {"port_range": 7000}}, "source.port_range"),
        (TCP | {"source": {"port_range": "7000-7010"}, "target_port": 65_530}, "target_port"),
        (TCP | {"source": {"client_id": "x"}}, "source.client_id"),
        (TCP | {"source": {"bind": "eth0"}}, "source.bind"),
        (TCP | {"source": {"host": "app"}}, "source"),
        (TCP | {"source": {"path": "/x"}}, "source"),
        (TCP | {"limits": []}, "limits"),
        (TCP | {"limits": {"bandwith": 1}}, "limits.bandwith"),
        (TCP | {"limits": {"bandwidth": 0}}, "limits.bandwidth"),
        (TCP | {"limits": {"bandwidth": 1.5}}, "limits.bandwidth"),
        (TCP | {"limits": {"connections": 100_001}}, "limits.connections"),
        (TCP | {"limits": {"burst": 100}}, "limits.burst"),
        (TCP | {"options": "x"}, "options"),
        (TCP | {"options": {"allow_ip": []}}, "options.allow_ip"),
        (TCP | {"options": {"allow_ips": "192.0.2.0/24"}}, "options.allow_ips"),
        (TCP | {"options": {"allow_ips": ["192.0.2.0/33"]}}, "options.allow_ips[0]"),
        (TCP | {"options": {"deny_ips": ["192.0.2.0", 5]}}, "options.deny_ips[1]"),
        (TCP | {"options": {"deny_ips": ["fe80::1%eth0"]}}, "options.deny_ips[0]"),
        (TCP | {"options": {"allow_ips": ["192.0.2.0"] * 1001}}, "options.allow_ips"),
        (TCP | {"options": {"compression": "brotli"}}, "options.compression"),
        (TCP | {"options": {"carrier": "pigeon"}}, "options.carrier"),
        (TCP | {"options": {"e2e": "yes"}}, "options.e2e"),
        (TCP | {"options": {"e2e": True}}, "options.e2e"),
        (SOCKS | AT_AGENT | {"options": {"e2e": True}}, "options.e2e"),
        (UDP | AT_AGENT | {"options": {"e2e": True}}, "options.e2e"),
        (TCP | {"balance": ""}, "balance"),
        (TCP | {"options": {"balance": False}}, "balance"),
        (TCP | AT_AGENT | {"options": {"e2e": True, "proxy_protocol": "v2"}},
         "options.proxy_protocol"),
        (TCP | AT_AGENT | {"options": {"e2e": True, "accept_proxy_protocol": True}},
         "options.accept_proxy_protocol"),
        (TCP | {"options": {"proxy_protocol": "v3"}}, "options.proxy_protocol"),
        (UDP | {"options": {"proxy_protocol": "v1"}}, "options.proxy_protocol"),
        (SOCKS | {"options": {"proxy_protocol": "v2"}}, "options.proxy_protocol"),
        (UDP | {"options": {"accept_proxy_protocol": True}}, "options.accept_proxy_protocol"),
        (TCP | {"options": {"accept_proxy_protocol": 1}}, "options.accept_proxy_protocol"),
        (TCP | {"options": {"username": "ada"}}, "options.username"),
        (TCP | {"options": {"basic_auth": {"username": "a"}}}, "options.basic_auth"),
        (SOCKS | {"options": {"username": "ada"}}, "options.password"),
        (SOCKS | {"options": {"basic_auth": {"user": "ada"}}}, "options.basic_auth.user"),
        (SOCKS | {"options": {"username": "a" * 256, "password": "b"}}, "options.username"),
        (TCP | {"options": {"idle_timeout": 0}}, "options.idle_timeout"),
        (TCP | {"options": {"idle_timeout": float("nan")}}, "options.idle_timeout"),
        (TCP | {"options": {"idle_timeout": True}}, "options.idle_timeout"),
        (TCP | {"options": {"tls": "terminate"}}, "options.tls"),
        (TCP | {"options": {"inspect": "bodies"}}, "options.inspect"),
        (TCP | {"group": "a b"}, "group"),
        (TCP | AT_AGENT | {"group": "web"}, "group"),
        (TCP | {"group": "web", "source": {"port_range": "7000-7001"}}, "group"),
        (TCP | {"balance": "random"}, "balance"),
        (TCP | {"health": {"type": "icmp"}}, "health.type"),
        (TCP | {"health": {"path": "ok"}}, "health.path"),
        (TCP | {"health": {"interval": 0}}, "health.interval"),
        (TCP | {"health": {"fall": 0}}, "health.fall"),
        (TCP | {"health": {"every": 1}}, "health.every"),
        (UDP | {"health": {"type": "tcp"}}, "health"),
        (SOCKS | {"health": {"type": "tcp"}}, "health"),
        (TCP | {"optoins": {}}, "optoins"),
    ],
)  # fmt: skip
def test_one_clear_error_names_the_field(wanted: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        make(wanted)
    assert refused.value.details == {"field": field}
    assert refused.value.message.startswith(f"{field}:")
    assert refused.value.message.endswith(".")


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
keys = st.sampled_from([
    "name", "source", "target_host", "target_port", "target_path", "target_client_id", "status",
    "limits", "options", "group", "balance", "health",
])  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine; the data is small
@given(st.sampled_from([TCP, UDP, SOCKS, UNIX]), st.dictionaries(keys, json))
def test_any_json_is_taken_or_refused(base: dict[str, Any], wanted: dict[str, Any]) -> None:
    try:
        mapping = make(base | wanted)
    except InvalidRequest as error:
        assert error.details["field"]
    else:
        assert changed_mapping(mapping, {}) == mapping


def test_a_change_changes_what_it_names() -> None:
    old = make(TCP | {"limits": {"bandwidth": 5, "connections": 3}, "options": {"e2e": False}})
    new = changed_mapping(old, {"limits": {"connections": None}, "options": {"carrier": "mux"}})
    assert new.limits == Limits(bandwidth=5)
    assert new.options.carrier == "mux"
    assert changed_mapping(new, {"options": {"carrier": None}}).options == Options()
    assert changed_mapping(old, {"name": "x", "protocol": "tcp"}).name == "x"
    with pytest.raises(InvalidRequest, match="can't be changed"):
        changed_mapping(old, {"protocol": "udp"})


def test_the_whole_answer_can_be_put_back() -> None:
    from underpass.control.mapping import MappingLive, mapping_record

    for wanted in (TCP, UDP, UNIX, TCP | AT_AGENT, TCP | {"source": {"port_range": "7000-7002"}}):
        old = make(wanted).at_port(7000) if "source" not in wanted else make(wanted)
        record = mapping_record(old, MappingLive(), "gw")
        assert changed_mapping(old, record) == old


def test_any_port_will_do_keeps_the_one_there_is() -> None:
    old = make(TCP).at_port(20_123)
    assert changed_mapping(old, {"source": {"port": 0}}) == old
    assert changed_mapping(old, {"source": {}}) == old
    moved = changed_mapping(old, {"source": {"client_id": OTHER}})
    assert moved.source == Source("agent", 0, None, OTHER)
    ranged = make(TCP | {"source": {"port_range": "7000-7002"}})
    assert changed_mapping(ranged, {"source": {"port": 0}}).source == Source()


def test_a_login_is_kept_and_taken_away() -> None:
    given = {"basic_auth": {"username": "ada", "password": "secret"}}
    old = make(SOCKS | {"options": given})
    assert (old.options.username, old.options.password) == ("ada", "secret")
    with pytest.raises(InvalidRequest, match="a username needs one"):
        changed_mapping(old, {"options": {"password": None}})
    kept = changed_mapping(old, {"options": {"username": "bob"}})
    assert (kept.options.username, kept.options.password) == ("bob", "secret")
    gone = changed_mapping(old, {"options": {"username": None}})
    assert (gone.options.username, gone.options.password) == (None, None)


def test_groups_may_stand_among_the_options() -> None:
    mapping = make(TCP | {"options": {"group": "web", "balance": "least_connections"}})
    assert (mapping.group, mapping.balancing.balance) == ("web", "least_connections")


@pytest.mark.parametrize(
    ("source", "default", "bind"),
    [
        ({}, "127.0.0.1", "127.0.0.1"),
        ({}, "localhost", "localhost"),
        ({"bind": "::1"}, "0.0.0.0", "::1"),
        ({"client_id": OTHER}, "0.0.0.0", "127.0.0.1"),
        ({}, "0.0.0.0", None),
        ({}, "gw.example.org", None),
        ({"client_id": OTHER, "bind": "0.0.0.0"}, "127.0.0.1", None),
        ({"bind": "192.0.2.1"}, "127.0.0.1", None),
    ],
)
def test_socks_without_a_login_only_for_this_machine(
    source: dict[str, Any], default: str, bind: str | None
) -> None:
    mapping = make(SOCKS | {"source": source})
    if bind is None:
        with pytest.raises(InvalidRequest) as refused:
            check_login(mapping, default)
        assert refused.value.code == "login_needed"
    else:
        assert check_login(mapping, default).source.bind == bind
    login = {"username": "ada", "password": "secret"}
    with_login = make(SOCKS | {"source": source, "options": login})
    assert check_login(with_login, default) == with_login
    assert check_login(make(TCP), "0.0.0.0") == make(TCP)
