"""The PROXY protocol: both versions in any pieces, and nothing that only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.wire.proxy_protocol import (
    MAX_V1,
    MAX_V2,
    Address,
    Decoder,
    Header,
    ProxyProtocolError,
    encode_v1,
    encode_v2,
)

SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
FOUR = ("192.0.2.1", 56324)
FOUR_TO = ("198.51.100.7", 443)
SIX = ("2001:db8::1", 65535)
SIX_TO = ("2001:db8::2", 0)


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return SIGNATURE + bytes((command, family)) + size.to_bytes(2, "big") + body


def decode(wire: bytes, step: int | None = None) -> tuple[Header | None, bytes]:
    """The header of *wire* fed in pieces, and what is behind it."""
    decoder = Decoder()
    step = step or len(wire) or 1
    for start in range(0, len(wire), step):
        header = decoder.feed(wire[start : start + step])
        if header is not None:
            return header, decoder.leftover + wire[start + step :]
        assert decoder.leftover == b""
    return None, b""


def refused(wire: bytes, code: str = "bad_proxy_header") -> None:
    """*wire* is refused for *code*, in any pieces."""
    for step in (1, 2, 5, len(wire)):
        with pytest.raises(ProxyProtocolError) as caught:
            decode(wire, step)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("wire", "header"),
    [
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
            Header(FOUR, FOUR_TO, 1, "tcp"),
        ),
        (
            b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n",
            Header(SIX, SIX_TO, 1, "tcp"),
        ),
        (
            b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2001:DB8:0:0::2 1 2\r\n",
            Header(("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1), ("2001:db8::2", 2), 1, "tcp"),
        ),
        (b"PROXY UNKNOWN\r\n", Header(None, None, 1)),
        (b"PROXY UNKNOWN \r\n", Header(None, None, 1)),
        (b"PROXY UNKNOWN what\xffever it is\r\n", Header(None, None, 1)),
        (b"PROXY UNKNOWN " + b"f:" * 45 + b"1\r\n", Header(None, None, 1)),
        (v2(0x20, 0, b""), Header(None, None, 2)),
        (v2(0x20, 0x11, bytes(12)), Header(None, None, 2)),
        (v2(0x20, 0xFF, b"anything"), Header(None, None, 2)),
        (v2(0x21, 0, b""), Header(None, None, 2)),
        (v2(0x21, 0, bytes(30)), Header(None, None, 2)),
        (
            v2(0x21, 0x11, b"\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb"),
            Header(FOUR, FOUR_TO, 2, "tcp"),
        ),
        (
            v2(0x21, 0x12, b"\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb"),
            Header(FOUR, FOUR_TO, 2, "udp"),
        ),
        (
            v2(0x21, 0x21, b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"
               b"\x20\x01\x0d\xb8" + bytes(11) + b"\x02" + b"\xff\xff\0\0"),
            Header(SIX, SIX_TO, 2, "tcp"),
        ),
        (v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") * 2), Header(None, None, 2)),
        (v2(0x21, 0x32, bytes(216)), Header(None, None, 2)),
    ],
)  # fmt: skip
def test_each_kind_in_any_pieces(wire: bytes, header: Header) -> None:
    for rest in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\r\n"):
        for cut in range(len(wire) + len(rest) + 1):
            decoder = Decoder()
            got = decoder.feed((wire + rest)[:cut])
            assert (got is None) == (cut < len(wire))
            if got is None:
                assert decoder.leftover == b""
                got = decoder.feed((wire + rest)[cut:])
                assert decoder.leftover == rest
            assert got == header
    assert decode(wire + b"x", 1) == (header, b"x")


def test_a_cr_and_its_lf_may_come_apart() -> None:
    decoder = Decoder()
    assert decoder.feed(b"PROXY UNKNOWN\r") is None
    assert decoder.feed(b"\nrest") == Header(None, None, 1)
    assert decoder.leftover == b"rest"


@pytest.mark.parametrize(
    ("source", "destination", "v1", "v2_start"),
    [
        (FOUR, FOUR_TO, b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", b"\x21\x11\0\x0c"),
        (SIX, SIX_TO, b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n", b"\x21\x21\0\x24"),
        (None, FOUR_TO, b"PROXY UNKNOWN\r\n", b"\x20\x00\0\0"),
        (FOUR, None, b"PROXY UNKNOWN\r\n", b"\x20\x00\0\0"),
        (("", 0), FOUR_TO, b"PROXY UNKNOWN\r\n", b"\x20\x00\0\0"),
        (FOUR, ("some.host", 1), b"PROXY UNKNOWN\r\n", b"\x20\x00\0\0"),
    ],
)
def test_encoding(
    source: Address | None, destination: Address | None, v1: bytes, v2_start: bytes
) -> None:
    assert encode_v1(source, destination) == v1
    assert encode_v2(source, destination).startswith(SIGNATURE + v2_start)


def test_v2_says_the_transport() -> None:
    assert encode_v2(FOUR, FOUR_TO, "udp")[13] == 0x12
    assert encode_v2(SIX, SIX_TO, "udp")[13] == 0x22


def test_ipv4_seen_through_a_dual_stack_socket_is_ipv4() -> None:
    assert encode_v1(("::ffff:192.0.2.1", 1), ("::ffff:c633:6407", 2)) == (
        b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\n"
    )
    assert encode_v2(("::ffff:192.0.2.1", 56324), FOUR_TO) == encode_v2(FOUR, FOUR_TO)


def test_two_families_become_ipv6() -> None:
    wire = encode_v1(FOUR, SIX_TO)
    header, _ = decode(wire)
    assert wire.startswith(b"PROXY TCP6 ::ffff:")
    assert header is not None
    assert header.source is not None
    assert encode_v1(header.source, FOUR_TO) == encode_v1(FOUR, FOUR_TO)
    assert decode(encode_v2(SIX, FOUR_TO))[0] is not None


def test_a_zone_stays_at_home() -> None:
    assert encode_v1(("fe80::1%eth0", 1), SIX_TO) == encode_v1(("fe80::1", 1), SIX_TO)


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports_that_cannot_be_said(port: int) -> None:
    for encode in (encode_v1, encode_v2):
        for pair in ((("::1", port), SIX_TO), (SIX, ("::1", port))):
            with pytest.raises(ProxyProtocolError) as caught:
                encode(*pair)
            assert caught.value.code == "bad_address"


IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = st.ip_addresses(v=6).map(str).filter(lambda a: "%" not in a and "::ffff:" not in a)
PORTS = st.integers(0, 65535)


@given(
    st.tuples(IPV4, PORTS, IPV4, PORTS) | st.tuples(IPV6, PORTS, IPV6, PORTS),
    st.sampled_from(["v1", "tcp", "udp"]),
    st.binary(max_size=20),
    st.integers(1, 60),
)
def test_round_trip(ends: tuple[str, int, str, int], kind: str, rest: bytes, step: int) -> None:
    source, destination = ends[:2], ends[2:]
    if kind == "v1":
        wire = encode_v1(source, destination)
        expected = Header(source, destination, 1, "tcp")
        assert len(wire) <= MAX_V1
    else:
        wire = encode_v2(source, destination, kind)  # type: ignore[arg-type]
        expected = Header(source, destination, 2, kind)  # type: ignore[arg-type]
    assert decode(wire + rest, step) == (expected, rest)


@pytest.mark.parametrize(
    "wire",
    [b"GET / HTTP/1.1\r\n", b"proxy TCP4", b"PROXYTCP4", b"PROXY\r\n", b"\r\n\r\n\0\r\nQUIT\r",
     b"\x16\x03\x01", b"\r\nPROXY UNKNOWN\r\n", b"\0", b" PROXY UNKNOWN\r\n"],
)  # fmt: skip
def test_what_is_no_header_is_refused_at_once(wire: bytes) -> None:
    refused(wire, "no_proxy_header")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"TCP4",
        b"TCP5 192.0.2.1 192.0.2.2 1 2",
        b"UNKNOWNS",
        b"unknown",
        b" UNKNOWN",
        b"UDP4 192.0.2.1 192.0.2.2 1 2",
        b"TCP4 192.0.2.1 192.0.2.2 1",
        b"TCP4 192.0.2.1 192.0.2.2 1 2 3",
        b"TCP4 192.0.2.1 192.0.2.2 1 2 ",
        b"TCP4  192.0.2.1 192.0.2.2 1 2",
        b"TCP4 192.0.2.1\t192.0.2.2 1 2",
        b"TCP4 192.0.2.256 192.0.2.2 1 2",
        b"TCP4 192.0.2.01 192.0.2.2 1 2",
        b"TCP4 192.0.2.1 host 1 2",
        b"TCP4 ::1 ::2 1 2",
        b"TCP6 192.0.2.1 192.0.2.2 1 2",
        b"TCP6 fe80::1%eth0 ::2 1 2",
        b"TCP6 [::1] ::2 1 2",
        b"TCP4 192.0.2.\xb2 192.0.2.2 1 2",
        b"TCP4 192.0.2.1 192.0.2.2 65536 2",
        b"TCP4 192.0.2.1 192.0.2.2 1 99999",
        b"TCP4 192.0.2.1 192.0.2.2 01 2",
        b"TCP4 192.0.2.1 192.0.2.2 +1 2",
        b"TCP4 192.0.2.1 192.0.2.2 -1 2",
        b"TCP4 192.0.2.1 192.0.2.2 1_0 2",
        b"TCP4 192.0.2.1 192.0.2.2  2",
        b"TCP4 192.0.2.1 192.0.2.2 000001 2",
        b"TCP4 192.0.2.1 192.0.2.2 1 2\r",
    ],
)
def test_lines_that_break_the_rules(line: bytes) -> None:
    refused(b"PROXY " + line + b"\r\nrest")


def test_a_bare_lf_ends_no_line() -> None:
    refused(b"PROXY UNKNOWN\nrest\r\n")
    refused(b"PROXY \n")


def test_a_line_has_at_most_107_bytes() -> None:
    longest = b"PROXY UNKNOWN ".ljust(MAX_V1 - 2, b"x") + b"\r\n"
    assert len(longest) == MAX_V1
    assert decode(longest, 1) == (Header(None, None, 1), b"")
    refused(longest[:-2] + b"x\r\n")
    assert decode(longest[:-1], 1) == (None, b"")
    refused(longest[:-2] + b"xx")


@pytest.mark.parametrize(
    ("command", "family", "body", "length"),
    [
        (0x11, 0x11, bytes(12), None),  # version 1 in version 2's clothes
        (0x31, 0x11, bytes(12), None),
        (0x01, 0x11, bytes(12), None),
        (0x22, 0x11, bytes(12), None),
        (0x2F, 0x00, b"", None),
        (0x21, 0x41, bytes(216), None),
        (0x21, 0x10, bytes(12), None),
        (0x21, 0x13, bytes(12), None),
        (0x21, 0x01, bytes(12), None),
        (0x21, 0x11, bytes(11), None),
        (0x21, 0x11, bytes(40), 0),
        (0x21, 0x21, bytes(35), None),
        (0x21, 0x31, bytes(215), None),
        (0x21, 0x11, bytes(12), 0xFFFF),
        (0x20, 0x00, b"", 0xFFFF),
        (0x21, 0x11, bytes(600), MAX_V2 - 16 + 1),
    ],
)
def test_v2_headers_that_break_the_rules(
    command: int, family: int, body: bytes, length: int | None
) -> None:
    refused(v2(command, family, body, length))


def test_tlvs_are_skipped_and_never_read() -> None:
    addresses = b"\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb"
    for tlvs in (
        b"\x04\x00\x00",  # NOOP
        b"\x02\x00\x0bexample.org" + b"\x03\x00\x04\x01\x02\x03\x04",
        b"\x20\xff\xffa length that lies",
        bytes(MAX_V2 - 16 - len(addresses)),
    ):
        wire = v2(0x21, 0x11, addresses + tlvs)
        for step in (1, 17, len(wire)):
            assert decode(wire + b"!", step) == (Header(FOUR, FOUR_TO, 2, "tcp"), b"!")


def test_a_header_whose_length_takes_in_more_waits_for_it() -> None:
    decoder = Decoder()
    assert decoder.feed(v2(0x21, 0x11, bytes(12), 13)) is None
    assert decoder.feed(b"xrest") is not None
    assert decoder.leftover == b"rest"


def test_memory_is_bounded() -> None:
    decoder = Decoder()
    wire = v2(0x21, 0x11, bytes(MAX_V2 - 16))
    for index in range(len(wire) - 1):
        assert decoder.feed(wire[index : index + 1]) is None
        assert len(decoder._buffer) < MAX_V2


def test_feeding_on_is_a_bug() -> None:
    decoder = Decoder()
    decoder.feed(b"PROXY UNKNOWN\r\n")
    with pytest.raises(RuntimeError, match="nothing more"):
        decoder.feed(b"x")
    decoder = Decoder()
    with pytest.raises(ProxyProtocolError):
        decoder.feed(b"x")
    with pytest.raises(RuntimeError, match="nothing more"):
        decoder.feed(b"x")
    assert decoder.leftover == b""


@given(
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0"]),
    st.binary(max_size=120),
    st.integers(1, 20),
)
def test_nonsense_gives_the_same_in_any_pieces(start: bytes, noise: bytes, step: int) -> None:
    wire = start + noise

    def outcome(step: int) -> object:
        try:
            return decode(wire, step)
        except ProxyProtocolError as error:
            return error.code

    assert outcome(step) == outcome(len(wire) or 1)
