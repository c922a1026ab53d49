"""Addresses and datagram headers in SOCKS5 form: what fits comes back, all else is refused."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.wire.socks5 import (
    MAX_HOST,
    Socks5Error,
    build_udp,
    check_host,
    check_port,
    decode_address,
    encode_address,
    parse_udp,
)

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}", fullmatch=True)
HOSTS = st.ip_addresses().map(str).filter(lambda host: "%" not in host) | NAMES


@pytest.mark.parametrize(
    ("host", "port", "wire"),
    [
        ("192.0.2.1", 80, b"\x01\xc0\x00\x02\x01\x00\x50"),
        ("2001:db8::1", 443, b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x01\xbb"),
        ("example.org", 65535, b"\x03\x0bexample.org\xff\xff"),
        ("a", 0, b"\x03\x01a\x00\x00"),
        ("x" * MAX_HOST, 1, b"\x03\xff" + b"x" * 255 + b"\x00\x01"),
    ],
)
def test_each_type(host: str, port: int, wire: bytes) -> None:
    assert encode_address(host, port) == wire
    for kind in (bytes, bytearray, memoryview):
        assert decode_address(kind(b"??" + wire + b"rest"), 2) == (host, port, len(wire) + 2)


@given(HOSTS, st.integers(0, 65535), st.binary(max_size=20), st.binary(max_size=20))
def test_round_trip_anywhere_in_a_buffer(host: str, port: int, front: bytes, rest: bytes) -> None:
    wire = encode_address(host, port)
    assert decode_address(front + wire + rest, len(front)) == (host, port, len(front + wire))


@given(HOSTS, st.integers(0, 65535))
def test_every_cut_is_noticed(host: str, port: int) -> None:
    wire = encode_address(host, port)
    for end in range(len(wire)):
        with pytest.raises(Socks5Error) as caught:
            decode_address(wire[:end])
        assert caught.value.code == "truncated"


@pytest.mark.parametrize("kind", [0, 2, 5, 255])
def test_unknown_types_are_refused_at_their_first_byte(kind: int) -> None:
    with pytest.raises(Socks5Error) as caught:
        decode_address(bytes((kind,)))
    assert caught.value.code == "address_type_not_supported"


@pytest.mark.parametrize(
    "name",
    [b"", b"a b", b"a\0b", b"a\r\nb", b"host:80", b"user@host", b"a/b", b"[::1]", b"fe80::1%eth0",
     b"-oProxyCommand", b".example.org", b"b\xc3\xbccher.example", b"\xff", b"a%0d", b":"],
)  # fmt: skip
def test_names_that_are_none(name: bytes) -> None:
    with pytest.raises(Socks5Error) as caught:
        decode_address(b"\x03" + bytes((len(name),)) + name + b"\x00\x50")
    assert caught.value.code == "bad_address"


@pytest.mark.parametrize("host", ["", "a b", "x" * 256, "bücher.example", "fe80::/10", "[::1]"])
def test_hosts_that_cannot_be_said(host: str) -> None:
    with pytest.raises(Socks5Error) as caught:
        encode_address(host, 1)
    assert caught.value.code == "bad_address"


def test_an_address_sent_as_a_name_is_taken_in_its_shortest_form() -> None:
    assert decode_address(b"\x03\x0f0:0:0:0:0:0:0:1\x00\x01")[0] == "::1"
    assert decode_address(b"\x03\x09127.0.0.1\x00\x01")[0] == "127.0.0.1"
    assert check_host("2001:DB8:0::1") == "2001:db8::1"


def test_a_zone_stays_at_home() -> None:
    assert encode_address("fe80::1%eth0", 1) == encode_address("fe80::1", 1)
    assert decode_address(encode_address("fe80::1%3", 1))[0] == "fe80::1"
    with pytest.raises(Socks5Error):
        check_host("fe80::1%eth0")


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports_that_are_none(port: int) -> None:
    for call in (lambda: encode_address("a", port), lambda: check_port(port)):
        with pytest.raises(Socks5Error) as caught:
            call()
        assert caught.value.code == "bad_address"


@given(st.binary(max_size=300), st.integers(0, 10))
def test_nonsense_raises_only_socks5_errors(data: bytes, offset: int) -> None:
    try:
        host, port, end = decode_address(data, offset)
    except Socks5Error:
        return
    assert check_host(host)
    assert 0 <= port <= 65535
    assert offset < end <= len(data)


def test_a_datagram_carries_its_address() -> None:
    assert build_udp("192.0.2.1", 53, b"query") == b"\0\0\0\x01\xc0\0\x02\x01\0\x35query"
    assert parse_udp(b"\0\0\0\x03\x01a\0\x35") == ("a", 53, b"")
    assert parse_udp(memoryview(build_udp("::1", 53, memoryview(b"q")))) == ("::1", 53, b"q")


@given(HOSTS, st.integers(1, 65535), st.binary(max_size=100))
def test_datagrams_round_trip(host: str, port: int, data: bytes) -> None:
    wire = build_udp(host, port, data)
    assert parse_udp(wire) == (host, port, data)
    assert 8 <= len(wire) - len(data) <= 262


@pytest.mark.parametrize("fragment", [1, 127, 128, 129, 255])
def test_fragments_are_dropped(fragment: int) -> None:
    datagram = bytearray(build_udp("192.0.2.1", 53, b"x"))
    datagram[2] = fragment
    with pytest.raises(Socks5Error) as caught:
        parse_udp(datagram)
    assert caught.value.code == "fragmented"


@pytest.mark.parametrize(
    ("datagram", "code"),
    [
        (b"", "bad_datagram"),
        (b"\0\0", "bad_datagram"),
        (b"\1\0\0\x01\x7f\0\0\x01\0\x35", "bad_datagram"),
        (b"\0\1\0\x01\x7f\0\0\x01\0\x35", "bad_datagram"),
        (b"\0\0\0", "truncated"),
        (b"\0\0\0\x01\x7f\0\0\x01\0", "truncated"),
        (b"\0\0\0\x03\xffab\0\x35", "truncated"),
        (b"\0\0\0\x07\x7f\0\0\x01\0\x35", "address_type_not_supported"),
        (b"\0\0\0\x03\0\0\x35", "bad_address"),
        (b"\0\0\0\x01\x7f\0\0\x01\0\0data", "bad_address"),
    ],
)
def test_datagrams_that_are_none(datagram: bytes, code: str) -> None:
    with pytest.raises(Socks5Error) as caught:
        parse_udp(datagram)
    assert caught.value.code == code


def test_nothing_is_sent_to_port_0() -> None:
    with pytest.raises(Socks5Error):
        build_udp("a", 0, b"")


@given(st.binary(min_size=16, max_size=16))
def test_ipv6_text_is_that_of_the_standard_library(packed: bytes) -> None:
    assert decode_address(b"\x04" + packed + b"\0\1")[0] == str(IPv6Address(packed))
