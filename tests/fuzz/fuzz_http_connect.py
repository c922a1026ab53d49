"""HTTP CONNECT: the same outcome however the head is cut, and answers nobody can write into.

The first byte of an input chooses the size of the pieces, the second the methods and the answers.
"""

from __future__ import annotations

from tests.wire.proxy_client import Outcome, converse, pieces
from underpass.wire.http_connect import MAX_HEAD, ConnectHandshake
from underpass.wire.socks5 import Method, Reply, Requested, check_host

SEEDS: list[bytes] = [
    b"\x01\x00CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\ndata",
    b"\x05\x01CONNECT [2001:db8::1]:22 HTTP/1.0\r\n"
    b"Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n",
    b"\x03\x44CONNECT a:1 HTTP/1.1\r\nproxy-authorization:basic YTpi\r\nHost:x\r\n\r\n",
    b"\x07\x02GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
    b"\x09\x03CONNECT a:1 HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"\x02\x05CONNECT a:1 HTTP/1.1\r\n\r\n" + bytes(range(256)),
    b"\xff\x00CONNECT a:1 HTTP/1.1\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 90 + b"\r\n",
]

_METHODS = ((Method.NO_AUTH,), (Method.LOGIN,), (Method.LOGIN, Method.NO_AUTH))
_STATUSES = frozenset({b"200", b"400", b"403", b"405", b"407", b"502", b"504"})


def serve(parts: list[bytes], choice: int) -> Outcome:
    """What a server makes of *parts*."""
    outcome = converse(
        ConnectHandshake(_METHODS[choice % 3]),
        parts,
        login=not choice & 64,
        reply=Reply(choice % 9),
        held=MAX_HEAD,
    )
    for event in outcome.events:
        if isinstance(event, Requested):
            assert check_host(event.host) == event.host
            assert event.port
    return outcome


def one_input(data: bytes) -> None:
    """Cut the input in two ways and compare; the answer is one response."""
    step = data[0] if data and data[0] else 1
    choice = data[1] if len(data) > 1 else 0
    stream = data[2:]
    outcome = serve(pieces(stream, step), choice)
    assert outcome == serve([stream], choice)
    sent = outcome.sent
    if not sent:
        return
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head[9:12] in _STATUSES
    if head[9:12] != b"200":
        assert b"Content-Length: %d\r\n" % len(body) in head
        assert head.endswith(b"\r\nConnection: close")
