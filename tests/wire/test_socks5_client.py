"""The SOCKS5 client: against our server in any pieces, and against proxies of all kinds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.proxy_client import pieces
from underpass.core.errors import Unavailable
from underpass.wire.socks5 import (
    Authenticating,
    ClientHandshake,
    Connected,
    Method,
    Reply,
    Requested,
    ServerHandshake,
    Socks5Error,
    Socks5Refused,
)


@given(
    st.sampled_from(["192.0.2.1", "2001:db8::1", "host.example"]),
    st.booleans(),
    st.sampled_from(["connect", "udp_associate"]),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_both_ends_agree(host: str, login: bool, command: str, up: int, down: int) -> None:
    credentials = ("alice", "secret") if login else (None, None)
    client = ClientHandshake(host, 8080, *credentials, command=command)  # type: ignore[arg-type]
    server = ServerHandshake([Method.LOGIN if login else Method.NO_AUTH])
    connected: list[Connected] = []
    requested: list[Requested] = []
    for _ in range(4):
        for piece in pieces(client.data_to_send(), up):
            for event in server.feed(piece):
                if isinstance(event, Authenticating):
                    assert (event.username, event.password) == credentials
                    server.accept_login(True)
                else:
                    requested.append(event)
                    server.reply(Reply.SUCCEEDED, "198.51.100.9", 1234)
        for piece in pieces(server.data_to_send(), down):
            connected += client.feed(piece)
    assert requested == [Requested(command, host, 8080)]  # type: ignore[arg-type]
    assert connected == [Connected("198.51.100.9", 1234)]


def test_it_offers_a_login_only_when_it_has_one() -> None:
    assert ClientHandshake("h", 1).data_to_send() == b"\x05\x01\x00"
    client = ClientHandshake("h", 1, "u", "p")
    assert client.data_to_send() == b"\x05\x02\x00\x02"
    assert client.data_to_send() == b""
    assert client.feed(b"\x05\x02") == []
    assert client.data_to_send() == b"\x01\x01u\x01p"
    assert client.feed(b"\x01\x00") == []
    assert client.data_to_send() == b"\x05\x01\x00\x03\x01h\x00\x01"


def test_a_proxy_that_wants_no_login_gets_none() -> None:
    client = ClientHandshake("h", 1, "u", "p")
    client.data_to_send()
    client.feed(b"\x05\x00")
    assert client.data_to_send() == b"\x05\x01\x00\x03\x01h\x00\x01"


def test_what_comes_behind_the_reply_is_the_targets() -> None:
    client = ClientHandshake("h", 1)
    assert client.feed(b"\x05\x00\x05\x00\x00\x03\x02gw\x00\x07SSH-2.0") == [Connected("gw", 7)]
    assert client.leftover == b"SSH-2.0"
    with pytest.raises(RuntimeError, match="over"):
        client.feed(b"x")


@pytest.mark.parametrize("number", [*range(1, 9), 9, 255])
def test_refusals_say_why(number: int) -> None:
    client = ClientHandshake("h", 1)
    client.feed(b"\x05\x00")
    assert client.feed(b"\x05") == []
    with pytest.raises(Socks5Refused, match="did not connect: ") as caught:
        client.feed(bytes((number,)))
    assert caught.value.reply == number
    assert caught.value.code == "proxy_refused"
    assert caught.value.status == Unavailable.status


@pytest.mark.parametrize(
    ("wire", "code", "refused"),
    [
        (b"HTTP/1.1 400", "bad_version", False),
        (b"\x04", "bad_version", False),
        (b"\x05\xff", "no_acceptable_method", True),
        (b"\x05\x01", "bad_method", False),
        (b"\x05\x02\x01\x01", "login_refused", True),
        (b"\x05\x02\x01\xff", "login_refused", True),
        (b"\x05\x02\x05\x00", "bad_version", False),
        (b"\x05\x02\x01\x00\x01", "bad_version", False),
        (b"\x05\x00\x05\x00\x00\x02", "address_type_not_supported", False),
        (b"\x05\x00\x05\x00\x00\x03\x00\x00\x00", "bad_address", False),
    ],
)
def test_what_is_no_proxy_of_ours(wire: bytes, code: str, refused: bool) -> None:
    for step in (1, 2, len(wire)):
        client = ClientHandshake("h", 1, "u", "p")
        with pytest.raises(Socks5Error) as caught:
            for piece in pieces(wire, step):
                assert client.feed(piece) == []
        assert caught.value.code == code
        assert isinstance(caught.value, Socks5Refused) == refused
        assert client.leftover == b""


def test_a_login_nobody_offered_is_not_taken() -> None:
    client = ClientHandshake("h", 1)
    with pytest.raises(Socks5Error) as caught:
        client.feed(b"\x05\x02")
    assert caught.value.code == "bad_method"


@pytest.mark.parametrize(
    ("username", "password"), [("", "p"), ("u", ""), ("u", None), (None, "p"), ("u" * 256, "p")]
)
def test_logins_that_cannot_be_said(username: str | None, password: str | None) -> None:
    with pytest.raises(Socks5Error) as caught:
        ClientHandshake("h", 1, username, password)
    assert caught.value.code == "bad_login"


@pytest.mark.parametrize(("host", "port"), [("", 1), ("a b", 1), ("h", 0), ("h", 65536)])
def test_targets_that_cannot_be_said(host: str, port: int) -> None:
    with pytest.raises(Socks5Error) as caught:
        ClientHandshake(host, port)
    assert caught.value.code == "bad_address"


def test_an_association_need_not_know_its_address() -> None:
    client = ClientHandshake("0.0.0.0", 0, command="udp_associate")
    client.feed(b"\x05\x00")
    assert client.data_to_send() == b"\x05\x01\x00" + b"\x05\x03\x00\x01" + bytes(6)
