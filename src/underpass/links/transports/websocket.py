"""A WebSocket as a link's transport, by picows, on both ends.

A link's bytes travel in binary messages; where one message ends means nothing.

Dialling: :func:`connect_websocket`. Accepting on the one port, once the request head has been
recognised (``GET /api/v1/link`` with ``Upgrade: websocket``)::

    socket = accept_websocket(transport, request_bytes_already_read, "/api/v1/link")
    await socket.upgraded()      # the 101 is sent; raises when the request was no good

**The trap** (field notes: "picows on plain uvloop broke framing in every 8-stream bulk run"):
``WSTransport.send`` on the *server* side hands payloads above 8 KiB over as ``writelines([header,
payload])`` where *header* is a view of a buffer that the next ``send`` overwrites. uvloop keeps the
view until the end of the loop turn, so the header of the first message turns into that of the last.
This module therefore never calls ``send`` for data: ``send_reuse_external_bytearray`` puts header
and payload into one buffer of ours, which is either sent at once or copied.
``tests/links/test_websocket.py`` checks eight bulk streams byte by byte.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import picows

from underpass.core.errors import Unavailable
from underpass.links.transports.connection import address_of, is_local, tune_socket
from underpass.links.transports.transport import (
    WRITE_HIGH,
    WRITE_LOW,
    BaseTransport,
    Buffer,
    WriteBatch,
)

__all__ = ["WebSocketTransport", "accept_websocket", "connect_websocket"]

_HEADER: Final = 14
"""Bytes picows wants free in front of a payload."""
_MAX_MESSAGE: Final = 1 << 20
_READ_BUFFER: Final = 64 << 10
"""Bytes to begin with; picows doubles it when a message does not fit."""
_HANDSHAKE: Final = 10.0
_log = logging.getLogger(__name__)
_log.setLevel(logging.ERROR)  # picows tells about every connection at INFO


class WebSocketTransport(BaseTransport):
    """A link's bytes in the binary messages of a WebSocket."""

    def __init__(self) -> None:
        super().__init__("websocket")
        self._socket: picows.WSTransport
        self._under: asyncio.Transport
        self._connected: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._batch = WriteBatch(self._send)
        self.listener = _Listener(self)

    async def upgraded(self) -> None:
        """Wait until messages can be sent. Put a deadline around it.

        Raises:
            Unavailable: code ``websocket_refused``: the request was not for a WebSocket of ours, or
                the connection ended.
        """
        if not await asyncio.shield(self._connected):
            raise Unavailable(
                "The connection ended before it was a WebSocket.", code="websocket_refused"
            )

    # -- for the listener -----------------------------------------------------------------------

    def connected(self, socket: picows.WSTransport) -> None:
        """The upgrade is done."""
        self._socket = socket
        self._under = under = socket.underlying_transport
        self.peer_address = address_of(under)
        self.local = is_local(under)
        under.set_write_buffer_limits(WRITE_HIGH, WRITE_LOW)
        tune_socket(under)
        if not self._connected.done():
            self._connected.set_result(True)

    def message(self, socket: picows.WSTransport, frame: picows.WSFrame) -> None:
        """A message, or a part of one, came."""
        kind = frame.msg_type
        if kind in (picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION):
            self._arrived(frame.get_payload_as_bytes())
        elif kind == picows.WSMsgType.CLOSE:
            if not self.closing:
                socket.send_close(frame.get_close_code())
            socket.disconnect()
        elif kind == picows.WSMsgType.TEXT:
            socket.send_close(picows.WSCloseCode.UNSUPPORTED_DATA)
            socket.disconnect()

    def paused(self) -> None:
        """The socket takes no more."""
        self._pause_sink()

    def resumed(self) -> None:
        """The socket takes more."""
        self._resume_sink()

    def refused(self) -> None:
        """The connection ended before the upgrade."""
        if not self._connected.done():
            self._connected.set_result(False)

    def disconnected(self) -> None:
        """The connection is gone."""
        self._batch.end(flush=False)
        self._gone(None)

    # -- Transport ------------------------------------------------------------------------------

    def _set_reading(self, reading: bool) -> None:
        under = self._under
        if not under.is_closing():  # uvloop raises after close
            if reading:
                under.resume_reading()
            else:
                under.pause_reading()

    def _send(self, data: bytes) -> None:
        # picows writes to the descriptor itself, which may be somebody else's after a close.
        if not self._under.is_closing():
            message = bytearray(_HEADER)
            message += data
            self._socket.send_reuse_external_bytearray(picows.WSMsgType.BINARY, message, _HEADER)

    def write(self, data: Buffer) -> None:
        self._batch.add(data)

    def writelines(self, parts: Sequence[Buffer]) -> None:
        self._batch.extend(parts)

    def flush(self) -> None:
        self._batch.flush()

    def close(self) -> None:
        if not self.closing:
            self._batch.end(flush=True)
            self.closing = True
            self._socket.send_close(picows.WSCloseCode.OK)
            self._socket.disconnect()

    def abort(self) -> None:
        self.closing = True
        self._batch.end(flush=False)
        if not self._lost:  # asyncio's transport fails when it had flushed, closed and gone before
            self._socket.disconnect(graceful=False)


class _Listener(picows.WSListener):
    """picows's callbacks, handed on."""

    def __init__(self, owner: WebSocketTransport) -> None:
        super().__init__()
        self._owner = owner

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._owner.connected(transport)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        self._owner.message(transport, frame)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._owner.disconnected()

    def pause_writing(self) -> None:
        self._owner.paused()

    def resume_writing(self) -> None:
        self._owner.resumed()


# What picows's stubs leave out or half untyped.
_WSProtocol: Any = vars(picows.picows)["WSProtocol"]
_dial: Any = vars(picows)["ws_connect"]


class _Acceptor(_WSProtocol):
    """The accepting end's asyncio protocol: picows's, which also tells when nothing came of it."""

    def __init__(self, owner: WebSocketTransport, path: str) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            None,  # host and path: the dialling end's
            None,
            False,
            self._route,
            _log,
            True,
            _HANDSHAKE,
            False,  # the mux pings
            20,
            20,
            picows.WSAutoPingStrategy.PING_WHEN_IDLE,
            True,
            _MAX_MESSAGE,
            None,
            _READ_BUFFER,
        )
        self._owner = owner
        self._path = path

    def _route(self, request: picows.WSUpgradeRequest) -> picows.WSListener | None:
        asked = request.path.decode("latin-1").partition("?")[0]
        return self._owner.listener if asked == self._path else None

    def take(self, data: bytes) -> None:
        """Receive *data* as if it came from the socket now."""
        while data:
            room = self.get_buffer(-1)
            count = min(len(room), len(data))
            room[:count] = data[:count]
            room.release()
            data = data[count:]
            self.buffer_updated(count)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)  # pyright: ignore[reportUnknownMemberType]
        self._owner.refused()


async def connect_websocket(
    url: str,
    *,
    tls: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
    proxy: str | None = None,
    server_hostname: str | None = None,
) -> WebSocketTransport:
    """Dial a link transport to the WebSocket at *url* (``ws://`` or ``wss://``).

    Put a deadline around it.

    Args:
        tls: for ``wss``; the default context verifies as usual.
        headers: sent in the request.
        proxy: ``http://``, ``https://`` or ``socks5://`` proxy to go through.
        server_hostname: checked against the certificate instead of the host in *url*.

    Raises:
        Unavailable: code ``websocket_refused`` when the server answers with something else.
        OSError: when the connection cannot be made.
    """
    owner = WebSocketTransport()
    more: dict[str, Any] = {}
    if server_hostname is not None:
        more["server_hostname"] = server_hostname
    try:
        await _dial(
            lambda: owner.listener,
            url,
            ssl_context=tls,
            extra_headers=dict(headers or {}),
            proxy=proxy,
            max_redirects=0,
            max_frame_size=_MAX_MESSAGE,
            websocket_handshake_timeout=_HANDSHAKE,
            logger_name=_log,
            read_buffer_init_size=_READ_BUFFER,
            use_aiofastnet=False,
            **more,
        )
    except picows.WSError as error:
        raise Unavailable(
            f"The server did not open a WebSocket: {error}.", code="websocket_refused"
        ) from None
    owner.refused()  # no-op after the upgrade; picows also returns when the connection just ended
    await owner.upgraded()
    return owner


def accept_websocket(
    transport: asyncio.Transport, already_read: bytes, path: str
) -> WebSocketTransport:
    """Make an accepted asyncio *transport* a link transport by answering its upgrade request.

    Args:
        already_read: what was read from it so far: the request, or its beginning.
        path: what the request must be for; anything else is answered with 404.
    """
    owner = WebSocketTransport()
    acceptor = _Acceptor(owner, path)
    # uvloop looks at the kind of the protocol when reading begins, so begin anew.
    transport.pause_reading()
    transport.set_protocol(cast("asyncio.BaseProtocol", acceptor))
    acceptor.connection_made(transport)
    transport.resume_reading()
    acceptor.take(already_read)
    return owner
