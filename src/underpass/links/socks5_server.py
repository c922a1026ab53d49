"""The server's side of SOCKS5 and HTTP CONNECT on one stream, up to the first byte of the target.

The first byte tells the two apart; both are answered through one :class:`Request`::

    request = await negotiate(stream, check=check)      # None: no login
    try:
        remote = await somehow_open(request.host, request.port)
    except UnderpassError as error:
        await request.refuse(error)                     # says why as far as the protocol can
        raise
    remote.write(await request.accept())                # what the client sent ahead
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from underpass.core.errors import InvalidRequest, Unauthenticated, UnderpassError
from underpass.links.stream import Stream
from underpass.wire.http_connect import ConnectHandshake
from underpass.wire.socks5 import (
    VERSION,
    Authenticating,
    Method,
    Reply,
    Requested,
    ServerHandshake,
    reply_for,
)

__all__ = ["CheckLogin", "Request", "negotiate"]

TIMEOUT: Final = 30.0
"""Seconds for a client to say what it wants."""
_FAREWELL: Final = 2.0
"""Seconds for a refused client to read why."""

CheckLogin = Callable[[str, str], Awaitable[bool]]
"""Whether user name and password are right; compares in constant time."""
_Handshake = ServerHandshake | ConnectHandshake


class Request:
    """What a client asked for; :meth:`accept` or :meth:`refuse` it, once.

    Attributes:
        protocol: which of the two it speaks.
        command: ``udp_associate`` comes from SOCKS5 only.
        host: a name or an address, IPv6 without brackets.
        port: 1..65535; for ``udp_associate`` where datagrams will come from, often 0.
        username: who logged in; None without a login.
    """

    def __init__(
        self, stream: Stream, handshake: _Handshake, wanted: Requested, username: str | None
    ) -> None:
        self.protocol: Literal["socks5", "http"] = (
            "socks5" if isinstance(handshake, ServerHandshake) else "http"
        )
        self.command: Literal["connect", "udp_associate"] = wanted.command
        self.host = wanted.host
        self.port = wanted.port
        self.username = username
        self._stream = stream
        self._handshake = handshake

    @property
    def target(self) -> str:
        """``tcp:host:port``, IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"

    async def accept(self, bound_host: str = "0.0.0.0", bound_port: int = 0) -> bytes:
        """Say that the way is open; gives what the client sent behind its request already.

        Args:
            bound_host: for ``udp_associate`` where datagrams are to be sent.
            bound_port: its port.

        Raises:
            StreamReset: the client is gone.
        """
        self._handshake.reply(Reply.SUCCEEDED, bound_host, bound_port)
        self._stream.write(self._handshake.data_to_send())
        await self._stream.drain()
        return self._handshake.leftover

    async def refuse(self, error: UnderpassError) -> None:
        """Say that it could not be, and why as far as the protocol can; closes the stream."""
        self._handshake.reply(reply_for(error), message=error.message)
        await _part(self._stream, self._handshake)


async def negotiate(
    stream: Stream, *, check: CheckLogin | None = None, timeout: float = TIMEOUT
) -> Request:
    """Find out what the client at *stream* wants. Whoever breaks the rules is answered and closed.

    Args:
        check: decides about logins, which are demanded then; None lets everybody in.
        timeout: seconds for all of it.

    Raises:
        Socks5Error, HttpConnectError: the client's words can't be understood or done.
        Unauthenticated: code ``login_refused``.
        InvalidRequest: code ``handshake_timeout`` or ``no_request``.
        StreamReset: the client went away.
    """
    methods = (Method.NO_AUTH,) if check is None else (Method.LOGIN,)
    try:
        async with asyncio.timeout(timeout):
            return await _negotiate(stream, methods, check)
    except TimeoutError:
        stream.abort("handshake_timeout")
        raise InvalidRequest(
            f"The client did not say what it wants within {timeout:g} seconds.",
            code="handshake_timeout",
        ) from None


async def _negotiate(
    stream: Stream, methods: tuple[Method, ...], check: CheckLogin | None
) -> Request:
    data = await _some(stream)
    handshake: _Handshake = (
        ServerHandshake(methods) if data[0] == VERSION else ConnectHandshake(methods)
    )
    username: str | None = None
    try:
        while True:
            events = handshake.feed(data)
            for event in events:
                if isinstance(event, Authenticating):
                    username = event.username
                    good = check is not None and await check(username, event.password)
                    events += handshake.accept_login(good)
                    if not good:
                        raise Unauthenticated(
                            "User name or password is wrong.", code="login_refused"
                        )
                else:
                    return Request(stream, handshake, event, username)
            stream.write(handshake.data_to_send())
            data = await _some(stream)
    except UnderpassError:
        await _part(stream, handshake)
        raise


async def _some(stream: Stream) -> bytes:
    data = await stream.read()
    if not data:
        stream.abort("no_request")
        raise InvalidRequest("The client went away before it asked.", code="no_request")
    return data


async def _part(stream: Stream, handshake: _Handshake) -> None:
    """Send what is left to say and close, in a way that it is read."""
    answer = handshake.data_to_send()
    if answer:
        stream.write(answer)
        stream.finish()
        try:
            # Closing on unread bytes would make a reset of it, and the client never see the answer.
            async with asyncio.timeout(_FAREWELL):
                while await stream.read():
                    pass
        except (UnderpassError, TimeoutError):
            pass  # gone, or talking on: enough
    await stream.close()
