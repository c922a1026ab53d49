"""The client's side of a SOCKS5 handshake: reach a host through somebody else's proxy."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Literal

from underpass.wire.socks5.address import address_end, check_port, decode_address, encode_address
from underpass.wire.socks5.codes import (
    LOGIN_VERSION,
    NO_METHOD,
    VERSION,
    Command,
    Method,
    Reply,
    Socks5Error,
    Socks5Refused,
)

__all__ = ["ClientHandshake", "Connected"]

_REASONS: Final = {
    Reply.GENERAL_FAILURE: "it failed",
    Reply.NOT_ALLOWED: "its rules do not allow this",
    Reply.NETWORK_UNREACHABLE: "the network cannot be reached",
    Reply.HOST_UNREACHABLE: "the host cannot be reached",
    Reply.REFUSED: "the host refused the connection",
    Reply.TTL_EXPIRED: "the host did not answer in time",
    Reply.COMMAND_NOT_SUPPORTED: "it does not do this",
    Reply.ADDRESS_TYPE_NOT_SUPPORTED: "it does not take such addresses",
}


@dataclass(frozen=True, slots=True)
class Connected:
    """The proxy did it. For ``udp_associate`` datagrams go to *host* and *port*."""

    host: str
    port: int


class _State(enum.Enum):
    METHOD = enum.auto()  # waiting for the method the proxy chose
    LOGIN = enum.auto()  # waiting for its word on the login
    REPLY = enum.auto()  # waiting for its reply to the request
    OPEN = enum.auto()  # the bytes are the application's


class ClientHandshake:
    """One handshake with a proxy; begin by sending :meth:`data_to_send`.

    Args:
        host: where to; a name is resolved by the proxy.
        port: 1..65535; 0 is possible for ``udp_associate`` only.
        username: 1 to 255 bytes, when there is a login.
        password: likewise.
        command: what to ask for.

    Raises:
        Socks5Error: code ``bad_address`` or ``bad_login``; this cannot be said in SOCKS5.
    """

    __slots__ = ("_buffer", "_login", "_out", "_request", "_state")

    def __init__(
        self,
        host: str,
        port: int,
        username: str | None = None,
        password: str | None = None,
        *,
        command: Literal["connect", "udp_associate"] = "connect",
    ) -> None:
        number = Command.CONNECT if command == "connect" else Command.UDP_ASSOCIATE
        if number is Command.CONNECT:
            check_port(port)
        self._request = bytes((VERSION, number, 0)) + encode_address(host, port)
        self._login = b""
        methods = [Method.NO_AUTH]
        if username is not None or password is not None:
            name, secret = (username or "").encode(), (password or "").encode()
            if not (1 <= len(name) <= 255 and 1 <= len(secret) <= 255):
                raise Socks5Error(
                    "User name and password must have 1 to 255 bytes each.", code="bad_login"
                )
            self._login = bytes((LOGIN_VERSION, len(name))) + name + bytes((len(secret),)) + secret
            methods.append(Method.LOGIN)
        self._out = bytearray((VERSION, len(methods), *methods))
        self._buffer = bytearray()
        self._state = _State.METHOD

    @property
    def leftover(self) -> bytes:
        """What came behind the proxy's reply: the first bytes from the target."""
        return bytes(self._buffer) if self._state is _State.OPEN else b""

    def data_to_send(self) -> bytes:
        """Bytes for the proxy, each given once."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def feed(self, data: bytes | bytearray | memoryview) -> list[Connected]:
        """Take the next *data* from the proxy; returns :class:`Connected` once, when it is done.

        Raises:
            Socks5Refused: the proxy said no (code ``no_acceptable_method``, ``login_refused`` or
                ``proxy_refused``); close.
            Socks5Error: what answers is no SOCKS5 proxy; close.
            RuntimeError: it is done, the bytes are the application's; a bug of the caller.
        """
        if self._state is _State.OPEN:
            raise RuntimeError("the handshake is over")
        self._buffer += data
        if self._state is _State.METHOD:
            self._read_method()
        if self._state is _State.LOGIN:
            self._read_login()
        if self._state is _State.REPLY:
            return self._read_reply()
        return []

    def _take_pair(self, version: int) -> int | None:
        """The second byte of a two-byte answer whose first is *version*; None until it is here."""
        buffer = self._buffer
        if buffer and buffer[0] != version:
            raise Socks5Error("What answers is no SOCKS5 proxy.", code="bad_version")
        if len(buffer) < 2:
            return None
        value = buffer[1]
        del buffer[:2]
        return value

    def _read_method(self) -> None:
        method = self._take_pair(VERSION)
        if method is None:
            return
        if method == NO_METHOD:
            raise Socks5Refused(
                "The proxy wants another kind of login.", code="no_acceptable_method"
            )
        if method == Method.LOGIN and self._login:
            self._out += self._login
            self._state = _State.LOGIN
        elif method == Method.NO_AUTH:
            self._ask()
        else:
            raise Socks5Error("The proxy chose a login nobody offered.", code="bad_method")

    def _read_login(self) -> None:
        status = self._take_pair(LOGIN_VERSION)
        if status is None:
            return
        if status:
            raise Socks5Refused(
                "The proxy does not take this user name and password.", code="login_refused"
            )
        self._ask()

    def _ask(self) -> None:
        self._out += self._request
        self._state = _State.REPLY

    def _read_reply(self) -> list[Connected]:
        """VER REP RSV ATYP BND.ADDR BND.PORT (RFC 1928 §6); a refusal may end after REP."""
        buffer = self._buffer
        if buffer and buffer[0] != VERSION:
            raise Socks5Error("The proxy's reply cannot be read.", code="bad_version")
        if len(buffer) < 2:
            return []
        if buffer[1] != Reply.SUCCEEDED:
            code = buffer[1]
            reason = _REASONS[Reply(code)] if code in _REASONS else f"error {code}"
            raise Socks5Refused(f"The proxy did not connect: {reason}.", reply=code)
        end = address_end(buffer, 3)
        if end is None or len(buffer) < end:
            return []
        host, port, _ = decode_address(buffer, 3)
        del buffer[:end]
        self._state = _State.OPEN
        return [Connected(host, port)]
