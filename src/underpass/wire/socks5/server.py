"""The server's side of a SOCKS5 handshake: bytes in, events out, decisions back in."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

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

__all__ = [
    "MAX_LEFTOVER",
    "MAX_PENDING",
    "Authenticating",
    "Event",
    "Requested",
    "ServerHandshake",
]

MAX_PENDING: Final = 1024
"""Bytes held while the login is being checked; no message before the request is longer."""
MAX_LEFTOVER: Final = 65_536
"""Bytes taken from the client by further feeding between its request and the reply."""


@dataclass(frozen=True, slots=True)
class Authenticating:
    """The client says who it is; answer with ``accept_login``. Compare in constant time."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Authenticating(username={self.username!r})"  # a log must not hold the password


@dataclass(frozen=True, slots=True)
class Requested:
    """The client wants this; answer with ``reply``.

    For ``udp_associate`` *host* and *port* are where the client's datagrams will come from, often
    all zeros (RFC 1928 §7); for ``connect`` the port is never 0.
    """

    command: Literal["connect", "udp_associate"]
    host: str
    port: int


Event = Authenticating | Requested


class _State(enum.Enum):
    GREETING = enum.auto()  # waiting for the client's methods
    LOGIN = enum.auto()  # waiting for its user name and password
    DECIDING = enum.auto()  # waiting for accept_login
    REQUEST = enum.auto()  # waiting for its request
    REPLYING = enum.auto()  # waiting for reply
    OPEN = enum.auto()  # the bytes are the application's
    CLOSED = enum.auto()  # send what is left to send, then close


class ServerHandshake:
    """One client's handshake.

    Before the request it holds at most MAX_PENDING bytes between two calls. It waits for ever: the
    deadline is the caller's.

    Args:
        methods: what is taken, the preferred first. With both, who offers the first gets in by it.
    """

    __slots__ = ("_buffer", "_methods", "_out", "_state")

    def __init__(self, methods: Sequence[Method] = (Method.NO_AUTH,)) -> None:
        self._methods = tuple(methods)
        self._buffer = bytearray()
        self._out = bytearray()
        self._state = _State.GREETING

    @property
    def closed(self) -> bool:
        """Nothing can come of this any more: send :meth:`data_to_send`, then close (§6)."""
        return self._state is _State.CLOSED

    @property
    def leftover(self) -> bytes:
        """What the client sent behind its request: the first bytes for the target."""
        ready = self._state in (_State.REPLYING, _State.OPEN)
        return bytes(self._buffer) if ready else b""

    def data_to_send(self) -> bytes:
        """Bytes for the client, each given once."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take the next *data* from the client; returns what it now asks (at most one thing).

        Raises:
            Socks5Error: the handshake failed (code ``bad_version``, ``no_acceptable_method``,
                ``bad_login``, ``bad_request``, ``command_not_supported``,
                ``address_type_not_supported``, ``bad_address`` or ``too_much_data``).
        """
        if self._state is _State.CLOSED:
            return []
        if self._state in (_State.REPLYING, _State.OPEN):
            if len(self._buffer) + len(data) > MAX_LEFTOVER:
                self._fail("The client did not wait for the reply.", "too_much_data")
            self._buffer += data
            return []
        self._buffer += data
        return self._advance()

    def accept_login(self, ok: bool) -> list[Event]:
        """Answer :class:`Authenticating`; returns the request when the client had sent it already.

        When *ok* is false the client is told so and :attr:`closed` is set (RFC 1929 §2).

        Raises:
            Socks5Error: as for :meth:`feed`.
            RuntimeError: nobody asked; a bug of the caller.
        """
        if self._state is not _State.DECIDING:
            raise RuntimeError("there is no login to accept")
        self._out += bytes((LOGIN_VERSION, 0 if ok else 1))
        if not ok:
            self._close()
            return []
        self._state = _State.REQUEST
        return self._advance()

    def reply(
        self, code: Reply, bound_host: str = "0.0.0.0", bound_port: int = 0, message: str = ""
    ) -> None:
        """Answer :class:`Requested`; anything but SUCCEEDED sets :attr:`closed` (RFC 1928 §6).

        Args:
            code: how it ended.
            bound_host: on success the address the target sees, or where datagrams are to be sent.
            bound_port: its port.
            message: for protocols with room for words; SOCKS5 has none.

        Raises:
            Socks5Error: code ``bad_address``; the bound address is none.
            RuntimeError: nobody asked; a bug of the caller.
        """
        if self._state is not _State.REPLYING:
            raise RuntimeError("there is no request to reply to")
        if code is Reply.SUCCEEDED:
            self._out += bytes((VERSION, code, 0)) + encode_address(bound_host, bound_port)
            self._state = _State.OPEN
        else:
            self._refuse(code)
            self._close()

    def _advance(self) -> list[Event]:
        if self._state is _State.GREETING:
            self._read_greeting()
        event: Event | None = None
        if self._state is _State.LOGIN:
            event = self._read_login()
        elif self._state is _State.REQUEST:
            event = self._read_request()
        if self._state is _State.DECIDING and len(self._buffer) > MAX_PENDING:
            self._fail("The client did not wait for its login.", "too_much_data")
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
        self._state = _State.LOGIN if chosen == Method.LOGIN else _State.REQUEST

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
        self._state = _State.DECIDING
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
        self._state = _State.REPLYING
        return Requested(command, host, port)

    def _refuse(self, code: Reply) -> None:
        self._out += bytes((VERSION, code, 0)) + encode_address("0.0.0.0", 0)

    def _fail_login(self, message: str, code: str) -> NoReturn:
        self._out += bytes((LOGIN_VERSION, 1))
        self._fail(message, code)

    def _fail(self, message: str, code: str) -> NoReturn:
        self._close()
        raise Socks5Error(message, code=code)

    def _close(self) -> None:
        self._state = _State.CLOSED
        self._buffer.clear()


_REPLIES: Final = {
    "command_not_supported": Reply.COMMAND_NOT_SUPPORTED,
    "address_type_not_supported": Reply.ADDRESS_TYPE_NOT_SUPPORTED,
}
