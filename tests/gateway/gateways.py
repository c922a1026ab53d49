"""A gateway's link side for tests: front, link server, registry and router, without a database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from underpass.control.live import LiveBus
from underpass.control.subject import Subject
from underpass.core.clock import SystemClock
from underpass.core.errors import Unauthenticated
from underpass.core.supervisor import Supervisor
from underpass.gateway.certificate import Certificate, self_made_certificate
from underpass.gateway.front import Front
from underpass.gateway.link_server import LinkServer
from underpass.gateway.quic_front import QuicFront
from underpass.gateway.registry import LinkRegistry
from underpass.gateway.router import Router
from underpass.wire.handshake import AgentIdentity, ClientIdentity

AGENT_ID = "11111111-1111-4111-8111-111111111111"
SECRET = b"s" * 32
NODE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NODE_PUBLIC = NODE_KEY.public_key().public_bytes_raw()
ADMIN = Subject("u-1", "ada", "admin")
TOKEN = "ups_" + "t" * 40


@dataclass
class FakeSecrets:
    known: dict[str, bytes] = field(default_factory=lambda: {AGENT_ID: SECRET})

    async def of(self, agent_id: str) -> bytes | None:
        return self.known.get(agent_id)


@dataclass
class Known:
    subject: Subject


@dataclass
class FakeIdentities:
    known: dict[str, Subject] = field(default_factory=lambda: {TOKEN: ADMIN})
    valid: bool = True

    async def identify(self, token: str, *, guests: bool = False) -> Known:
        if token not in self.known:
            raise Unauthenticated("The login or token is not valid (any more).")
        return Known(self.known[token])

    async def still_valid(self, subject: Subject) -> bool:
        return self.valid


@dataclass
class FakeEvents:
    recorded: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def record(self, type: str, **more: Any) -> str:  # noqa: A002
        self.recorded.append((type, more))
        return "event"

    def named(self, name: str) -> list[dict[str, Any]]:
        return [more for kind, more in self.recorded if kind == name]


async def _hello(request: Request) -> PlainTextResponse:
    body = await request.body()
    return PlainTextResponse(
        f"{request.method} {request.url.path} {len(body)} {request.client.host}"
    )


async def _echo(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        await websocket.send_text(message["text"].upper())


async def _slow(request: Request) -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await request.app.state.go_on.wait()
        yield b"second"

    return StreamingResponse(parts())


class Gateway:
    """The parts, running."""

    def __init__(self, *, tls: Certificate | None = None, **link_options: Any) -> None:
        self.supervisor = Supervisor("test gateway")
        self.secrets = FakeSecrets()
        self.identities = FakeIdentities()
        self.events = FakeEvents()
        self.bus = LiveBus()
        self.registry = LinkRegistry(self.supervisor)
        self.router = Router(self.registry)
        self.certificate = tls
        self.link_server = LinkServer(
            self.registry,
            node_key=NODE_KEY,
            node_id="node-1",
            secrets=self.secrets,
            identities=self.identities,
            events=self.events,  # type: ignore[arg-type]
            bus=self.bus,
            clock=SystemClock(),
            **link_options,
        )
        self.app = Starlette(
            routes=[
                Route("/hello", _hello, methods=["GET", "POST"]),
                Route("/slow", _slow),
                WebSocketRoute("/echo", _echo),
            ]
        )
        self.front = self.make_front()
        self.quic_front: QuicFront | None = None

    def make_front(self, port: int = 0, **more: Any) -> Front:
        return Front(
            self.app,
            host="127.0.0.1",
            port=port,
            on_link=self.link_server.take,
            on_spare=self.link_server.take_spare,
            tls=self.certificate.context() if self.certificate else None,
            **more,
        )

    async def listen_for_quic(self, made: Certificate | None = None) -> QuicFront:
        """Open the UDP port as well."""
        made = made or self.certificate
        assert made is not None
        self.quic_front = QuicFront(
            host="127.0.0.1", port=self.front.port, certificate=made, on_link=self.link_server.take
        )
        await self.quic_front.start()
        return self.quic_front

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.front.port}"

    @property
    def fingerprint(self) -> str | None:
        return self.certificate.fingerprint if self.certificate else None

    async def stop(self) -> None:
        await self.link_server.stop(2)
        if self.quic_front is not None:
            await self.quic_front.stop()
        await self.front.stop(2)
        await self.supervisor.close()


@asynccontextmanager
async def gateway(**options: Any) -> AsyncIterator[Gateway]:
    made = Gateway(**options)
    await made.front.start()
    try:
        yield made
    finally:
        await made.stop()


def certificate(directory: Path) -> Certificate:
    return self_made_certificate(directory, SystemClock())


def agent_identity(secret: bytes = SECRET, agent_id: str = AGENT_ID) -> AgentIdentity:
    return AgentIdentity(agent_id, secret, "web-1")


def client_identity(token: str = TOKEN) -> ClientIdentity:
    return ClientIdentity(token, "laptop")
