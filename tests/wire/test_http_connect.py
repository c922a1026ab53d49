"""HTTP CONNECT: proper requests in any pieces, and every way to smuggle something in refused."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.proxy_client import converse, pieces
from underpass.wire.http_connect import MAX_FIELDS, MAX_HEAD, ConnectHandshake, HttpConnectError
from underpass.wire.socks5 import MAX_LEFTOVER, Authenticating, Event, Method, Reply, Requested

OPEN = (Method.NO_AUTH,)
CLOSED = (Method.LOGIN,)
BOTH = (Method.LOGIN, Method.NO_AUTH)
PLAIN = b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"


def basic(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return b"Proxy-Authorization: Basic " + base64.b64encode(raw)


def connect(*fields: bytes, target: bytes = b"example.org:443") -> bytes:
    return b"\r\n".join((b"CONNECT " + target + b" HTTP/1.1", *fields, b"", b""))


def whole(parts: list[bytes], methods: tuple[Method, ...]) -> tuple[list[Event], bytes, bytes, str]:
    """Everything that comes of *parts*: events, bytes for the client, leftover, error code."""
    done = converse(ConnectHandshake(methods), parts)
    return done.events, done.sent, done.leftover, done.ended


def answer(sent: bytes) -> tuple[int, dict[str, str], str]:
    """Status, fields and body of one whole response, and nothing behind it."""
    head, _, body = sent.partition(b"\r\n\r\n")
    line, *lines = head.decode("ascii").split("\r\n")
    fields = dict(field.split(": ", 1) for field in lines)
    assert int(fields["Content-Length"]) == len(body)
    assert fields["Connection"] == "close"
    assert line.startswith("HTTP/1.1 ")
    return int(line.split(" ")[1]), fields, body.decode()


def refused(
    wire: bytes, status: int, code: str, methods: tuple[Method, ...] = OPEN
) -> tuple[dict[str, str], str]:
    """*wire* gets *status*, whatever the pieces; the answer's fields and body."""
    events, sent, leftover, got = whole([wire], methods)
    assert (events, leftover, got) == ([], b"", code)
    for step in (1, 3):
        assert whole(pieces(wire, step), methods) == ([], sent, b"", code)
    told, fields, body = answer(sent)
    assert told == status
    return fields, body


def test_a_tunnel() -> None:
    server = ConnectHandshake()
    assert server.feed(PLAIN[:20]) == []
    assert server.leftover == b""
    assert server.feed(PLAIN[20:] + b"\x16\x03\x01") == [Requested("connect", "example.org", 443)]
    assert server.data_to_send() == b""
    server.reply(Reply.SUCCEEDED, "10.0.0.1", 5)
    assert server.data_to_send() == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert server.data_to_send() == b""
    assert server.leftover == b"\x16\x03\x01"
    assert not server.closed


def test_every_cut_gives_the_same() -> None:
    wire = connect(b"Host: x", basic("alice:secret")) + b"data\r\n\r\n\n"
    expected = (
        [Authenticating("alice", "secret"), Requested("connect", "example.org", 443)],
        b"",
        b"data\r\n\r\n\n",
        "",
    )
    for cut in range(len(wire) + 1):
        assert whole([wire[:cut], wire[cut:]], CLOSED) == expected
    for step in range(1, 9):
        assert whole(pieces(wire, step), CLOSED) == expected


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        (b"192.0.2.1:22", "192.0.2.1", 22),
        (b"[2001:DB8::1]:65535", "2001:db8::1", 65535),
        (b"[::ffff:192.0.2.1]:1", "::ffff:", 1),
        (b"a_b.example-1.org.:1", "a_b.example-1.org.", 1),
        (b"x:00080", "x", 80),
        (b"x" * 255 + b":1", "x" * 255, 1),
    ],
)
def test_targets(target: bytes, host: str, port: int) -> None:
    (event,) = ConnectHandshake().feed(connect(target=target))
    assert isinstance(event, Requested)
    assert event.host.startswith(host)
    assert event.port == port


@pytest.mark.parametrize(
    "target",
    [b"example.org", b"example.org:", b":80", b"/", b"*", b"http://example.org:80/",
     b"example.org:80/path", b"user@example.org:80", b"example.org:0", b"example.org:65536",
     b"example.org:999999", b"example.org:+80", b"::1:80", b"[::1]", b"[::1:80", b"[]:80",
     b"[fe80::1%25eth0]:80", b"[1.2.3.4]:80", b"[:::]:80", b"a%0d%0aX-Evil:1", b"a,b:80",
     b"a;b:80", b"host:80?x", b"host:80#x", b"-host:80", b".host:80", b"x" * 256 + b":80",
     b"a\\b:80", b"$(id):80", b"a:80:81"],
)  # fmt: skip
def test_targets_that_are_none(target: bytes) -> None:
    _, body = refused(connect(target=target), 400, "bad_address")
    assert target.decode() not in body or len(target) < 3


@pytest.mark.parametrize(
    "target",
    [b"host:80\r\nX-Evil: 1", b"host:80\tx", b"ho st:80", b" host:80", b"host:80 ", b"",
     b"host\0:80", b"host\x7f:80", b"h\xc3\xb6st:80", b"host:80\r", b"host\r:80", b"host\n:80",
     b"host:80\nX-Evil: 1"],
)  # fmt: skip
def test_nothing_is_injected_through_a_target(target: bytes) -> None:
    refused(connect(target=target), 400, "bad_request")


@pytest.mark.parametrize(
    "wire",
    [
        b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST http://example.org/ HTTP/1.1\r\nHost: example.org\r\nContent-Length: 0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"connect example.org:443 HTTP/1.1\r\n\r\n",
        b"CONNECTS example.org:443 HTTP/1.1\r\n\r\n",
    ],
)
def test_other_methods_are_told_what_this_is(wire: bytes) -> None:
    for methods in (OPEN, CLOSED):
        fields, body = refused(wire, 405, "method_not_allowed", methods)
        assert fields["Allow"] == "CONNECT"
        assert "tunnel" in body
        assert "SOCKS5" in body
        assert "example.org" not in body


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\nCONNECT a:1 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"\x04\x01",
        b" CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"CONNECT a:1\r\n\r\n",
        b"CONNECT a:1 HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:1 HTTP/1.10\r\n\r\n",
        b"CONNECT a:1 HTTP/1.\r\n\r\n",
        b"CONNECT a:1 http/1.1\r\n\r\n",
        b"CONNECT  a:1 HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1 \r\n\r\n",
        b"CONNECT\ta:1 HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\n\n",
        b"CONNECT a:1 HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\rA: b\r\n\r\n",
        b"\n",
    ],
)
def test_request_lines_that_are_none(wire: bytes) -> None:
    refused(wire, 400, "bad_request")


@pytest.mark.parametrize(
    "field",
    [b" folded", b"\tfolded", b"Name : x", b"Name", b": x", b"Na me: x", b"N\xc3\xa4me: x",
     b"Name: a\0b", b"Name: a\rb", b"Name: a\x7fb", b"Name: a\x0bb", b"Name\r: x"],
)  # fmt: skip
def test_header_fields_that_are_none(field: bytes) -> None:
    refused(connect(b"Host: x", field), 400, "bad_request")


@pytest.mark.parametrize(
    "fields",
    [
        (b"Host: a", b"Host: a"),
        (b"Host: a", b"hOST: b"),
        (basic("a:b"), basic("a:b")),
        (basic("a:b"), b"PROXY-authorization: Basic eDp5"),
        (b"Content-Length: 0", b"Content-Length: 0"),
        (b"Content-Length: 5",),
        (b"Content-Length: -1",),
        (b"Content-Length:",),
        (b"Content-Length: 0, 0",),
        (b"Transfer-Encoding: chunked",),
        (b"Transfer-Encoding: identity", b"Content-Length: 0"),
    ],
)
def test_what_has_two_readings_is_refused(fields: tuple[bytes, ...]) -> None:
    for methods in (OPEN, CLOSED):
        refused(connect(*fields), 400, "bad_request", methods)


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (b"Host:",),
        (b"Content-Length: 0",),
        (b"content-length:\t0 \t",),
        (b"User-Agent: \xe4 \t x", b"User-Agent: again"),
        (b"Proxy-Connection: keep-alive", b"Host: somebody.else:1"),
        (basic("anybody:here"),),
        (b"X: ",) * MAX_FIELDS,
    ],
)
def test_requests_that_are_taken(fields: tuple[bytes, ...]) -> None:
    wire = connect(*fields)
    assert whole([wire], OPEN) == ([Requested("connect", "example.org", 443)], b"", b"", "")
    assert whole(pieces(wire, 7), OPEN) == whole([wire], OPEN)


def test_http_1_0_is_enough() -> None:
    assert ConnectHandshake().feed(b"CONNECT h:22 HTTP/1.0\r\n\r\n") == [
        Requested("connect", "h", 22)
    ]


def test_too_many_fields() -> None:
    refused(connect(*(b"X:",) * (MAX_FIELDS + 1)), 400, "bad_request")


def test_the_head_is_bounded() -> None:
    filler = MAX_HEAD - len(connect(b"X: "))
    assert len(connect(b"X: " + b"y" * filler)) == MAX_HEAD
    assert whole([connect(b"X: " + b"y" * filler) + b"z"], OPEN)[2:] == (b"z", "")
    refused(connect(b"X: " + b"y" * (filler + 1)), 400, "head_too_large")
    server = ConnectHandshake()
    for _ in range(MAX_HEAD - 1):
        server.feed(b"A")
    with pytest.raises(HttpConnectError) as caught:
        server.feed(b"A")
    assert caught.value.code == "head_too_large"
    assert server._buffer == b""


@pytest.mark.parametrize(
    "wire",
    [
        b"CONNECT a:1 HTTP/1.1\r\nX:" + b" " * 16_000 + b"\x01\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nX:" + b"\t " * 8_000 + b"\0\r\n\r\n",
        b"CONNECT " + b"a" * 16_000 + b"\r\n\r\n",
        b"A" * 16_000 + b" \r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic " + b" " * 16_000 + b"!\r\n\r\n",
    ],
)
def test_refusing_is_quick(wire: bytes) -> None:
    """A pattern that can match in many ways needs minutes for these; nothing is timed closely."""
    started = time.process_time()
    assert whole([wire], CLOSED)[3]
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "username", "password"),
    [
        ("alice:secret", "alice", "secret"),
        ("alice:with:colons", "alice", "with:colons"),
        ("alice:", "alice", ""),
        ("jürgen:пароль", "jürgen", "пароль"),
        ("a:" + "p" * 5000, "a", "p" * 5000),
    ],
)
def test_logins(text: str, username: str, password: str) -> None:
    for methods in (CLOSED, BOTH):
        server = ConnectHandshake(methods)
        assert server.feed(connect(basic(text))) == [Authenticating(username, password)]
        assert server.data_to_send() == b""
        assert server.feed(b"early") == []
        assert server.leftover == b""
        assert server.accept_login(True) == [Requested("connect", "example.org", 443)]
        assert server.leftover == b"early"


def test_the_scheme_is_in_any_case() -> None:
    wire = connect(b"proxy-AUTHORIZATION:bAsIc   YTpi")
    assert ConnectHandshake(CLOSED).feed(wire) == [Authenticating("a", "b")]


@pytest.mark.parametrize(
    "field",
    [
        b"Proxy-Authorization:",
        b"Proxy-Authorization: Basic",
        b"Proxy-Authorization: Bearer YTpi",
        b"Proxy-Authorization: BasicYTpi",
        b"Proxy-Authorization: Basic YTpi YTpi",
        b"Proxy-Authorization: Basic YTp",  # not padded
        b"Proxy-Authorization: Basic YT=pi",
        b"Proxy-Authorization: Basic YTpi====",
        b"Proxy-Authorization: Basic YT-_",
        b"Proxy-Authorization: Basic a",
        basic("nocolon"),
        basic(":password"),
        basic(""),
        basic(b"\xff\xfe:x"),
        basic("a\r\nb:x"),
        basic("a:x\0y"),
        basic("a\x7f:x"),
    ],
)
def test_logins_that_are_none(field: bytes) -> None:
    for methods in (CLOSED, BOTH):
        fields, _ = refused(connect(field), 407, "bad_login", methods)
        assert fields["Proxy-Authenticate"] == 'Basic realm="underpass", charset="UTF-8"'
    assert whole([connect(field)], OPEN)[3] == ""


def test_a_login_is_asked_for() -> None:
    fields, body = refused(PLAIN, 407, "login_required", CLOSED)
    assert fields["Proxy-Authenticate"].startswith("Basic ")
    assert "login" in body


def test_only_the_proxys_own_field_is_a_login() -> None:
    """Routing by one identity and checking another is how frp was got through."""
    field = basic("alice:secret").removeprefix(b"Proxy-")
    refused(connect(field), 407, "login_required", CLOSED)
    assert whole([connect(field)], BOTH)[0] == [Requested("connect", "example.org", 443)]


def test_without_a_login_who_may_come_without_gets_in() -> None:
    assert whole([PLAIN], BOTH)[0] == [Requested("connect", "example.org", 443)]


def test_a_login_that_is_refused_ends_it() -> None:
    server = ConnectHandshake(CLOSED)
    server.feed(connect(basic("alice:guess")) + connect(basic("alice:secret")))
    assert server.accept_login(False) == []
    status, fields, body = answer(server.data_to_send())
    assert status == 407
    assert "Proxy-Authenticate" in fields
    assert "alice" not in body
    assert "guess" not in body
    assert server.closed
    assert server.leftover == b""
    assert server.feed(connect(basic("alice:secret"))) == []
    assert server.data_to_send() == b""


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Reply.GENERAL_FAILURE, 502),
        (Reply.NOT_ALLOWED, 403),
        (Reply.NETWORK_UNREACHABLE, 502),
        (Reply.HOST_UNREACHABLE, 502),
        (Reply.REFUSED, 502),
        (Reply.TTL_EXPIRED, 504),
        (Reply.COMMAND_NOT_SUPPORTED, 502),
        (Reply.ADDRESS_TYPE_NOT_SUPPORTED, 502),
    ],
)
def test_every_refusal_closes(code: Reply, status: int) -> None:
    for message in ("", "Because.\r\nX-Evil: 1\r\n\r\nßo ist es.\udcff"):
        server = ConnectHandshake()
        server.feed(PLAIN)
        server.reply(code, message=message)
        told, fields, body = answer(server.data_to_send())
        assert told == status
        assert "X-Evil" not in fields
        assert body.strip()
        assert body.startswith(message[:8])
        assert server.closed


def test_answers_out_of_turn_are_bugs() -> None:
    server = ConnectHandshake(CLOSED)
    with pytest.raises(RuntimeError, match="no login"):
        server.accept_login(True)
    with pytest.raises(RuntimeError, match="no request"):
        server.reply(Reply.SUCCEEDED)
    server.feed(connect(basic("a:b")))
    with pytest.raises(RuntimeError, match="no request"):
        server.reply(Reply.SUCCEEDED)
    server.accept_login(True)
    server.reply(Reply.SUCCEEDED)
    for call in (lambda: server.reply(Reply.SUCCEEDED), lambda: server.accept_login(True)):
        with pytest.raises(RuntimeError):
            call()


@pytest.mark.parametrize("wire", [PLAIN, connect(basic("a:b"))])
def test_memory_is_bounded_before_the_answer(wire: bytes) -> None:
    server = ConnectHandshake(BOTH)
    server.feed(wire)
    server.feed(bytes(MAX_LEFTOVER))
    with pytest.raises(HttpConnectError) as caught:
        server.feed(b"x")
    assert caught.value.code == "too_much_data"
    assert server.closed
    assert server._buffer == b""


@given(
    st.lists(
        st.sampled_from(
            [b"CONNECT ", b"a:1", b" HTTP/1.1", b"\r\n", b"\r", b"\n", b"Host: x", b"\r\n\r\n",
             b" ", b"\0", basic("a:b"), PLAIN]
        )
        | st.binary(max_size=9),
        max_size=12,
    ).map(b"".join),
    st.integers(1, 9),
    st.sampled_from([OPEN, CLOSED, BOTH]),
)  # fmt: skip
def test_nonsense_gives_the_same_in_any_pieces(
    wire: bytes, step: int, methods: tuple[Method, ...]
) -> None:
    assert whole(pieces(wire, step), methods) == whole([wire], methods)
