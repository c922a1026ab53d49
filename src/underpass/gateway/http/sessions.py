"""Sessions over HTTP: list, show, share, end."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from underpass.control.sessions import SORTABLE, SessionFilter, session_record
from underpass.core.errors import NotFound
from underpass.gateway.http.envelope import REFUSALS, Envelope, Nothing, Page, Paging, ok, page
from underpass.gateway.http.security import Caller
from underpass.gateway.http.times import Moment, seconds
from underpass.gateway.services import services_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/sessions", tags=["sessions"], responses=REFUSALS)


class SessionBody(BaseModel):
    """A terminal session or a program run over ``exec`` (spec 7)."""

    id: str
    asset_id: str
    user_id: str
    username: str
    kind: str
    status: str
    command: str
    login: str | None
    cols: int
    rows: int
    created_at: str
    started_at: str | None
    ended_at: str | None
    exit_code: int | None
    signal: str | None
    browser_ip: str | None
    agent_ip: str | None
    recording: str | None
    observers: int
    error_message: str | None


class SharingBody(BaseModel):
    """Whether others who may use the machine may also join this session and type."""

    join: bool


class TerminateBody(BaseModel):
    """Why a session is ended; both ends see it."""

    reason: str = Field("", max_length=200)


@router.get("", response_model=Envelope[Page[SessionBody]])
async def index(  # noqa: PLR0917 - the query's parameters
    request: Request,
    caller: Caller,
    paging: Paging,
    status: Annotated[
        str | None, Query(max_length=64, description="one or more, by comma; or `live`")
    ] = None,
    asset_id: Annotated[str | None, Query(max_length=64)] = None,
    user: Annotated[str | None, Query(max_length=64, description="id or name")] = None,
    kind: Annotated[str | None, Query(pattern="^(pty|exec)$")] = None,
    since: Moment = None,
    until: Moment = None,
) -> Any:
    """Your own sessions; everybody's, for admins and auditors."""
    services = services_of(request)
    rows, total = await services.sessions.page(
        caller,
        SessionFilter(
            status, asset_id, user, kind, seconds("since", since), seconds("until", until), paging.q
        ),
        offset=paging.offset,
        limit=paging.page_size,
        order=paging.order(set(SORTABLE), "-created_at"),
    )
    items = [session_record(row, services.terminals.observers(row.id)) for row in rows]
    return page(items, total, paging.page, paging.page_size)


@router.get("/{session_id}", response_model=Envelope[SessionBody])
async def read(session_id: str, request: Request, caller: Caller) -> Any:
    """One session."""
    services = services_of(request)
    row = await services.sessions.visible(caller, session_id)
    return ok(session_record(row, services.terminals.observers(row.id)))


@router.delete("/{session_id}", response_model=Envelope[Nothing])
async def terminate(
    session_id: str, request: Request, caller: Caller, body: TerminateBody | None = None
) -> Any:
    """End a live session: your own, or as an admin anybody's."""
    await services_of(request).terminals.terminate(
        session_id, caller, body.reason if body is not None else ""
    )
    return ok()


@router.post("/{session_id}/sharing", response_model=Envelope[SharingBody])
async def share(session_id: str, body: SharingBody, request: Request, caller: Caller) -> Any:
    """Let others who may use the machine watch and join your own live session, or stop that."""
    hub = services_of(request).terminals.hubs.get(session_id)
    if hub is None or hub.outcome is not None or hub.info.user_id != caller.user_id:
        raise NotFound("There is no such session.", hint="Check the id.")
    await services_of(request).terminals.share(hub, caller, body.join)
    return ok({"join": body.join})
