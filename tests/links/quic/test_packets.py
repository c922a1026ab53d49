"""Whose packet it is, from the header all versions share (RFC 8999)."""

from __future__ import annotations

import pytest
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection

from underpass.links.quic.packets import destination, is_initial


def first_datagram() -> tuple[bytes, bytes]:
    quic = QuicConnection(configuration=QuicConfiguration(server_name="h", alpn_protocols=["x"]))
    quic.connect(("127.0.0.1", 1), now=0.0)
    (data, _), *_ = quic.datagrams_to_send(now=0.0)
    return data, quic.original_destination_connection_id


def test_a_real_first_datagram() -> None:
    data, cid = first_datagram()
    assert destination(data) == cid
    assert is_initial(data)
    assert not is_initial(data[:1199])
    assert not is_initial(data[:1] + b"\0\0\0\2" + data[5:])  # another version
    assert not is_initial(bytes([data[0] | 0x20]) + data[1:])  # a handshake packet


@pytest.mark.parametrize(
    ("data", "cid"),
    [
        (b"", None),
        (b"\x40short", None),
        (b"\x4012345678more", b"12345678"),
        (b"\xc0\0\0\0\1\x04abcd\x00", b"abcd"),
        (b"\xc0\0\0\0\1\x15" + bytes(40), None),
        (b"\xc0\0\0\0\1\x08abcdef", None),
        (b"\xc0\0\0\0\1\x00\x00..", b""),
    ],
)
def test_destinations(data: bytes, cid: bytes | None) -> None:
    assert destination(data) == cid
    assert not is_initial(data)
