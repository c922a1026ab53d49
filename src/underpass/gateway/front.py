"""The one port: everything a gateway serves arrives here, and the first bytes say what it is.

With TLS the ALPN protocol tells (``underpass/1`` is a link, ``http/1.1`` is HTTP); without it, or
when the client named none, the preface ``UNDPASS1`` does (and, without TLS only, a spare
connection's, docs/adr/0007-dedicated-carriers.md). HTTP connections are handed to uvicorn's
own protocol with what has been read so far, so that everything it can do (keep-alive, WebSockets)
works as if it had accepted the connection itself. A request for a WebSocket link is the exception:
the link's own WebSocket transport answers it, at twice the speed (docs/adr/0003-handshake.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ssl
from collections.abc import Callable, MutableMapping
from typing import Any, Final, cast

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from underpass.core.errors import UnderpassError
from underpass.core.supervisor import Supervisor
from underpass.links.carriers.preface import SPARE_PREFACE
from underpass.links.dial import LINK_PATH
from underpass.links.transports.connection import StreamTransport
from underpass.links.transports.transport import Transport
from underpass.links.transports.websocket import WebSocketTransport, accept_websocket
from underpass.links.trust import ALPN
from underpass.wire.handshake import PREFACE

__all__ = ["Front", "PortUnavailable", "why_not_listening"]

_log = structlog.get_logger(__name__)

SNIFF_TIMEOUT: Final = 10.0
"""Seconds a client has to say the first bytes."""
HEAD_TIMEOUT: Final = 30.0
"""Seconds an HTTP client has for the head of a request, and until its first one."""
MAX_HEAD: Final = 256 << 10
"""Bytes of a request's head, give or take one read."""
MAX_UNDECIDED: Final = 4096
"""Connections that have not said what they are; one more is dropped."""
_BACKLOG: Final = 2048
_LINK_REQUESTS: Final = tuple(f"GET {LINK_PATH}{end}".encode() for end in " ?")
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)
_MAX_WS_MESSAGE: Final = 1 << 20


class PortUnavailable(UnderpassError):
    """The port can't be listened on; ``underpass serve`` prints the message and exits with 2."""

    code = "port_unavailable"


class Front:
    """Listens, and hands every connection to whom it is for.

    Args:
        app: the ASGI application; its lifespan runs from :meth:`start` to :meth:`stop`.
        host: the address to bind, e.g. ``0.0.0.0`` or ``::``.
        port: 0 takes a free one; see :attr:`port` after :meth:`start`.
        on_link: given each connection that is a link, as a transport that has not been read, and
            the peer's address if a proxy told it; must not block
            (:meth:`underpass.gateway.link_server.LinkServer.take` is meant).
        on_spare: given each plain connection that says it is a link's spare, and what it has said
            (``LinkServer.take_spare``); without it such connections are dropped.
        tls: a context made by ``certificate.Certificate.context``; None: plain.
        forwarded: rewrites an ASGI scope's ``client`` from the forwarding headers of trusted
            proxies (``ForwardedHeaders(app, trusted).rewrite``); default: no proxy is trusted.
        sniff_timeout: seconds until a silent client is dropped.
        head_timeout: seconds until an HTTP client that sends no complete request is dropped.

    Example::

        front = Front(app, host="127.0.0.1", port=0, on_link=link_server.take)
        await front.start()
        ...
        await front.stop(timeout=10)
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str,
        port: int,
        on_link: Callable[[Transport, str | None], object],
        on_spare: Callable[[asyncio.Transport, bytes], None] | None = None,
        tls: ssl.SSLContext | None = None,
        forwarded: Callable[[MutableMapping[str, Any]], None] | None = None,
        sniff_timeout: float = SNIFF_TIMEOUT,
        head_timeout: float = HEAD_TIMEOUT,
    ) -> None:
        self.host = host
        self.port = port
        self.sniff_timeout = sniff_timeout
        self.undecided: set[_FirstBytes] = set()
        self._on_link = on_link
        self._on_spare = on_spare
        self._tls = tls
        self._forwarded = forwarded
        self._supervisor = Supervisor("front")
        self._http = _Http(app, head_timeout)
        self._listener: asyncio.Server | None = None
        self._stopping = False

    @property
    def connections(self) -> int:
        """How many HTTP connections and WebSockets there are, and connections not yet decided."""
        return len(self._http.connections) + len(self.undecided)

    async def start(self) -> None:
        """Start the application's lifespan, then listen.

        Raises:
            PortUnavailable: in use, not allowed, or no such address.
            RuntimeError: the application's startup failed.
        """
        await self._http.start()
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                lambda: _FirstBytes(self),
                self.host,
                self.port,
                ssl=self._tls,
                ssl_handshake_timeout=self.sniff_timeout if self._tls else None,
                backlog=_BACKLOG,
                reuse_address=True,
            )
        except OSError as error:
            await self._http.stop(0)
            raise PortUnavailable(why_not_listening(error, self.host, self.port)) from None
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self, timeout: float = 10.0) -> None:
        """Take no new connection, let requests finish for *timeout* seconds, then end them.

        WebSockets are closed with 1012 (service restart) at once. Idempotent.
        """
        if self._stopping:
            return
        self._stopping = True
        if self._listener is not None:
            self._listener.close()
        for first in tuple(self.undecided):
            first.drop()
        await self._http.stop(timeout)
        await self._supervisor.close()

    # -- what a connection turned out to be ------------------------------------------------------

    def is_link(self, transport: asyncio.Transport, seen: bytes) -> None:
        """Make a link transport of it."""
        secure = transport.get_extra_info("ssl_object") is not None
        pipe = StreamTransport("tls" if secure else "tcp")
        transport.set_protocol(pipe)
        pipe.connection_made(transport)
        if seen:
            pipe.data_received(seen)
        self._on_link(pipe, None)

    def is_spare(self, transport: asyncio.Transport, seen: bytes) -> None:
        """Hand a spare connection on; there are none in TLS."""
        if self._on_spare is None or transport.get_extra_info("ssl_object") is not None:
            transport.abort()
        else:
            self._on_spare(transport, seen)

    def is_http(self, transport: asyncio.Transport, seen: bytes) -> None:
        """Give it to uvicorn, or make a link transport of its WebSocket."""
        head = seen.partition(b"\r\n\r\n")[0] if seen.startswith(_LINK_REQUESTS) else seen
        if len(head) == len(seen) or b"\nupgrade:" not in head.lower():
            # Not for us, or not all here yet, or a stray GET. The application has the same route.
            self._http.take(transport, seen)
            return
        address = self._address(transport, head)
        upgrading = accept_websocket(transport, seen, LINK_PATH)
        self._supervisor.start(self._upgrade(upgrading, transport, address), "link websocket")

    async def _upgrade(
        self, socket: WebSocketTransport, transport: asyncio.Transport, address: str | None
    ) -> None:
        try:
            async with asyncio.timeout(self.sniff_timeout):
                await socket.upgraded()
        except (UnderpassError, TimeoutError):
            transport.abort()
            return
        self._on_link(socket, address)

    def _address(self, transport: asyncio.Transport, head: bytes) -> str | None:
        """The client's address by the forwarding headers, when those may be believed."""
        peer = transport.get_extra_info("peername")
        if self._forwarded is None or not isinstance(peer, tuple):
            return None
        fields = (line.partition(b":") for line in head.split(b"\r\n")[1:])
        scope: dict[str, Any] = {
            "type": "websocket",
            "scheme": "ws",
            "client": (peer[0], peer[1]),
            "headers": [(name.strip().lower(), value.strip()) for name, _, value in fields],
        }
        self._forwarded(scope)
        return str(scope["client"][0])


class _FirstBytes(asyncio.Protocol):
    """Looks at a new connection until it is clear what it is."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._seen = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._transport = transport
        front = self._front
        if len(front.undecided) >= MAX_UNDECIDED:
            transport.abort()
            return
        front.undecided.add(self)
        secure = transport.get_extra_info("ssl_object")
        protocol = secure.selected_alpn_protocol() if secure is not None else None
        if protocol == ALPN:
            self._decided(front.is_link)
        elif protocol is not None:
            self._decided(front.is_http)
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(front.sniff_timeout, self.drop)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self._seen.startswith(PREFACE):
            self._decided(self._front.is_link)
        elif self._seen.startswith(SPARE_PREFACE):
            self._decided(self._front.is_spare)
        elif not (PREFACE.startswith(self._seen) or SPARE_PREFACE.startswith(self._seen)):
            self._decided(self._front.is_http)

    def eof_received(self) -> bool:
        return False  # nothing was asked, nothing can be answered

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        if self._transport is not None:
            self._transport.close()

    def drop(self) -> None:
        """End a connection that said too little for too long."""
        self._forget()
        if self._transport is not None:
            self._transport.abort()

    def _forget(self) -> None:
        self._front.undecided.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _decided(self, give: Callable[[asyncio.Transport, bytes], None]) -> None:
        self._forget()
        assert self._transport is not None
        seen, self._seen = self._seen, b""
        give(self._transport, seen)


class _HttpProtocol(HttpToolsProtocol):
    """uvicorn's, with a cap on the size of a request's head and on the time it may take."""

    head_since: float | None = None
    """When the head now being read began (the loop's time); None while none is."""
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.head_since = self.loop.time()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        if self.head_since is None:
            self.head_since = self.loop.time()
            self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.head_since = None
        self._head_bytes = 0
        super().on_headers_complete()


class _Http:
    """uvicorn without its own server: its configuration, lifespan, state and protocols."""

    def __init__(self, app: Any, head_timeout: float) -> None:
        self._head_timeout = head_timeout
        self._config = uvicorn.Config(
            app,
            http=_HttpProtocol,
            ws="websockets-sansio",
            ws_max_size=_MAX_WS_MESSAGE,
            ws_per_message_deflate=False,
            # A page that stopped reading answers no ping either, and must not lose its terminal
            # for that; pages ping by themselves, so a dead one is noticed by its silence.
            ws_ping_interval=20.0,
            ws_ping_timeout=120.0,
            lifespan="auto",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # trusted proxies are the application's business
            server_header=False,
            timeout_keep_alive=75,
        )
        self._config.load()
        self._server = uvicorn.Server(self._config)
        self._lifespan = self._config.lifespan_class(self._config)
        self._supervisor = Supervisor("front")
        self._state = self._server.server_state

    @property
    def connections(self) -> set[Any]:
        return self._state.connections

    async def start(self) -> None:
        await self._lifespan.startup()
        if self._lifespan.should_exit:
            raise RuntimeError("the application did not start; its log says why")
        await self._server.on_tick(0)
        self._supervisor.start(self._tick(), "date header")

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, self._head_timeout / 2))
            await self._server.on_tick(0)
            late = loop.time() - self._head_timeout
            for protocol in tuple(self._state.connections):
                if isinstance(protocol, _HttpProtocol):
                    since = protocol.head_since
                    if since is not None and since < late:
                        protocol.transport.abort()

    def take(self, transport: asyncio.Transport, seen: bytes) -> None:
        protocol = _HttpProtocol(
            config=self._config, server_state=self._state, app_state=self._lifespan.state
        )
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if seen:
            protocol.data_received(seen)

    async def stop(self, timeout: float) -> None:
        for connection in tuple(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                # uvicorn has no event for it
                while self._state.connections or self._state.tasks:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        for connection in tuple(self._state.connections):
            connection.transport.abort()
        tasks = tuple(self._state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2)
        await self._lifespan.shutdown()
        await self._supervisor.close()


def why_not_listening(error: OSError, host: str, port: int) -> str:
    """What :class:`PortUnavailable` tells a person about *error*."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is in use ({where}); stop what uses it or give another --listen."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Not allowed to listen on {where}; give a port above 1023 with --listen."
    return f"Can't listen on {where}: {error.strerror or error}."
