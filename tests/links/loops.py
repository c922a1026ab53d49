"""What tests of the asyncio shells share: both event loops, and links over each carrier."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from underpass.core.clock import Clock, SystemClock
from underpass.gateway.certificate import Certificate, self_made_certificate
from underpass.gateway.quic_front import QuicFront
from underpass.links.link import Link, Peer
from underpass.links.memory import memory_transports
from underpass.links.mux import MuxLimits
from underpass.links.quic.dial import connect_quic
from underpass.links.quic.transport import QuicTransport
from underpass.links.sockets import SocketStream, connect_tcp
from underpass.links.stream import Stream
from underpass.links.transports.connection import StreamTransport, connect
from underpass.links.transports.transport import Inbox, Transport
from underpass.links.transports.websocket import accept_websocket, connect_websocket

__all__ = [
    "CARRIERS", "LINK_CARRIERS", "PATH", "anyio_backend", "links", "open_descriptors",
    "quic_certificate", "quic_transports", "read_all", "socket_pair", "tls_contexts", "transports",
]  # fmt: skip

PATH = "/api/v1/link"
CARRIERS = ["memory", "tcp", "tls", "websocket"]
"""Carriers that are one pipe; over each of these any bytes may be sent."""
LINK_CARRIERS = [*CARRIERS, "quic"]
"""Carriers of links."""
AGENT = Peer("agent", "a", "agent", None, "1", frozenset())
NODE = Peer("node", "n", "node", None, "1", frozenset())


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Import this into a module to run its tests on both event loops."""
    return request.param


class _Upgrade(asyncio.Protocol):
    """Waits for the first bytes and makes the connection a WebSocket."""

    def __init__(self, accepted: Callable[[Transport], None]) -> None:
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._accepted(accept_websocket(self._transport, data, PATH))


@asynccontextmanager
async def transports(carrier: str) -> AsyncIterator[tuple[Transport, Transport]]:
    """The dialling and the accepting transport of one connection."""
    if carrier == "memory":
        near, far = memory_transports()
        yield near, far
        near.abort()
        return
    if carrier == "quic":
        async with quic_transports() as (near, far, _front):
            yield near, far
        return
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[Any] = loop.create_future()
    server_tls, client_tls = tls_contexts() if carrier == "tls" else (None, None)

    class Accepting(StreamTransport):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            arrived.set_result(self)

    def factory() -> asyncio.Protocol:
        if carrier == "websocket":
            return _Upgrade(arrived.set_result)
        return Accepting("tls" if server_tls else "tcp")

    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_tls)
    port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(10):
            near: Transport
            if carrier == "websocket":
                near = await connect_websocket(f"ws://127.0.0.1:{port}{PATH}")
            else:
                near = await connect("127.0.0.1", port, tls=client_tls, server_hostname="localhost")
            far: Transport = await arrived
        try:
            yield near, far
        finally:
            near.abort()
            far.abort()
    finally:
        server.close()
        for _ in range(3):
            await asyncio.sleep(0)


@asynccontextmanager
async def quic_transports(
    through: Callable[[int], int] | None = None,
) -> AsyncIterator[tuple[QuicTransport, QuicTransport, QuicFront]]:
    """Both ends of a QUIC connection, and the front that accepted it.

    Args:
        through: given the front's port, the port to dial instead (a relay's).
    """
    arrived: asyncio.Future[Transport] = asyncio.get_running_loop().create_future()
    made = quic_certificate()
    front = QuicFront(
        host="127.0.0.1", port=0, certificate=made,
        on_link=lambda transport, _address: arrived.set_result(transport),
    )  # fmt: skip
    await front.start()
    near: QuicTransport | None = None
    try:
        async with asyncio.timeout(10):
            port = through(front.port) if through is not None else front.port
            near = await connect_quic("127.0.0.1", port, fingerprint=made.fingerprint)
            near.write(b"!")  # a connection is handed on when its first byte comes
            far = await arrived
            inbox = Inbox(far)
            assert await inbox.read() == b"!"
            inbox.detach()
            far._sink = None
            far._reading = True
        yield near, far, front
    finally:
        if near is not None:
            near.abort()
        await asyncio.sleep(0)
        await front.stop()


@asynccontextmanager
async def links(
    carrier: str = "memory",
    on_open: Callable[[Any], Awaitable[None]] | None = None,
    *,
    limits: MuxLimits | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[tuple[Link, Link]]:
    """Two started ends of one link; *on_open* answers at the second, the accepting one."""
    async with transports(carrier) as (near, far):
        a = Link(near, NODE, dialler=True, limits=limits, clock=clock)
        b = Link(far, AGENT, dialler=False, limits=limits, clock=clock)
        if on_open is not None:
            b.on_open(on_open)
        a.start()
        b.start()
        try:
            yield a, b
        finally:
            await a.close()
            await b.close()


@asynccontextmanager
async def socket_pair() -> AsyncIterator[tuple[SocketStream, SocketStream]]:
    """A connected and an accepted socket stream."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[SocketStream] = loop.create_future()
    server = await loop.create_server(lambda: SocketStream(arrived.set_result), "127.0.0.1", 0)
    near = await connect_tcp("127.0.0.1", server.sockets[0].getsockname()[1])
    far = await arrived
    try:
        yield near, far
    finally:
        near.abort()
        far.abort()
        server.close()
        for _ in range(3):
            await asyncio.sleep(0)


async def read_all(stream: Stream, limit: int = 1 << 30) -> bytes:
    """Everything up to the end, or *limit* bytes."""
    parts: list[bytes] = []
    count = 0
    async with asyncio.timeout(60):
        while count < limit and (data := await stream.read(min(65536, limit - count))):
            parts.append(data)
            count += len(data)
    return b"".join(parts)


def open_descriptors() -> list[str]:
    """The sockets this process has open."""
    names: list[str] = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor
            names.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(name for name in names if name.startswith("socket:"))


_TLS: dict[str, Path] = {}


def quic_certificate() -> Certificate:
    """A self-made certificate, made once."""
    import tempfile

    if "quic" not in _TLS:
        _TLS["quic"] = Path(tempfile.mkdtemp(prefix="underpass-quic-"))
    return self_made_certificate(_TLS["quic"], SystemClock())


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS 1.3 contexts for a server named ``localhost`` and a client that verifies it."""
    import tempfile

    from bench.services import make_certificate

    if "state" not in _TLS:
        _TLS["state"] = Path(tempfile.mkdtemp(prefix="underpass-tls-"))
        make_certificate(_TLS["state"])
    state = _TLS["state"]
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    server.load_cert_chain(state / "cert.pem", state / "key.pem")
    return server, ssl.create_default_context(cafile=str(state / "cert.pem"))
