"""Datagrams on a stream: the same payloads or the same refusal, however the bytes are cut.

The first byte of an input chooses the size of the pieces, the second the limit.
"""

from __future__ import annotations

from underpass.wire.datagrams import (
    MAX_ADDRESSED,
    MAX_DATAGRAM,
    DatagramDecoder,
    DatagramError,
    encode,
)

SEEDS: list[bytes] = [
    b"\x01\x00" + encode(b"hello") + encode(b"") + encode(b"x" * 200),
    b"\x05\x01" + encode(bytes(3000)) + b"\x00",
    b"\x02\x00" + encode(b"a") * 50,
    b"\x03\x00\xff\xe4" + bytes(40),
    b"\x09\x01\xff\xff" + bytes(2000),
]


def cut(data: bytes, step: int, limit: int) -> list[bytes] | None:
    """The payloads of *data* fed in pieces of *step* bytes; None when it was refused."""
    decoder = DatagramDecoder(limit)
    found: list[bytes] = []
    try:
        for start in range(0, len(data), step):
            found += decoder.feed(data[start : start + step])
    except DatagramError:
        return None
    whole = b"".join(encode(payload, limit=limit) for payload in found)
    assert data.startswith(whole)
    assert decoder.mid_datagram == (len(whole) < len(data))
    return found


def one_input(data: bytes) -> None:
    """Cut the input in two ways and compare."""
    step = data[0] if data and data[0] else 1
    limit = (MAX_DATAGRAM, MAX_ADDRESSED, 100)[data[1] % 3] if len(data) > 1 else MAX_DATAGRAM
    stream = data[2:]
    assert cut(stream, step, limit) == cut(stream, len(stream) or 1, limit)
