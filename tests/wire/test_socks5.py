"""The SOCKS5 server: RFC 1928 and 1929 as scripts of what a client sends and must get."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.proxy_client import converse, pieces
from underpass.core.errors import (
    Forbidden,
    InvalidRequest,
    TooManyRequests,
    Unavailable,
    UnderpassError,
)
from underpass.wire.socks5 import (
    MAX_LEFTOVER,
    MAX_PENDING,
    Authenticating,
    Event,
    Method,
    Reply,
    Requested,
    ServerHandshake,
    Socks5Error,
    encode_address,
    reply_for,
)

NOBODY = b"\x01\0\0\0\0\0\0"
"""0.0.0.0:0, in every refusal."""
OPEN = (Method.NO_AUTH,)
CLOSED = (Method.LOGIN,)
BOTH = (Method.LOGIN, Method.NO_AUTH)
GREETING = b"\x05\x01\x00"
LOGIN_GREETING = b"\x05\x02\x00\x02"
LOGIN = b"\x01\x05alice\x06secret"
CONNECT = b"\x05\x01\x00\x03\x0bexample.org\x01\xbb"


def whole(parts: list[bytes], methods: tuple[Method, ...]) -> tuple[list[Event], bytes, bytes, str]:
    """Everything that comes of *parts*: events, bytes for the client, leftover, error code."""
    done = converse(ServerHandshake(methods), parts)
    return done.events, done.sent, done.leftover, done.ended


def refused(wire: bytes, methods: tuple[Method, ...] = OPEN) -> tuple[bytes, str]:
    """What the client gets for *wire*, and the code of the error, however the bytes are cut."""
    events, sent, leftover, code = whole([wire], methods)
    assert not [event for event in events if isinstance(event, Requested)]
    assert leftover == b""
    assert whole(pieces(wire, 1), methods) == (events, sent, b"", code)
    return sent, code


def two_cuts(wire: bytes) -> Iterator[list[bytes]]:
    for first in range(len(wire) + 1):
        for second in range(first, len(wire) + 1):
            yield [wire[:first], wire[first:second], wire[second:]]


def test_a_connection_without_a_login() -> None:
    server = ServerHandshake()
    assert server.feed(GREETING) == []
    assert server.data_to_send() == b"\x05\x00"
    assert server.data_to_send() == b""
    assert server.feed(b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x16") == [
        Requested("connect", "192.0.2.7", 22)
    ]
    assert server.data_to_send() == b""
    server.reply(Reply.SUCCEEDED, "10.0.0.1", 40000)
    assert server.data_to_send() == b"\x05\x00\x00\x01\x0a\x00\x00\x01\x9c\x40"
    assert not server.closed


def test_a_connection_with_a_login() -> None:
    server = ServerHandshake(CLOSED)
    server.feed(LOGIN_GREETING)
    assert server.data_to_send() == b"\x05\x02"
    assert server.feed(LOGIN) == [Authenticating("alice", "secret")]
    assert server.data_to_send() == b""
    assert server.accept_login(True) == []
    assert server.data_to_send() == b"\x01\x00"
    assert server.feed(CONNECT) == [Requested("connect", "example.org", 443)]


def test_a_login_that_is_refused_ends_it() -> None:
    server = ServerHandshake(CLOSED)
    server.feed(LOGIN_GREETING)
    server.feed(LOGIN + CONNECT)
    server.data_to_send()
    assert server.accept_login(False) == []
    assert server.data_to_send() == b"\x01\x01"
    assert server.closed
    assert server.feed(CONNECT) == []
    assert server.data_to_send() == b""
    assert server.leftover == b""


def test_a_request_sent_ahead_waits_for_the_login() -> None:
    server = ServerHandshake(CLOSED)
    assert server.feed(LOGIN_GREETING + LOGIN + CONNECT[:5]) == [Authenticating("alice", "secret")]
    assert server.feed(CONNECT[5:] + b"early") == []
    assert server.accept_login(True) == [Requested("connect", "example.org", 443)]
    assert server.leftover == b"early"


@pytest.mark.parametrize(
    ("methods", "offered", "answer"),
    [
        (OPEN, b"\x00", 0),
        (OPEN, b"\x02\x00", 0),
        (CLOSED, b"\x00\x02", 2),
        (BOTH, b"\x00", 0),
        (BOTH, b"\x00\x02", 2),
        ((Method.NO_AUTH, Method.LOGIN), b"\x02\x00", 0),
        (CLOSED, bytes(range(255)), 2),
    ],
)
def test_the_preferred_method_is_chosen(
    methods: tuple[Method, ...], offered: bytes, answer: int
) -> None:
    server = ServerHandshake(methods)
    server.feed(b"\x05" + bytes((len(offered),)) + offered)
    assert server.data_to_send() == bytes((5, answer))


@pytest.mark.parametrize(
    ("methods", "greeting"),
    [
        (OPEN, b"\x05\x00"),  # no methods at all
        (OPEN, b"\x05\x01\x02"),
        (CLOSED, b"\x05\x01\x00"),
        (OPEN, b"\x05\x02\x01\x80"),
        (CLOSED, b"\x05\x03\x00\x01\xff"),
        ((), b"\x05\x01\x00"),
    ],
)
def test_no_acceptable_method(methods: tuple[Method, ...], greeting: bytes) -> None:
    assert refused(greeting, methods) == (b"\x05\xff", "no_acceptable_method")


@pytest.mark.parametrize("version", [0, 4, 6, ord("G"), 255])
def test_other_versions_are_refused_at_their_first_byte(version: int) -> None:
    assert refused(bytes((version,)) + b"\x01\x00") == (b"", "bad_version")
    bad_login = LOGIN_GREETING + bytes((version,))
    assert refused(bad_login, CLOSED) == (b"\x05\x02\x01\x01", "bad_version")
    bad_request = GREETING + bytes((version,))
    assert refused(bad_request) == (b"\x05\x00" + b"\x05\x01\x00" + NOBODY, "bad_version")


def test_a_socks_version_is_no_login_version() -> None:
    assert refused(LOGIN_GREETING + b"\x05" + LOGIN[1:], CLOSED)[1] == "bad_version"


@pytest.mark.parametrize(
    "login",
    [
        b"\x01\x00\x06secret",
        b"\x01\x05alice\x00",
        b"\x01\x00\x00",
        b"\x01\x01\xff\x01x",
        b"\x01\x01x\x02\xc3\x28",
    ],
)
def test_logins_that_are_none(login: bytes) -> None:
    assert refused(LOGIN_GREETING + login, CLOSED) == (b"\x05\x02\x01\x01", "bad_login")


@pytest.mark.parametrize(
    ("username", "password"),
    [("u", "p"), ("u" * 255, "p" * 255), ("jürgen", "пароль"), (":", "\0")],
)
def test_logins_of_any_length(username: str, password: str) -> None:
    name, secret = username.encode(), password.encode()
    wire = b"\x01" + bytes((len(name),)) + name + bytes((len(secret),)) + secret
    server = ServerHandshake(CLOSED)
    events = server.feed(LOGIN_GREETING + wire)
    assert events == [Authenticating(username, password)]


def test_the_password_is_in_no_repr() -> None:
    assert "secret" not in repr(Authenticating("alice", "secret"))


@pytest.mark.parametrize(
    ("request_", "event"),
    [
        (b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", Requested("connect", "127.0.0.1", 80)),
        (b"\x05\x01\x00\x04" + bytes(15) + b"\x01\xff\xff", Requested("connect", "::1", 65535)),
        (b"\x05\x01\x00\x03\x01h\x00\x01", Requested("connect", "h", 1)),
        (
            b"\x05\x01\x00\x03\xff" + b"n" * 255 + b"\x00\x01",
            Requested("connect", "n" * 255, 1),
        ),
        (b"\x05\x03\x00\x01\0\0\0\0\0\0", Requested("udp_associate", "0.0.0.0", 0)),
        (b"\x05\x03\x00\x04" + bytes(18), Requested("udp_associate", "::", 0)),
        (b"\x05\x03\x00\x03\x01c\x10\x00", Requested("udp_associate", "c", 4096)),
    ],
)
def test_requests(request_: bytes, event: Requested) -> None:
    wire = GREETING + request_ + b"leftover"
    expected = ([event], b"\x05\x00", b"leftover", "")
    for cut in range(len(wire) + 1):
        assert whole([wire[:cut], wire[cut:]], OPEN) == expected
    assert whole(pieces(wire, 1), OPEN) == expected


@pytest.mark.parametrize(
    ("request_", "reply", "code"),
    [
        (b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", 7, "command_not_supported"),  # BIND
        (b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50", 7, "command_not_supported"),
        (b"\x05\xf0\x00\x03\x01h\x00\x50", 7, "command_not_supported"),  # Tor's RESOLVE
        (b"\x05\x01\x00\x00", 8, "address_type_not_supported"),
        (b"\x05\x01\x00\x02", 8, "address_type_not_supported"),
        (b"\x05\x02\x00\x05", 8, "address_type_not_supported"),
        (b"\x05\x01\x00\x03\x00\x00\x50", 1, "bad_address"),  # a name of no length
        (b"\x05\x01\x00\x03\x03a\r\n\x00\x50", 1, "bad_address"),
        (b"\x05\x01\x00\x03\x02\xc3\xbc\x00\x50", 1, "bad_address"),
        (b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00", 1, "bad_address"),  # port 0
        (b"\x05\x01\x01\x01\x7f\x00\x00\x01\x00\x50", 1, "bad_request"),  # reserved byte
    ],
)
def test_requests_that_are_refused(request_: bytes, reply: int, code: str) -> None:
    answer = b"\x05\x00" + bytes((5, reply, 0)) + NOBODY
    assert refused(GREETING + request_) == (answer, code)


def test_every_pair_of_cuts_gives_the_same() -> None:
    wire = LOGIN_GREETING + LOGIN + b"\x05\x01\x00\x03\x03abc\x00\x50" + b"data"
    expected = whole([wire], CLOSED)
    assert expected == (
        [Authenticating("alice", "secret"), Requested("connect", "abc", 80)],
        b"\x05\x02\x01\x00",
        b"data",
        "",
    )
    for parts in two_cuts(wire):
        assert whole(parts, CLOSED) == expected


@given(st.binary(max_size=60), st.integers(1, 9), st.sampled_from([OPEN, CLOSED, BOTH]))
def test_nonsense_gives_the_same_in_any_pieces(
    noise: bytes, step: int, methods: tuple[Method, ...]
) -> None:
    for wire in (noise, GREETING + noise, LOGIN_GREETING + b"\x01" + noise, GREETING + CONNECT[:3]):
        assert whole(pieces(wire, step), methods) == whole([wire], methods)


@pytest.mark.parametrize("code", [reply for reply in Reply if reply is not Reply.SUCCEEDED])
def test_every_refusal_closes(code: Reply) -> None:
    server = ServerHandshake()
    server.feed(GREETING + CONNECT)
    server.data_to_send()
    server.reply(code, "10.0.0.1", 5, message="ignored")
    assert server.data_to_send() == bytes((5, code, 0)) + NOBODY
    assert server.closed


@pytest.mark.parametrize(
    ("host", "port"), [("2001:db8::5", 1080), ("0.0.0.0", 0), ("gw.example", 9)]
)
def test_the_bound_address_may_be_of_any_kind(host: str, port: int) -> None:
    server = ServerHandshake()
    server.feed(GREETING + CONNECT)
    server.data_to_send()
    server.reply(Reply.SUCCEEDED, host, port)
    assert server.data_to_send() == b"\x05\x00\x00" + encode_address(host, port)


def test_a_bound_address_that_is_none_can_be_corrected() -> None:
    server = ServerHandshake()
    server.feed(GREETING + CONNECT)
    server.data_to_send()
    with pytest.raises(Socks5Error):
        server.reply(Reply.SUCCEEDED, "no host", 1)
    assert server.data_to_send() == b""
    server.reply(Reply.SUCCEEDED)
    assert server.data_to_send() == b"\x05\x00\x00" + NOBODY


def test_answers_out_of_turn_are_bugs() -> None:
    server = ServerHandshake(CLOSED)
    with pytest.raises(RuntimeError, match="no login"):
        server.accept_login(True)
    with pytest.raises(RuntimeError, match="no request"):
        server.reply(Reply.SUCCEEDED)
    server.feed(LOGIN_GREETING + LOGIN + CONNECT)
    with pytest.raises(RuntimeError, match="no request"):
        server.reply(Reply.SUCCEEDED)
    server.accept_login(True)
    server.reply(Reply.SUCCEEDED)
    for call in (lambda: server.reply(Reply.SUCCEEDED), lambda: server.accept_login(True)):
        with pytest.raises(RuntimeError):
            call()


def test_bytes_behind_the_request_belong_to_the_target() -> None:
    server = ServerHandshake()
    assert server.leftover == b""
    server.feed(GREETING + CONNECT + b"GET")
    assert server.feed(b" /") == []
    assert server.leftover == b"GET /"
    server.reply(Reply.SUCCEEDED)
    assert server.leftover == b"GET /"


def test_memory_is_bounded_before_the_login_is_accepted() -> None:
    server = ServerHandshake(CLOSED)
    server.feed(LOGIN_GREETING + LOGIN + bytes(MAX_PENDING))
    with pytest.raises(Socks5Error) as caught:
        server.feed(b"x")
    assert caught.value.code == "too_much_data"
    assert server.closed


def test_memory_is_bounded_before_the_reply() -> None:
    server = ServerHandshake()
    server.feed(GREETING + CONNECT)
    server.feed(bytes(MAX_LEFTOVER))
    with pytest.raises(Socks5Error) as caught:
        server.feed(b"x")
    assert caught.value.code == "too_much_data"


def test_no_message_before_the_request_is_longer_than_the_cap() -> None:
    server = ServerHandshake(CLOSED)
    wire = b"\x05\xff" + b"\x02" * 255 + b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255
    for index in range(len(wire)):
        server.feed(wire[index : index + 1])
        assert len(server._buffer) <= MAX_PENDING


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (Forbidden("no", code="policy_denied"), Reply.NOT_ALLOWED),
        (type("OpenRefused", (UnderpassError,), {"status": 403})("no"), Reply.NOT_ALLOWED),
        (Unavailable("x", code="connect_refused"), Reply.REFUSED),
        (Unavailable("x", code="connect_timeout"), Reply.TTL_EXPIRED),
        (Unavailable("x", code="open_timeout"), Reply.TTL_EXPIRED),
        (Unavailable("x", code="connect_failed"), Reply.HOST_UNREACHABLE),
        (Unavailable("x", code="resolve_failed"), Reply.HOST_UNREACHABLE),
        (TooManyRequests("x"), Reply.GENERAL_FAILURE),
        (InvalidRequest("x"), Reply.GENERAL_FAILURE),
    ],
)
def test_errors_become_replies(error: UnderpassError, reply: Reply) -> None:
    assert reply_for(error) is reply
