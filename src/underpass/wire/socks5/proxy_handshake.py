"""What the server's side of every proxy handshake is: bytes in, events out, decisions back in.

SOCKS5 (``server.py``) and HTTP CONNECT (``underpass.wire.http_connect``) are two of them, and
whoever serves both needs to know only this.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from underpass.core.errors import InvalidRequest
from underpass.wire.socks5.codes import Method, Reply

__all__ = ["MAX_LEFTOVER", "Authenticating", "Event", "ProxyHandshake", "Requested", "State"]

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


class State(enum.Enum):
    """Where a handshake is; HTTP CONNECT, where all comes at once, begins with REQUEST."""

    GREETING = enum.auto()  # waiting for the client's methods
    LOGIN = enum.auto()  # waiting for its user name and password
    REQUEST = enum.auto()  # waiting for its request
    DECIDING = enum.auto()  # waiting for accept_login
    REPLYING = enum.auto()  # waiting for reply
    OPEN = enum.auto()  # the bytes are the application's
    CLOSED = enum.auto()  # send what is left to send, then close


class ProxyHandshake(ABC):
    """One client's handshake. It waits for ever: the deadline is the caller's.

    Args:
        methods: how clients may get in, the preferred first. With NO_AUTH among them nobody needs
            a login.
        state: where it begins.
    """

    __slots__ = ("_buffer", "_methods", "_out", "_state")

    error: ClassVar[type[InvalidRequest]]
    """What :meth:`feed` raises."""

    def __init__(self, methods: Sequence[Method], state: State) -> None:
        self._methods = tuple(methods)
        self._buffer = bytearray()
        self._out = bytearray()
        self._state = state

    @property
    def closed(self) -> bool:
        """Nothing can come of this any more: send :meth:`data_to_send`, then close."""
        return self._state is State.CLOSED

    @property
    def leftover(self) -> bytes:
        """What the client sent behind its request: the first bytes for the target."""
        return bytes(self._buffer) if self._state in (State.REPLYING, State.OPEN) else b""

    def data_to_send(self) -> bytes:
        """Bytes for the client, each given once; ask after every call, also when it raised."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take the next *data* from the client; returns what it now asks (at most one thing).

        Raises:
            InvalidRequest: of the kind :attr:`error`; the handshake failed, and :attr:`closed` is
                set. Code ``too_much_data`` when the client does not wait for its answers.
        """
        if self._state is State.CLOSED:
            return []
        if self._state in (State.REPLYING, State.OPEN):
            self._bound(len(self._buffer) + len(data), MAX_LEFTOVER)
            self._buffer += data
            return []
        self._buffer += data
        return self._advance()

    @abstractmethod
    def accept_login(self, ok: bool) -> list[Event]:
        """Answer :class:`Authenticating`; returns the request when it is here already.

        When *ok* is false the client is told so and :attr:`closed` is set.

        Raises:
            InvalidRequest: as for :meth:`feed`.
            RuntimeError: nobody asked; a bug of the caller.
        """

    @abstractmethod
    def reply(
        self, code: Reply, bound_host: str = "0.0.0.0", bound_port: int = 0, message: str = ""
    ) -> None:
        """Answer :class:`Requested`; anything but SUCCEEDED sets :attr:`closed`.

        Args:
            code: how it ended.
            bound_host: on success the address the target sees, or where datagrams are to be sent;
                HTTP does not say it.
            bound_port: its port.
            message: what the client reads when it failed; SOCKS5 has no room for words.

        Raises:
            InvalidRequest: code ``bad_address``; the bound address is none.
            RuntimeError: nobody asked; a bug of the caller.
        """

    @abstractmethod
    def _advance(self) -> list[Event]:
        """Read what the buffer holds."""

    def _expect(self, state: State) -> None:
        if self._state is not state:
            what = "login to accept" if state is State.DECIDING else "request to reply to"
            raise RuntimeError(f"there is no {what}")

    def _bound(self, size: int, limit: int) -> None:
        if size > limit:
            self._close()
            raise self.error("The client did not wait for its answer.", code="too_much_data")

    def _close(self) -> None:
        self._state = State.CLOSED
        self._buffer.clear()
