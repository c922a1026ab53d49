"""Machines: list, read, change, delete; their metrics, past and live."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from underpass.control.agent_list import AgentQuery
from underpass.control.subject import Subject
from underpass.core.errors import Conflict, InvalidRequest, TooManyRequests, UnderpassError
from underpass.gateway.http.envelope import (
    REFUSALS,
    Envelope,
    Nothing,
    Page,
    Paging,
    error_body,
    ok,
    page,
)
from underpass.gateway.http.security import Admin, Caller
from underpass.gateway.services import Services, services_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/assets", tags=["machines"], responses=REFUSALS)

Status = Literal["online", "offline", "maintenance", "degraded"]

LIVE_EVERY: Final = 2.0
MAX_LIVE: Final = 200
"""Live metric streams at once, of everybody together: each asks an agent every two seconds."""
_live: weakref.WeakKeyDictionary[FastAPI, set[object]] = weakref.WeakKeyDictionary()


class AssetBody(BaseModel):
    """A machine. ``labels`` and ``allowed_users`` are set by admins; the infos by the agent."""

    id: str
    name: str
    hostname: str
    labels: dict[str, str]
    allowed_users: list[str]
    may_declare: bool = Field(description="Whether mappings in its `underpass.yaml` count.")
    status: Status
    linked: bool
    key_fingerprint: str
    version: str | None
    address: str | None
    created_at: str
    updated_at: str
    last_seen_at: str | None
    static_info: dict[str, Any]
    dynamic_info: dict[str, Any]
    sessions: int


class AssetPatch(BaseModel):
    """Only what is given changes."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(max_length=64)] | None = None
    labels: dict[str, str] | None = None
    allowed_users: list[str] | None = Field(None, description="User ids; replaces the list.")
    may_declare: bool | None = Field(
        None, description="Let mappings in its `underpass.yaml` count; `false` removes them."
    )
    status: Literal["maintenance", "online"] | None = Field(
        None, description="`maintenance`: no new sessions; `online` lifts it."
    )


class MetricPoint(BaseModel):
    """One heartbeat's numbers: percentages, and the one-minute load average."""

    time: str
    cpu: float | None
    memory: float | None
    disk: float | None
    load: float | None


class MetricPoints(BaseModel):
    """At most 240 points, oldest first."""

    points: list[MetricPoint]


@router.get("", response_model=Envelope[Page[AssetBody]], summary="List machines")
async def index(
    caller: Caller,
    paging: Paging,
    request: Request,
    label: Annotated[
        list[str] | None, Query(description="`key=value` or `key`; all given must match.")
    ] = None,
    status: Annotated[Status | None, Query()] = None,
) -> Any:
    """The machines the caller may see; ``q`` looks into name, host name, id, address, labels."""
    query = AgentQuery(
        q=paging.q, labels=_labels(label or []), status=status, sort=paging.sort or "name"
    )
    items, total = await services_of(request).agents.page(
        caller, query, paging.page, paging.page_size
    )
    return page(items, total, paging.page, paging.page_size)


@router.get("/{asset_id}", response_model=Envelope[AssetBody], summary="Read a machine")
async def read(asset_id: str, caller: Caller, request: Request) -> Any:
    """One machine; unknown and invisible ones get the same 404."""
    return ok(await services_of(request).agents.show(caller, asset_id))


@router.put("/{asset_id}", response_model=Envelope[AssetBody], include_in_schema=False)
@router.patch("/{asset_id}", response_model=Envelope[AssetBody], summary="Change a machine")
async def change(asset_id: str, body: AssetPatch, caller: Caller, request: Request) -> Any:
    """Change name, labels, allowed users, whether it may declare mappings, or maintenance. Admins
    only.

    Users who are no longer listed lose their sessions on the machine within seconds.
    """
    changes = body.model_dump(exclude_unset=True, exclude_none=True)
    return ok(await services_of(request).agents.update(caller, asset_id, changes))


@router.delete("/{asset_id}", response_model=Envelope[Nothing], summary="Delete a machine")
async def delete(asset_id: str, by: Admin, request: Request) -> Any:
    """Delete softly: link and sessions end within five seconds, its key must apply again."""
    await services_of(request).agents.delete(by, asset_id)
    return ok()


@router.get(
    "/{asset_id}/metrics", response_model=Envelope[MetricPoints], summary="Metrics of two hours"
)
async def metrics(asset_id: str, caller: Caller, request: Request) -> Any:
    """One point per heartbeat, kept in memory."""
    return ok({"points": await services_of(request).agents.metrics(caller, asset_id)})


@router.get(
    "/{asset_id}/metrics/live",
    summary="Live metrics",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent `event: metrics` with `dynamic_info` every 2 s; "
            "`event: error` and the end when the agent stops answering.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def live(asset_id: str, caller: Caller, request: Request) -> StreamingResponse:
    """Asks the agent over its link, so it needs one (409 otherwise)."""
    services = services_of(request)
    await services.agents.require(caller, asset_id)
    if services.registry.agent(asset_id) is None:
        raise Conflict(
            "The machine has no link right now.",
            code="agent_unlinked",
            hint="Use /metrics for what its heartbeats said.",
        )
    streams = _live.setdefault(request.app, set())
    if len(streams) >= MAX_LIVE:
        raise TooManyRequests("Too many live charts are open.", retry_after=10)
    return StreamingResponse(
        _stream(services, caller, asset_id, streams),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(
    services: Services, caller: Subject, asset_id: str, streams: set[object]
) -> AsyncGenerator[str, None]:
    mine = object()
    streams.add(mine)
    try:
        yield "retry: 5000\n\n"
        while services.ready:
            # Asked each time: a machine or a right may have gone in the meantime.
            await services.agents.require(caller, asset_id)
            if not await services.sign_in.still_valid(caller):
                return
            link = services.registry.agent(asset_id)
            if link is None:
                raise Conflict("The machine's link is gone.", code="agent_unlinked")
            answer = await link.request("metrics", {}, timeout=5.0)
            yield _sse("metrics", answer.get("dynamic_info", {}))
            await asyncio.sleep(LIVE_EVERY)
    except UnderpassError as error:
        yield _sse("error", error_body(error))
    finally:
        streams.discard(mine)


def _sse(event: str, data: object) -> str:
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False, default=str)}\n\n"


def _labels(given: list[str]) -> dict[str, str | None]:
    if len(given) > 16:
        raise InvalidRequest("label: at most 16 of them.", details={"field": "label"})
    labels: dict[str, str | None] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or len(key) > 63 or any(mark in key for mark in "\"\\'\0"):
            raise InvalidRequest(
                "label: must be key=value or key.", code="bad_labels", details={"field": "label"}
            )
        labels[key] = value if equals else None
    return labels
