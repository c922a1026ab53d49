"""Both ends of SOCKS5 and its datagrams: the same outcome however the bytes are cut.

The first byte of an input chooses the size of the pieces, the second the methods and the answers.
"""

from __future__ import annotations

from tests.wire.proxy_client import Outcome, converse, pieces
from underpass.wire.socks5 import (
    MAX_PENDING,
    Authenticating,
    ClientHandshake,
    Connected,
    Method,
    Reply,
    ServerHandshake,
    Socks5Error,
    build_udp,
    check_host,
    encode_address,
    parse_udp,
)

_LOGIN = b"\x05\x02\x00\x02" + b"\x01\x05alice\x06secret"

SEEDS: list[bytes] = [
    b"\x01\x00\x05\x01\x00\x05\x01\x00" + encode_address("example.org", 443) + b"data",
    b"\x03\x01" + _LOGIN + b"\x05\x01\x00" + encode_address("192.0.2.1", 80) + b"data",
    b"\x07\x06" + _LOGIN + b"\x05\x03\x00" + encode_address("::", 0),
    b"\x02\x02\x05\x01\x00\x05\x02\x00" + encode_address("::1", 80),
    b"\x04\x00\x05\x00\x05\x00\x00" + encode_address("10.0.0.1", 1080) + b"SSH-2.0",
    b"\x05\x01\x05\x02\x01\x00\x05\x00\x00" + encode_address("gw.example", 9),
    b"\x06\x00\x05\x00\x05\x05\x00" + encode_address("0.0.0.0", 0),
    b"\x00\x00" + build_udp("192.0.2.1", 53, b"query"),
    b"\x00\x00" + build_udp("dns.example", 53, b""),
    b"\x00\x00\x00\x00\x81" + encode_address("::1", 53) + b"fragment",
]

_METHODS = ((Method.NO_AUTH,), (Method.LOGIN,), (Method.LOGIN, Method.NO_AUTH))


def serve(parts: list[bytes], choice: int) -> Outcome:
    """What a server makes of *parts*."""
    outcome = converse(
        ServerHandshake(_METHODS[choice % 3]),
        parts,
        login=not choice & 64,
        reply=Reply(choice % 9),
        held=MAX_PENDING,
    )
    for event in outcome.events:
        assert event.username if isinstance(event, Authenticating) else check_host(event.host)
    return outcome


def use(parts: list[bytes], login: bool) -> tuple[list[Connected], bytes, bytes, str]:
    """What a client makes of *parts*."""
    client = ClientHandshake("h", 1, *(("u", "p") if login else (None, None)))
    rest = iter(parts)
    connected: list[Connected] = []
    try:
        for piece in rest:
            connected += client.feed(piece)
            if connected:
                break
    except Socks5Error as error:
        return connected, client.data_to_send(), b"", error.code
    return connected, client.data_to_send(), client.leftover + b"".join(rest), ""


def one_input(data: bytes) -> None:
    """Give the input to a server, a client and the datagram parser."""
    step = data[0] if data and data[0] else 1
    choice = data[1] if len(data) > 1 else 0
    stream = data[2:1000]  # below every cap, so that the size of the pieces cannot matter
    parts = pieces(stream, step)
    assert serve(parts, choice) == serve([stream], choice)
    assert use(parts, bool(choice & 1)) == use([stream], bool(choice & 1))
    try:
        host, port, payload = parse_udp(data[2:])
    except Socks5Error:
        return
    assert parse_udp(build_udp(host, port, payload)) == (host, port, payload)
