"""Links as WebSockets inside the web framework, at ``/api/v1/link``.

The one port answers such requests itself (``gateway/front.py``); this serves those that come on a
connection a proxy keeps open, or in pieces. Who the peer is, only the link's handshake decides:
neither cookies nor the Origin count here.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from underpass.gateway.services import services_of
from underpass.links.dial import LINK_PATH
from underpass.links.transports.messages import MessageTransport

__all__ = ["router"]


async def link_socket(websocket: WebSocket) -> None:
    """Carry one link."""
    server = services_of(websocket).link_server
    await websocket.accept()
    client = websocket.client
    transport = MessageTransport(
        websocket.receive_bytes,
        websocket.send_bytes,
        websocket.close,
        peer_address=f"{client.host}:{client.port}" if client is not None else None,
    )
    server.take(transport, client.host if client is not None else None)
    await transport.run()


router = APIRouter()
router.routes.append(WebSocketRoute(LINK_PATH, link_socket))
