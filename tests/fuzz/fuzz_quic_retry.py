"""First packets of QUIC and Retry tokens: nothing comes out but what was put in, or None."""

from __future__ import annotations

from underpass.links.quic.paths import question_in
from underpass.links.quic.retry import RetryTokens, initial_token, retry_packet

_tokens = RetryTokens(lambda: 1000.0, key=b"k" * 32)
_good = _tokens.make("192.0.2.1", 7, b"original", b"next-cid")

SEEDS: list[bytes] = [
    b"\xc0\0\0\0\1\x08dcidcid1\x08scidscid\x00" + bytes(30),
    b"\xc3\0\0\0\1\x08next-cid\x08scidscid" + bytes((len(_good),)) + _good + bytes(30),
    b"\xc3\0\0\0\1\x08next-cid\x00\x40\x05token",
    b"\xc3\0\0\0\1\x14" + bytes(21) + b"\xff\xff\xff\xff\xff\xff\xff\xff",
    _good,
]


def one_input(data: bytes) -> None:
    """Read *data* as a first packet, and as a token."""
    question_in(data)
    said = initial_token(data)
    if said is not None:
        peer_cid, token = said
        assert len(peer_cid) <= 20
        assert len(token) <= len(data)
        found = _tokens.original(token, "192.0.2.1", 7, b"next-cid")
        assert found is None or token == _good
        assert len(retry_packet(b"original", peer_cid, b"next-cid", _good)) < 120
    found = _tokens.original(data, "192.0.2.1", 7, b"next-cid")
    assert (found == b"original") if data == _good else found is None
