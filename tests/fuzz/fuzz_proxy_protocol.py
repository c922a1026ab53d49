"""The PROXY protocol: the same header or refusal however it is cut, and what is read can be said.

The first byte of an input chooses the size of the pieces.
"""

from __future__ import annotations

from underpass.wire.proxy_protocol import (
    MAX_V1,
    MAX_V2,
    Decoder,
    Header,
    ProxyProtocolError,
    encode_v1,
    encode_v2,
)

_FOUR = (("192.0.2.1", 56324), ("198.51.100.7", 443))
_SIX = (("2001:db8::1", 1), ("2001:db8::2", 65535))

SEEDS: list[bytes] = [
    b"\x01" + encode_v1(*_FOUR) + b"GET / HTTP/1.1\r\n",
    b"\x03" + encode_v1(*_SIX),
    b"\x05" + encode_v1(None, None) + b"rest",
    b"\x02PROXY UNKNOWN whatever it is\r\n",
    b"\x04" + encode_v2(*_FOUR) + b"rest",
    b"\x06" + encode_v2(*_SIX, "udp"),
    b"\x07" + encode_v2(None, None) + b"rest",
    b"\x09" + encode_v2(*_FOUR)[:14] + b"\x00\x13" + encode_v2(*_FOUR)[16:] + b"\x04\x00\x04skip",
    b"\x0b" + encode_v2(None, None)[:12] + b"\x21\x31\x00\xd8" + b"/run/a".ljust(108, b"\0") * 2,
]


def decode(data: bytes, step: int) -> tuple[Header | None, bytes, str]:
    """What *data* in pieces of *step* bytes gives: header, leftover, error code."""
    decoder = Decoder()
    for start in range(0, len(data), step):
        try:
            header = decoder.feed(data[start : start + step])
        except ProxyProtocolError as error:
            assert decoder.leftover == b""
            return None, b"", error.code
        if header is not None:
            return header, decoder.leftover + data[start + step :], ""
        assert len(decoder._buffer) < MAX_V2
    return None, b"", ""


def one_input(data: bytes) -> None:
    """Cut the input in two ways and compare; say again what was read."""
    step = data[0] if data and data[0] else 1
    stream = data[1:]
    header, rest, error = decode(stream, step)
    assert (header, rest, error) == decode(stream, len(stream) or 1)
    if header is None:
        assert error or len(stream) < MAX_V2
        return
    assert stream.endswith(rest)
    assert len(stream) - len(rest) <= (MAX_V1 if header.version == 1 else MAX_V2)
    if header.source is None or header.destination is None:
        assert header.source is header.destination is header.transport is None
        return
    for wire in (
        encode_v1(header.source, header.destination),
        encode_v2(header.source, header.destination, header.transport or "tcp"),
    ):
        again = decode(wire, step)[0]
        assert again is not None
        assert again.source is not None
        # IPv4 in IPv6 is said as IPv4 where both are; everything else comes back as it was.
        if not header.source[0].startswith("::ffff:"):
            assert (again.source, again.destination) == (header.source, header.destination)
