"""Retry: tokens good for one peer, one connection and a few seconds; packets as in RFC 9001."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection

from underpass.links.quic.retry import LIFETIME, RetryTokens, initial_token, retry_packet

ORIGINAL = bytes.fromhex("8394c8f03e515708")
NEXT = b"\xf0gfe\xb8\xc1\x88\x77"


class Now:
    def __init__(self) -> None:
        self.now = 5000.7

    def __call__(self) -> float:
        return self.now


def tokens(now: Now | None = None, key: bytes = b"k" * 32) -> RetryTokens:
    return RetryTokens(now or Now(), key=key)


def test_a_token_is_good_for_whom_it_was_made() -> None:
    made = tokens().make("192.0.2.1", 4433, ORIGINAL, NEXT)
    assert tokens().original(made, "192.0.2.1", 4433, NEXT) == ORIGINAL
    assert tokens().original(made, "192.0.2.2", 4433, NEXT) is None
    assert tokens().original(made, "192.0.2.1", 4434, NEXT) is None
    assert tokens().original(made, "192.0.2.1", 4433, NEXT[:-1] + b"x") is None
    assert tokens(key=b"l" * 32).original(made, "192.0.2.1", 4433, NEXT) is None


def test_it_is_good_for_a_few_seconds() -> None:
    now = Now()
    keeper = tokens(now)
    made = keeper.make("192.0.2.1", 4433, ORIGINAL, NEXT)
    now.now += LIFETIME - 1
    assert keeper.original(made, "192.0.2.1", 4433, NEXT) == ORIGINAL
    now.now += 2
    assert keeper.original(made, "192.0.2.1", 4433, NEXT) is None
    now.now -= 1000  # from a future that never was
    assert keeper.original(made, "192.0.2.1", 4433, NEXT) is None


def test_keys_are_made_when_none_is_given() -> None:
    made = RetryTokens(Now()).make("192.0.2.1", 4433, ORIGINAL, NEXT)
    assert RetryTokens(Now()).original(made, "192.0.2.1", 4433, NEXT) is None


@given(st.binary(max_size=80))
def test_made_up_tokens_are_nothing(token: bytes) -> None:
    assert tokens().original(token, "192.0.2.1", 4433, NEXT) is None


@given(st.integers(0, 45), st.integers(1, 255))
def test_no_byte_of_a_token_may_change(at: int, change: int) -> None:
    made = bytearray(tokens().make("192.0.2.1", 4433, ORIGINAL, NEXT))
    made[at % len(made)] ^= change
    assert tokens().original(bytes(made), "192.0.2.1", 4433, NEXT) is None


def test_the_packet_of_the_rfc() -> None:
    """RFC 9001, A.4."""
    assert retry_packet(ORIGINAL, b"", bytes.fromhex("f067a5502a4262b5"), b"token") == (
        bytes.fromhex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba")
    )


def client() -> QuicConnection:
    made = QuicConnection(configuration=QuicConfiguration(server_name="h", alpn_protocols=["x"]))
    made.connect(("127.0.0.1", 1), now=0.0)
    return made


def test_the_library_repeats_its_question_with_the_token() -> None:
    quic = client()
    first = quic.datagrams_to_send(now=0.0)[0][0]
    said = initial_token(first)
    assert said is not None
    peer_cid, token = said
    assert (peer_cid, token) == (quic.host_cid, b"")
    packet = retry_packet(quic.original_destination_connection_id, peer_cid, NEXT, b"the token")
    quic.receive_datagram(packet, ("127.0.0.1", 1), now=0.1)
    again = quic.datagrams_to_send(now=0.1)[0][0]
    assert again[6:14] == NEXT
    assert initial_token(again) == (quic.host_cid, b"the token")
    assert len(packet) < len(first) // 3


def test_cut_short_it_says_nothing() -> None:
    first = client().datagrams_to_send(now=0.0)[0][0]
    for size in range(26):
        assert initial_token(first[:size]) in (None, initial_token(first))
    for size in range(23):
        assert initial_token(first[:size]) is None
    assert initial_token(b"\x40" + first[1:]) is None
    assert initial_token(first[:1] + b"\0\0\0\2" + first[5:]) is None


@given(st.binary(max_size=60))
def test_anything_may_come(data: bytes) -> None:
    said = initial_token(b"\xc0\0\0\0\1" + data)
    assert said is None or len(said[0]) <= 20
    initial_token(data)
