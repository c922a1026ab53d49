"""The server's side of HTTP ``CONNECT`` (RFC 9110 §9.3.6), used exactly like the SOCKS5 server.

The head of one request is read strictly (RFC 9112 §2–§5: CRLF only, no folded lines, no content)
and answered; after a 200 the bytes are the application's. Everything but CONNECT is answered 405:
this is a tunnel, not a proxy that would have to understand what passes. Whoever is not let in gets
one answer per connection and is closed, so that guessing costs a connection each.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final, NoReturn

from underpass.core.errors import InvalidRequest
from underpass.wire.socks5 import (
    MAX_LEFTOVER,
    Authenticating,
    Event,
    Method,
    ProxyHandshake,
    Reply,
    Requested,
    Socks5Error,
    State,
    check_host,
    check_port,
)

__all__ = ["MAX_HEAD", "ConnectHandshake", "HttpConnectError"]

MAX_HEAD: Final = 16_384
"""Bytes of a request's head, its empty line included."""
MAX_FIELDS: Final = 100
"""Header fields of a request."""

_SINGLE: Final = frozenset(
    {b"host", b"proxy-authorization", b"content-length", b"transfer-encoding"}
)

_CHALLENGE: Final = ('Proxy-Authenticate: Basic realm="underpass", charset="UTF-8"',)
_REASONS: Final = {
    400: "Bad Request",
    403: "Forbidden",
    405: "Method Not Allowed",
    407: "Proxy Authentication Required",
    502: "Bad Gateway",
    504: "Gateway Timeout",
}
_ANSWERS: Final[dict[Reply, tuple[int, str]]] = {
    Reply.NOT_ALLOWED: (403, "This target is not allowed here."),
    Reply.TTL_EXPIRED: (504, "The target did not answer in time."),
    Reply.REFUSED: (502, "The target refused the connection."),
    Reply.HOST_UNREACHABLE: (502, "The target cannot be reached."),
    Reply.NETWORK_UNREACHABLE: (502, "The target's network cannot be reached."),
}
_FAILED: Final = (502, "The connection to the target could not be made.")

# No pattern here can be matched in two ways: what takes long to refuse would be an attack.
_token = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_request_line = re.compile(rb"(" + _token + rb"+) ([\x21-\x7e]+) HTTP/1\.[0-9]").fullmatch
_field_line = re.compile(rb"(" + _token + rb"+):([\x20-\x7e\t\x80-\xff]*)").fullmatch
_authority = re.compile(
    rb"(?:\[([0-9A-Fa-f]*:[0-9A-Fa-f:.]*)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})"
).fullmatch
_basic = re.compile(rb"basic +([A-Za-z0-9+/]+={0,2})", re.IGNORECASE).fullmatch
_may_begin = re.compile(_token).match
_bare_lf = re.compile(rb"(?<!\r)\n").search
_control = re.compile(r"[\x00-\x1f\x7f]").search


class HttpConnectError(InvalidRequest):
    """The request cannot be used; ``code`` says why. The answer is in ``data_to_send()``."""

    code = "bad_connect"


class ConnectHandshake(ProxyHandshake):
    """One client's handshake.

    What it raises has the code ``bad_request``, ``head_too_large``, ``method_not_allowed``,
    ``bad_address``, ``login_required``, ``bad_login`` or ``too_much_data``.

    Args:
        methods: LOGIN takes Basic credentials (RFC 7617) from ``Proxy-Authorization`` and from
            nowhere else; without NO_AUTH beside it they are demanded.
    """

    __slots__ = ("_request", "_searched")

    error = HttpConnectError

    def __init__(self, methods: Sequence[Method] = (Method.NO_AUTH,)) -> None:
        super().__init__(methods, State.REQUEST)
        self._request: list[Event] = []  # kept while the login is being checked
        self._searched = 0  # bytes known to hold no end of the head

    def accept_login(self, ok: bool) -> list[Event]:
        self._expect(State.DECIDING)
        if not ok:
            self._answer(407, "The user name or the password is wrong.", _CHALLENGE)
            return []
        self._state = State.REPLYING
        return self._request

    def reply(
        self, code: Reply, bound_host: str = "0.0.0.0", bound_port: int = 0, message: str = ""
    ) -> None:
        self._expect(State.REPLYING)
        if code is Reply.SUCCEEDED:
            self._out += b"HTTP/1.1 200 Connection established\r\n\r\n"
            self._state = State.OPEN
            return
        status, words = _ANSWERS.get(code, _FAILED)
        self._answer(status, message or words)

    def _advance(self) -> list[Event]:
        if self._state is State.DECIDING:
            self._bound(len(self._buffer), MAX_LEFTOVER)
            return []
        head = self._take_head()
        return [] if head is None else self._read(head)

    def _take_head(self) -> bytes | None:
        """The head without its last line's end and the empty line; None while it is not whole."""
        buffer = self._buffer
        if buffer and _may_begin(buffer) is None:
            self._refuse("This is no HTTP request.")
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3), MAX_HEAD)
        looked_at = end if end >= 0 else min(len(buffer), MAX_HEAD)
        if _bare_lf(buffer, max(0, self._searched - 1), looked_at):
            self._refuse("A line of the request does not end with CRLF.")
        if end < 0:
            if len(buffer) >= MAX_HEAD:
                self._refuse(
                    f"The head of the request is longer than {MAX_HEAD} bytes.", "head_too_large"
                )
            self._searched = len(buffer)
            return None
        head = bytes(buffer[:end])
        del buffer[: end + 4]
        return head

    def _read(self, head: bytes) -> list[Event]:
        line, *lines = head.split(b"\r\n")
        request = _request_line(line)
        if request is None:
            self._refuse("The request line cannot be read.")
        fields = self._read_fields(lines)
        if request[1] != b"CONNECT":
            self._fail(
                405,
                "Only CONNECT is answered here: this is a tunnel, it does not fetch pages.",
                "method_not_allowed",
                ("Allow: CONNECT",),
                "Set it as the proxy for https:// addresses, or use it as a SOCKS5 proxy (curl:"
                " --proxytunnel or --socks5-hostname).",
            )
        self._request = [self._read_target(request[2])]
        if Method.LOGIN in self._methods:
            credentials = fields.get(b"proxy-authorization")
            if credentials is not None:
                event = self._read_login(credentials)
                self._state = State.DECIDING
                return [event]
        if Method.NO_AUTH not in self._methods:
            self._fail(407, "This proxy wants a login.", "login_required", _CHALLENGE)
        self._state = State.REPLYING
        return self._request

    def _read_fields(self, lines: list[bytes]) -> dict[bytes, bytes]:
        """The fields by lower-case name (RFC 9112 §5); those we look at may come only once."""
        if len(lines) > MAX_FIELDS:
            self._refuse(f"The request has more than {MAX_FIELDS} header fields.")
        fields: dict[bytes, bytes] = {}
        for line in lines:
            field = _field_line(line)
            if field is None:
                self._refuse("A header field of the request cannot be read.")
            name = field[1].lower()
            if name in fields and name in _SINGLE:
                self._refuse(f"The request has two {name.decode()} fields.")
            fields[name] = field[2].strip(b" \t")
        # What a tunnel carries begins behind the head; content in between has no meaning
        # (RFC 9110 §9.3.6), and two readings of where it ends would be one too many.
        if b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0":
            self._refuse("A CONNECT request has no content.")
        return fields

    def _read_target(self, target: bytes) -> Requested:
        """``host:port``, IPv6 in brackets (RFC 9112 §3.2.3)."""
        parts = _authority(target)
        if parts is None:
            self._refuse(
                "The target of CONNECT must be HOST:PORT, IPv6 in brackets.", "bad_address"
            )
        try:
            host = check_host((parts[1] or parts[2]).decode("ascii"))
            return Requested("connect", host, check_port(int(parts[3])))
        except Socks5Error as error:
            self._refuse(error.message, "bad_address")

    def _read_login(self, value: bytes) -> Authenticating:
        """Basic credentials: Base64 of ``user:password`` in UTF-8 (RFC 7617 §2)."""
        found = _basic(value)
        try:
            text = base64.b64decode(found[1], validate=True).decode() if found else ""
        except (binascii.Error, UnicodeDecodeError):
            text = ""
        username, colon, password = text.partition(":")
        if not username or not colon or _control(text):
            self._fail(407, "Only Basic credentials, in UTF-8, are taken.", "bad_login", _CHALLENGE)
        return Authenticating(username, password)

    def _refuse(self, message: str, code: str = "bad_request") -> NoReturn:
        self._fail(400, message, code)

    def _fail(
        self, status: int, message: str, code: str, fields: tuple[str, ...] = (), hint: str = ""
    ) -> NoReturn:
        self._answer(status, f"{message} {hint}" if hint else message, fields)
        raise HttpConnectError(message, code=code, hint=hint or None)

    def _answer(self, status: int, text: str, fields: tuple[str, ...] = ()) -> None:
        body = f"{text}\n".encode("utf-8", "replace")
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}",
            *fields,
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
            "\r\n",
        )
        self._out += "\r\n".join(head).encode("ascii") + body
        self._close()
