"""The server's side of a SOCKS5 handshake (RFC 1928, RFC 1929)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn

from underpass.wire.socks5.address import address_end, check_port, decode_address, encode_address
from underpass.wire.socks5.codes import (
    LOGIN_VERSION,
    NO_METHOD,
    VERSION,
    Command,
    Method,
    Reply,
    Socks5Error,
)
from underpass.wire.socks5.proxy_handshake import (
    Authenticating,
    Event,
    ProxyHandshake,
    Requested,
    State,
)

__all__ = ["MAX_PENDING", "ServerHandshake"]

MAX_PENDING: Final = 1024
"""Bytes held while the login is being checked; no message before the request is longer."""
_REPLIES: Final = {
    "command_not_supported": Reply.COMMAND_NOT_SUPPORTED,
    "address_type_not_supported": Reply.ADDRESS_TYPE_NOT_SUPPORTED,
}


class ServerHandshake(ProxyHandshake):
    """One client's handshake.

    Before the request it holds at most MAX_PENDING bytes between two calls. What it raises has the
    code ``bad_version``, ``no_acceptable_method``, ``bad_login``, ``bad_request``,
    ``command_not_supported``, ``address_type_not_supported``, ``bad_address`` or
    ``too_much_data``.

    Args:
        methods: what is taken, the preferred first. With both, who offers the first gets in by it.
    """

    __slots__ = ()

    error = Socks5Error

    def __init__(self, methods: Sequence[Method] = (Method.NO_AUTH,)) -> None:
        super().__init__(methods, State.GREETING)

    def accept_login(self, ok: bool) -> list[Event]:
        self._expect(State.DECIDING)
        self._out += bytes((LOGIN_VERSION, 0 if ok else 1))
        if not ok:
            self._close()  # RFC 1929 §2
            return []
        self._state = State.REQUEST
        return self._advance()

    def reply(
        self, code: Reply, bound_host: str = "0.0.0.0", bound_port: int = 0, message: str = ""
    ) -> None:
        self._expect(State.REPLYING)
        if code is Reply.SUCCEEDED:
            self._out += bytes((VERSION, code, 0)) + encode_address(bound_host, bound_port)
            self._state = State.OPEN
        else:
            self._refuse(code)
            self._close()

    def _advance(self) -> list[Event]:
        if self._state is State.GREETING:
            self._read_greeting()
        event: Event | None = None
        if self._state is State.LOGIN:
            event = self._read_login()
        elif self._state is State.REQUEST:
            event = self._read_request()
        if self._state is State.DECIDING:
            self._bound(len(self._buffer), MAX_PENDING)
        return [] if event is None else [event]

    def _read_greeting(self) -> None:
        """VER NMETHODS METHODS (RFC 1928 §3)."""
        buffer = self._buffer
        if buffer and buffer[0] != VERSION:
            self._fail(f"This is not SOCKS5 but begins with {buffer[0]}.", "bad_version")
        if len(buffer) < 2 or len(buffer) < 2 + buffer[1]:
            return
        offered = buffer[2 : 2 + buffer[1]]
        chosen = next((method for method in self._methods if method in offered), None)
        if chosen is None:
            self._out += bytes((VERSION, NO_METHOD))
            self._fail("The client offers no way to log in that is taken.", "no_acceptable_method")
        del buffer[: 2 + buffer[1]]
        self._out += bytes((VERSION, chosen))
        self._state = State.LOGIN if chosen == Method.LOGIN else State.REQUEST

    def _read_login(self) -> Event | None:
        """VER ULEN UNAME PLEN PASSWD (RFC 1929 §2); both are 1 to 255 bytes."""
        buffer = self._buffer
        if buffer and buffer[0] != LOGIN_VERSION:
            self._fail_login(f"Version {buffer[0]} of the login is unknown.", "bad_version")
        if len(buffer) < 2 or len(buffer) < 3 + buffer[1]:
            return None
        middle = 2 + buffer[1]
        end = middle + 1 + buffer[middle]
        if len(buffer) < end:
            return None
        if middle == 2 or end == middle + 1:
            self._fail_login("The user name or the password is empty.", "bad_login")
        try:
            username, password = buffer[2:middle].decode(), buffer[middle + 1 : end].decode()
        except UnicodeDecodeError:
            self._fail_login("The user name or the password is not UTF-8.", "bad_login")
        del buffer[:end]
        self._state = State.DECIDING
        return Authenticating(username, password)

    def _read_request(self) -> Event | None:
        """VER CMD RSV ATYP DST.ADDR DST.PORT (RFC 1928 §4)."""
        buffer = self._buffer
        if buffer and buffer[0] != VERSION:
            self._refuse(Reply.GENERAL_FAILURE)
            self._fail(f"The request is of version {buffer[0]}.", "bad_version")
        try:
            end = address_end(buffer, 3)
            if end is None or len(buffer) < end:
                return None
            # Looked at only now: closing on bytes still unread would cost the client the reply.
            if buffer[1] not in (Command.CONNECT, Command.UDP_ASSOCIATE):
                raise Socks5Error(
                    f"Command {buffer[1]} is not supported.", code="command_not_supported"
                )
            if buffer[2]:
                raise Socks5Error("The request's reserved byte is not 0.", code="bad_request")
            host, port, _ = decode_address(buffer, 3)
            if buffer[1] == Command.CONNECT:
                check_port(port)
        except Socks5Error as error:
            self._refuse(_REPLIES.get(error.code, Reply.GENERAL_FAILURE))
            self._close()
            raise
        command = "connect" if buffer[1] == Command.CONNECT else "udp_associate"
        del buffer[:end]
        self._state = State.REPLYING
        return Requested(command, host, port)

    def _refuse(self, code: Reply) -> None:
        self._out += bytes((VERSION, code, 0)) + encode_address("0.0.0.0", 0)

    def _fail_login(self, message: str, code: str) -> NoReturn:
        self._out += bytes((LOGIN_VERSION, 1))
        self._fail(message, code)

    def _fail(self, message: str, code: str) -> NoReturn:
        self._close()
        raise Socks5Error(message, code=code)
