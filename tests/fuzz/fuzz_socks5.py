"""Both ends of SOCKS5 and its datagrams: the same outcome however the bytes are cut.

The first byte of an input chooses the size of the pieces, the second the methods and the answers.
"""

from __future__ import annotations

from underpass.wire.socks5 import (
    MAX_PENDING,
    Authenticating,
    ClientHandshake,
    Connected,
    Event,
    Method,
    Reply,
    Requested,
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


def serve(pieces: list[bytes], choice: int) -> tuple[list[Event], bytes, bytes, str]:
    """What a server makes of *pieces*: events, answer, leftover and how it ended."""
    server = ServerHandshake(_METHODS[choice % 3])
    events: list[Event] = []
    ended = ""
    try:
        for piece in pieces:
            new = server.feed(piece)
            if new and isinstance(new[0], Authenticating):
                assert new[0].username
                events += new
                new = server.accept_login(not choice & 64)
            events += new
            if not server.leftover:
                assert len(server._buffer) <= MAX_PENDING
    except Socks5Error as error:
        assert server.closed
        ended = error.code
    leftover = server.leftover
    if events and isinstance(events[-1], Requested) and not ended:
        assert check_host(events[-1].host)
        server.reply(Reply(choice % 9), "10.0.0.1", 1)
    return events, server.data_to_send(), leftover, ended


def use(pieces: list[bytes], login: bool) -> tuple[list[Connected], bytes, bytes, str]:
    """What a client makes of *pieces*."""
    client = ClientHandshake("h", 1, *(("u", "p") if login else (None, None)))
    rest = iter(pieces)
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
    pieces = [stream[start : start + step] for start in range(0, len(stream), step)]
    assert serve(pieces, choice) == serve([stream], choice)
    assert use(pieces, bool(choice & 1)) == use([stream], bool(choice & 1))
    try:
        host, port, payload = parse_udp(data[2:])
    except Socks5Error:
        return
    assert parse_udp(build_udp(host, port, payload)) == (host, port, payload)
