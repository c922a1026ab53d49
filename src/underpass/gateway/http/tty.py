"""Terminals over HTTP: authorise, the browser's socket, and what polling agents ask."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, WebSocket
from pydantic import BaseModel

from underpass.control.subject import Subject
from underpass.core.errors import Unauthenticated, UnderpassError
from underpass.core.ids import is_id
from underpass.gateway.http.envelope import REFUSALS, refuse_websocket
from underpass.gateway.http.security import (
    Caller,
    address_of,
    authenticate,
    bearer_of,
    check_origin,
    cookie_of,
    origin_of,
)
from underpass.gateway.services import services_of
from underpass.gateway.terminals.browser_socket import BrowserSocket
from underpass.gateway.terminals.gate import Request as TerminalRequest

__all__ = ["router"]

router = APIRouter(tags=["terminals"], responses=REFUSALS)

TICKET_SECONDS = 300


class SessionBody(BaseModel):
    """What will be opened."""

    command: str
    cols: int
    rows: int


class TicketBody(BaseModel):
    """A ticket for ``/api/v1/tty/ws`` (spec 1). The token works once."""

    token: str
    expires_in: int
    ws_url: str
    session: SessionBody


class PendingBody(BaseModel):
    """A session a polling agent should open over ``/api/v1/agent/tty/relay``."""

    session_id: str
    token: str
    cols: int
    rows: int
    user: dict[str, str]
    command: str | None
    login: str | None
    offset: int | None
    """``null``: start it; a number: go on with it at that output byte."""
    grace: float


@router.get("/api/v1/assets/{asset_id}/tty/authorize", response_model=TicketBody)
async def authorize(  # noqa: PLR0917 - the query's parameters
    asset_id: str,
    request: Request,
    caller: Caller,
    cols: Annotated[int, Query(description="1 to 1000; other numbers are clamped")] = 80,
    rows: Annotated[int, Query(description="1 to 1000; other numbers are clamped")] = 24,
    command: Annotated[str | None, Query(description="default: a login shell")] = None,
    login: Annotated[str | None, Query(max_length=64)] = None,
    user_id: Annotated[str | None, Query(description="old clients; must be your own")] = None,
    session_id: Annotated[
        str | None, Query(description="come back to this session; the caps do not apply")
    ] = None,
) -> Any:
    """A ticket for one terminal on this machine, good for 5 minutes and one use."""
    token, ticket = await services_of(request).terminals.gate.authorise(
        caller,
        TerminalRequest(asset_id, cols, rows, command, login, session_id),
        claimed_user=user_id,
    )
    return {
        "token": token,
        "expires_in": TICKET_SECONDS,
        "ws_url": "ws" + origin_of(request).removeprefix("http") + "/api/v1/tty/ws",
        "session": {
            "command": ticket.command or "$SHELL --login",
            "cols": ticket.cols,
            "rows": ticket.rows,
        },
    }


class _SignedIn:
    """Who a terminal's socket belongs to, through the one ``authenticate``."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def connection(self) -> Subject | None:
        # A stale cookie beside a good ticket is no reason to refuse; a foreign Origin was one.
        if bearer_of(self._websocket) is None and cookie_of(self._websocket) is None:
            return None
        try:
            return await authenticate(self._websocket)
        except Unauthenticated:
            return None

    async def token(self, token: str) -> Subject:
        identity = await services_of(self._websocket).sign_in.identify(token)
        user = identity.subject
        return Subject(
            user.user_id, user.username, user.role, "token", user.credential_id,
            address_of(self._websocket),
        )  # fmt: skip


@router.websocket("/api/v1/tty/ws")
async def tty(websocket: WebSocket) -> None:
    """A terminal; see docs/reference/sessions-api.md."""
    try:
        # A page always sends an Origin; what comes without one is no page, and needs a token.
        if "origin" in websocket.headers:
            check_origin(websocket)
        signed_in = _SignedIn(websocket)
        if cookie_of(websocket) is not None:
            await signed_in.connection()
    except UnderpassError as error:
        await refuse_websocket(websocket, error)
        return
    await BrowserSocket(websocket, services_of(websocket).terminals, signed_in).serve()


@router.get("/api/v1/agent/tty/pending-sessions", response_model=list[PendingBody])
@router.get("/api/v1/agent/tty/sessions", response_model=list[PendingBody], include_in_schema=False)
async def pending_sessions(request: Request) -> Any:
    """What a polling agent should open now; signed like a heartbeat."""
    services = services_of(request)
    query = request.url.query
    agent_id = await services.signed_requests.verify(
        "GET", request.url.path + (f"?{query}" if query else ""), request.headers
    )
    return await services.terminals.poll(agent_id)


@router.websocket("/api/v1/agent/tty/relay")
async def relay(
    websocket: WebSocket,
    session_id: Annotated[str, Query(max_length=64)],
    token: Annotated[str, Query(max_length=256)],
) -> None:
    """A polling agent's socket for one session, opened with the token it was given."""
    services = services_of(websocket)
    try:
        if not is_id(session_id):
            raise Unauthenticated("The relay token is not valid.", code="bad_relay_token")
        await services.terminals.relay.serve(websocket, session_id, token, address_of(websocket))
    except UnderpassError as error:
        await refuse_websocket(websocket, error)
